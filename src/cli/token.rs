//! `token`: mints tokens for development.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::output::print;
use super::settings::pair;
use crate::auth::{Algorithm, ClaimsConfig, IssuerConfig, KeyConfig, Secret, TokenIssuer};
use crate::config::{Config, Sources};

/// The default tenant of commands and development tokens. The documents' examples use it, too.
pub const TENANT: &str = "default";

/// Issuer, audience and tenant claim of development tokens, unless a configuration has others.
const ISSUER: &str = "roomcast-dev";
const AUDIENCE: &str = "roomcast";
const TENANT_CLAIM: &str = "tenant_id";

/// Mint a user's token for development, signed with a shared secret (HS256), and print it
///
/// With the secret of a running `roomcast dev` the token opens a session there; with --config it is signed with the first
/// HS256 key of that configuration. In production tokens come from your identity provider.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("key").required(true))]
pub(super) struct Token {
    /// The user
    #[arg(long, value_name = "ID")]
    user: String,
    /// The tenant
    #[arg(long, value_name = "ID", default_value = TENANT)]
    tenant: String,
    /// A further claim; VALUE is JSON, or text when it is not; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = pair)]
    claims: Vec<(String, String)>,
    /// The token's lifetime, for example 15m or 8h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// A file that holds the secret
    #[arg(long, group = "key", value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The secret; a file is better, since others on the machine can see arguments
    #[arg(long, group = "key", env = "ROOMCAST_DEV_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// A configuration file with an issuer that has an HS256 key
    #[arg(long, short, group = "key", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Token {
    pub(super) fn run(self) -> Result<(), Failure> {
        let issuer = self.issuer()?;
        let claims = self.claims.into_iter().map(|(name, text)| (name, value(text)));
        let mut claims: Map<_, _> = claims.collect();
        // After the free claims, so that `--claim sub=..` cannot contradict `--user`.
        claims.extend(subject(&issuer.claims, &self.user, &self.tenant));
        print(mint(&issuer, &self.user, self.ttl, claims)?)
    }

    /// Returns the signing issuer: that of the configuration with the first HS256 key, if one is named.
    fn issuer(&self) -> Result<IssuerConfig, Failure> {
        if let Some(path) = &self.config {
            return configured(path);
        }
        let secret = match (&self.secret, &self.secret_file) {
            (_, Some(path)) => read_secret(path)?,
            (Some(secret), None) => secret.clone(),
            (None, None) => return Err(Failure::Usage("name a secret".to_owned())),
        };
        Ok(development(secret))
    }
}

/// Returns the first issuer of a configuration that has an HS256 key.
///
/// # Errors
/// [`Failure`] when the file cannot be read or has no such issuer.
pub fn configured(path: &Path) -> Result<IssuerConfig, Failure> {
    let config = Config::load(&Sources::of_process(Some(path.to_owned()), Vec::new()))?;
    let shares_secret = |issuer: &IssuerConfig| issuer.keys.iter().any(|key| key.algorithm == Algorithm::Hs256);
    let found = config.auth.issuers.into_iter().find(shares_secret);
    found.ok_or_else(|| Failure::No(format!("{}: no issuer has an HS256 key", path.display())))
}

/// Returns the issuer of development tokens, with this secret.
#[must_use]
pub fn development(secret: String) -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
        keys: vec![KeyConfig {
            kid: None,
            algorithm: Algorithm::Hs256,
            secret: Some(Secret::new(secret)),
            secret_file: None,
            public_key: None,
            public_key_file: None,
        }],
        claims: ClaimsConfig {
            tenant: Some(TENANT_CLAIM.to_owned()),
            ..ClaimsConfig::default()
        },
        ..IssuerConfig::default()
    }
}

/// Returns the claims by which this issuer identifies a user.
#[must_use]
pub fn subject(names: &ClaimsConfig, user: &str, tenant: &str) -> Map<String, Value> {
    let tenant = names.tenant.iter().map(|name| (name.clone(), json!(tenant)));
    tenant.chain([(names.user.clone(), json!(user))]).collect()
}

/// Signs a token as this issuer would.
///
/// # Errors
/// [`Failure::No`] when the issuer has no signing key.
pub fn mint(issuer: &IssuerConfig, user: &str, ttl: Duration, claims: Map<String, Value>) -> Result<String, Failure> {
    let signed = TokenIssuer::of(issuer).and_then(|issuer| issuer.issue(user, ttl, claims));
    signed.map_err(|error| Failure::No(error.to_string()))
}

/// Reads a secret's file, without a trailing line break.
///
/// # Errors
/// [`Failure::Undone`] when the file cannot be read or is empty.
pub fn read_secret(path: &Path) -> Result<String, Failure> {
    let secret =
        Secret::read(path).map_err(|error| Failure::Undone(format!("cannot read {}: {error}", path.display())))?;
    match secret.expose() {
        "" => Err(Failure::Undone(format!("{} is empty", path.display()))),
        text => Ok(text.to_owned()),
    }
}

fn value(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_json_where_it_can_be_and_text_otherwise() {
        for (text, expected) in [
            ("true", json!(true)),
            ("7", json!(7)),
            ("[\"a\"]", json!(["a"])),
            ("admin", json!("admin")),
            ("\"7\"", json!("7")),
        ] {
            assert_eq!(value(text.to_owned()), expected);
        }
    }
}
