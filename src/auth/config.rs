//! Configuration of tokens, and its errors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Issuers of accepted tokens, and the checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Auth")]
pub struct Config {
    /// The issuers. The one named by a token's `iss` decides the settings and keys.
    pub issuers: Vec<IssuerConfig>,
    /// The longest token, in bytes (default 8,192).
    pub token_bytes_max: usize,
    /// Tolerance for the issuer's clock in the checks of `exp`, `nbf` and `iat` (default 10 s; whole seconds). A session
    /// ends at `exp` and the leeway.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// The longest time from now to a token's `exp` (default 1 year, at most 100). A longer one is refused: often its `exp`
    /// counts milliseconds.
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

/// One issuer: its name, its keys (`keys` or `jwks`, not both), and the meaning of its claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// The exact value of `iss`.
    pub issuer: String,
    /// The accepted values of `aud`; one of the token's must be among them.
    pub audiences: Vec<String>,
    /// Accepts tokens without an `iss` or with any other, for development. Only with a single issuer.
    pub issuer_unchecked: bool,
    /// Accepts tokens for any audience, for development.
    pub audience_unchecked: bool,
    /// The accepted algorithms. When empty: those of `keys`, or RS256, ES256 and `EdDSA` with `jwks`.
    pub algorithms: Vec<Algorithm>,
    /// Keys configured here.
    pub keys: Vec<KeyConfig>,
    /// Keys fetched from the issuer.
    pub jwks: Option<JwksConfig>,
    /// The claims that name the user and the tenant.
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
    /// The key's name. A token must name it exactly; without a name here, only tokens without one match.
    #[serde(default)]
    pub kid: Option<String>,
    /// The only algorithm the key may be used for.
    pub algorithm: Algorithm,
    /// The secret itself, at least 32 bytes.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// A file with the secret; a trailing line end is not part of it.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The public key in PEM.
    #[serde(default)]
    pub public_key: Option<String>,
    /// A file with the public key in PEM.
    #[serde(default)]
    pub public_key_file: Option<PathBuf>,
}

/// Keys that the issuer publishes (RFC 7517). The address is fixed: nothing of a token ever becomes part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwksConfig {
    /// The address of the key set: `https`, or `http` to a loopback address. Redirects are not followed.
    pub url: String,
    /// Deadline of one fetch (default 2 s).
    #[serde(default = "two_seconds", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// The largest key set, in bytes (default 65,536).
    #[serde(default = "sixty_four_kib")]
    pub bytes_max: usize,
    /// The most keys in the set (default 100).
    #[serde(default = "hundred")]
    pub keys_max: usize,
    /// The shortest time between two fetches for tokens with an unknown key (default 30 s).
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub refetch_interval: Duration,
    /// Interval of regular fetches (default 10 min). A withdrawn key is trusted this much longer.
    #[serde(default = "ten_minutes", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub refresh_interval: Duration,
    /// Time for which the last good keys are used while fetches fail (default 24 h). Then every token is refused.
    #[serde(default = "one_day", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keep: Duration,
}

impl JwksConfig {
    /// Returns the defaults for a key set at `url`.
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

/// The claims that identify the client. Each must be a string or an integer.
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

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file, without a trailing line end.
    ///
    /// # Errors
    /// Any error of the file system.
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

/// An error in the configuration of an issuer. The text is for the operator and repeats no secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// The longest lifetime of a token is out of bounds.
    #[error("`lifetime_max` is not between a second and 100 years")]
    LifetimeMax,
    /// A setting is missing or contradicts another.
    #[error("issuer \"{issuer}\": {detail}")]
    Issuer {
        /// The issuer.
        issuer: String,
        /// The error.
        detail: String,
    },
    /// A key cannot be used.
    #[error("issuer \"{issuer}\", key {key}: {detail}")]
    Key {
        /// The issuer.
        issuer: String,
        /// The key: its `kid`, or its number from 1.
        key: String,
        /// The cause.
        detail: String,
    },
}
