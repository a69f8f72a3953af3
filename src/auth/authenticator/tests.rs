use std::time::Duration;

use super::*;
use crate::auth::{Algorithm, IssuerConfig, KeyConfig, Secret, TokenIssuer};

fn config(secret: &str) -> Config {
    let key = KeyConfig {
        kid: None,
        algorithm: Algorithm::Hs256,
        secret: Some(Secret::new(secret.repeat(32))),
        secret_file: None,
        public_key: None,
        public_key_file: None,
    };
    let issuer = IssuerConfig {
        issuer: "https://id.example".to_owned(),
        audiences: vec!["roomcast".to_owned()],
        keys: vec![key],
        ..IssuerConfig::default()
    };
    Config {
        issuers: vec![issuer],
        ..Config::default()
    }
}

/// A token of the first issuer.
fn token(config: &Config) -> String {
    let issuer = TokenIssuer::of(&config.issuers[0]).unwrap();
    issuer
        .issue("ada", Duration::from_secs(60), serde_json::Map::new())
        .unwrap()
}

#[tokio::test]
async fn a_swap_replaces_keys_and_settings_at_once() {
    let (old, new) = (config("a"), config("b"));
    let authenticator = JwtAuthenticator::new(&old).unwrap();
    let (by_old, by_new) = (token(&old), token(&new));
    assert!(authenticator.authenticate(&by_old).await.is_ok());
    assert!(authenticator.authenticate(&by_new).await.is_err());
    let prepared = authenticator.prepare(&new).unwrap();
    assert!(
        authenticator.authenticate(&by_old).await.is_ok(),
        "preparing has no effect"
    );
    authenticator.swap(prepared);
    assert!(authenticator.authenticate(&by_old).await.is_err());
    assert!(authenticator.authenticate(&by_new).await.is_ok());
    let short = Config {
        token_bytes_max: 10,
        ..new
    };
    authenticator.swap(authenticator.prepare(&short).unwrap());
    assert_eq!(
        authenticator.authenticate(&by_new).await,
        Err(AuthError::Invalid("it is too long"))
    );
}

#[tokio::test]
async fn what_cannot_be_used_is_not_prepared() {
    let old = config("a");
    let authenticator = JwtAuthenticator::new(&old).unwrap();
    let mut wrong = config("b");
    wrong.issuers[0].keys.clear();
    assert!(authenticator.prepare(&wrong).is_err());
    assert!(authenticator.authenticate(&token(&old)).await.is_ok());
}
