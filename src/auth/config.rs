//! What an operator writes about tokens, and what can be wrong with it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Whose tokens are taken, and how they are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Auth")]
pub struct Config {
    /// The issuers. A token is checked with the settings and keys of the one its `iss` names.
    pub issuers: Vec<IssuerConfig>,
    /// The longest token, in bytes (default 8,192).
    pub token_bytes_max: usize,
    /// How far the issuer's clock may be off when `exp`, `nbf` and `iat` are checked (default 10 s; whole seconds). A
    /// session ends at `exp` and the leeway.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// The longest time from now to a token's `exp` (default 1 year, at most 100). A token that lives longer is
    /// refused: often its `exp` counts milliseconds.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lifetime_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            token_bytes_max: 8_192,
            leeway: Duration::from_secs(10),
            lifetime_max: Duration::from_secs(31_557_600),
        }
    }
}

/// One issuer: its name, its keys (`keys` or `jwks`, not both), and what its claims mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// The exact value of `iss`.
    pub issuer: String,
    /// The accepted values of `aud`; one of the token's must be among them.
    pub audiences: Vec<String>,
    /// Takes tokens that say nothing or something else in `iss`, for development. Only with a single issuer.
    pub issuer_unchecked: bool,
    /// Takes tokens for any audience, for development.
    pub audience_unchecked: bool,
    /// The accepted algorithms. When empty: those of `keys`, or RS256, ES256 and `EdDSA` with `jwks`.
    pub algorithms: Vec<Algorithm>,
    /// Keys given here.
    pub keys: Vec<KeyConfig>,
    /// Keys fetched from the issuer.
    pub jwks: Option<JwksConfig>,
    /// Which claims name the user and the tenant.
    pub claims: ClaimsConfig,
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037). There are no others, and there is no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256: one secret signs and verifies, of at least 32 bytes.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256, keys of at least 2,048 bits.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// One key. For HS256 give `secret` or `secret_file`, else `public_key` or `public_key_file` (PEM).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The key's name. A token has to name it exactly; without one here, only tokens without one match.
    #[serde(default)]
    pub kid: Option<String>,
    /// The only algorithm the key is used for.
    pub algorithm: Algorithm,
    /// The secret itself, at least 32 bytes.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// A file with the secret; a line end at its end is not part of it.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The public key in PEM.
    #[serde(default)]
    pub public_key: Option<String>,
    /// A file with the public key in PEM.
    #[serde(default)]
    pub public_key_file: Option<PathBuf>,
}

/// Keys that the issuer publishes (RFC 7517). The address is fixed: nothing of a token ever goes into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwksConfig {
    /// The address of the key set: `https`, or `http` to a loopback address. Redirects are not followed.
    pub url: String,
    /// How long one fetch may take (default 2 s).
    #[serde(default = "two_seconds", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// The largest key set, in bytes (default 65,536).
    #[serde(default = "sixty_four_kib")]
    pub bytes_max: usize,
    /// The most keys in it (default 100).
    #[serde(default = "hundred")]
    pub keys_max: usize,
    /// How often a token with an unknown key may cause a fetch (default once in 30 s).
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub refetch_interval: Duration,
    /// How often keys are fetched anyway (default every 10 min); a withdrawn key is trusted this much longer.
    #[serde(default = "ten_minutes", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub refresh_interval: Duration,
    /// How long the last good keys are used when fetching fails (default 24 h); then every token is refused.
    #[serde(default = "one_day", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keep: Duration,
}

impl JwksConfig {
    /// The defaults for a key set at `url`.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            timeout: two_seconds(),
            bytes_max: sixty_four_kib(),
            keys_max: hundred(),
            refetch_interval: thirty_seconds(),
            refresh_interval: ten_minutes(),
            keep: one_day(),
        }
    }
}

const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

const fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

const fn one_day() -> Duration {
    Duration::from_secs(86_400)
}

const fn sixty_four_kib() -> usize {
    65_536
}

const fn hundred() -> usize {
    100
}

/// Which claims say who it is. Each must be a string or an integer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClaimsConfig {
    /// The claim with the user id (default `sub`).
    pub user: String,
    /// The claim with the tenant, for example `tenant_id`. When set, a token without it is refused.
    pub tenant: Option<String>,
    /// The tenant of all tokens of this issuer when `tenant` is not set (default `default`).
    pub tenant_default: String,
}

impl Default for ClaimsConfig {
    fn default() -> Self {
        Self {
            user: "sub".to_owned(),
            tenant: None,
            tenant_default: "default".to_owned(),
        }
    }
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for whoever computes with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file, without the line end at its end.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("(secret)")
    }
}

/// What is wrong with the configuration of an issuer. The text is for whoever wrote it and repeats no secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// The longest lifetime of a token is out of bounds.
    #[error("`lifetime_max` is not between a second and 100 years")]
    LifetimeMax,
    /// A setting is missing or contradicts another.
    #[error("issuer \"{issuer}\": {detail}")]
    Issuer {
        /// Which issuer.
        issuer: String,
        /// What.
        detail: String,
    },
    /// A key cannot be used.
    #[error("issuer \"{issuer}\", key {key}: {detail}")]
    Key {
        /// Which issuer.
        issuer: String,
        /// Which key: its `kid`, or its place from 1.
        key: String,
        /// Why.
        detail: String,
    },
}
