//! Signing of tokens: for `dev`, for `roomcast token` and for tests. A gateway in production needs no signing key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use super::config::{Algorithm, IssuerConfig, KeyConfig, Secret};

/// Reason why a token is not signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The key does not fit its algorithm.
    #[error("the key cannot sign: {0}")]
    Key(String),
    /// Signing failed.
    #[error("the token cannot be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs tokens of one issuer with one key.
pub struct TokenIssuer {
    issuer: Option<String>,
    audience: Option<String>,
    header: Header,
    key: EncodingKey,
}

impl TokenIssuer {
    /// Signs with HS256 and the first such key of a configured issuer, so that the gateway accepts the tokens.
    ///
    /// # Errors
    /// [`IssueError::Key`] when the issuer has none, or its secret is unavailable.
    pub fn of(config: &IssuerConfig) -> Result<Self, IssueError> {
        let mut keys = config.keys.iter();
        let key = keys
            .find(|key| key.algorithm == Algorithm::Hs256)
            .ok_or_else(|| IssueError::Key("the issuer has no HS256 key".to_owned()))?;
        let secret = super::keys::secret(key).map_err(IssueError::Key)?;
        let signing = EncodingKey::from_secret(secret.expose().as_bytes());
        Ok(Self::new(
            config,
            jsonwebtoken::Algorithm::HS256,
            key.kid.clone(),
            signing,
        ))
    }

    fn new(config: &IssuerConfig, algorithm: jsonwebtoken::Algorithm, kid: Option<String>, key: EncodingKey) -> Self {
        let mut header = Header::new(algorithm);
        header.kid = kid;
        Self {
            issuer: Some(config.issuer.clone()).filter(|issuer| !issuer.is_empty()),
            audience: config.audiences.first().cloned(),
            header,
            key,
        }
    }

    /// Signs with `EdDSA` and a private key in PEM (PKCS #8), in the name of a configured issuer.
    ///
    /// # Errors
    /// [`IssueError::Key`] for any other key.
    pub fn ed25519(config: &IssuerConfig, kid: Option<String>, private_key: &Secret) -> Result<Self, IssueError> {
        let key = EncodingKey::from_ed_pem(private_key.expose().as_bytes())
            .map_err(|error| IssueError::Key(error.to_string()))?;
        Ok(Self::new(config, jsonwebtoken::Algorithm::EdDSA, kid, key))
    }

    /// Generates a key for development, kept nowhere, and the settings that accept its tokens.
    #[must_use]
    pub fn for_development() -> (Self, IssuerConfig) {
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let signing = EncodingKey::from_secret(secret.as_bytes());
        let config = IssuerConfig {
            issuer: "roomcast-dev".to_owned(),
            audiences: vec!["roomcast".to_owned()],
            keys: vec![KeyConfig {
                kid: Some("dev".to_owned()),
                algorithm: Algorithm::Hs256,
                secret: Some(Secret::new(secret)),
                secret_file: None,
                public_key: None,
                public_key_file: None,
            }],
            ..IssuerConfig::default()
        };
        let kid = Some("dev".to_owned());
        (Self::new(&config, jsonwebtoken::Algorithm::HS256, kid, signing), config)
    }

    /// Signs a token for this user that expires after `ttl`. `claims` are added verbatim, and win over the generated
    /// `sub`, `iss`, `aud`, `iat` and `exp`.
    ///
    /// # Errors
    /// [`IssueError::Sign`].
    pub fn issue(&self, user: &str, ttl: Duration, claims: Map<String, Value>) -> Result<String, IssueError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut all = Map::new();
        all.insert("sub".to_owned(), user.into());
        all.insert("iat".to_owned(), now.as_secs().into());
        all.insert("exp".to_owned(), now.saturating_add(ttl).as_secs().into());
        if let Some(issuer) = &self.issuer {
            all.insert("iss".to_owned(), issuer.as_str().into());
        }
        if let Some(audience) = &self.audience {
            all.insert("aud".to_owned(), audience.as_str().into());
        }
        all.extend(claims);
        Ok(jsonwebtoken::encode(&self.header, &all, &self.key)?)
    }
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
