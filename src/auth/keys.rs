//! Keys that verify tokens. A key is used for one algorithm only, whatever a token says.

use std::sync::Arc;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};

use super::AuthError;
use super::config::{Algorithm, AuthConfigError, IssuerConfig, KeyConfig, Secret};
use super::jwks::Jwks;

/// The shortest secret for HS256, in bytes (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// The bytes of an uncompressed point on P-256.
const P256_POINT_BYTES: usize = 65;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys of one issuer.
#[derive(Debug)]
pub(super) enum Keys {
    /// As they were configured.
    Fixed(Vec<Arc<Key>>),
    /// As the issuer publishes them.
    Published(Arc<Jwks>),
}

impl Keys {
    /// The key a token names, for the algorithm it names.
    pub(super) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, AuthError> {
        let key = match self {
            Self::Fixed(keys) => keys
                .iter()
                .find(|key| key.kid.as_deref() == kid && key.algorithm == algorithm)
                .cloned(),
            Self::Published(jwks) => {
                let kid = kid.ok_or(AuthError::Invalid("it names no key"))?;
                Some(jwks.find(kid).await?)
            }
        };
        key.filter(|key| key.algorithm == algorithm)
            .ok_or(AuthError::Invalid("no key of that name and algorithm"))
    }
}

/// Reads the keys of an issuer that are configured.
pub(super) fn fixed(issuer: &IssuerConfig) -> Result<Vec<Arc<Key>>, AuthConfigError> {
    let mut keys: Vec<Arc<Key>> = Vec::new();
    for (index, config) in issuer.keys.iter().enumerate() {
        let name = config.kid.clone().unwrap_or_else(|| (index + 1).to_string());
        let wrong = |detail: String| AuthConfigError::Key {
            issuer: issuer.issuer.clone(),
            key: name.clone(),
            detail,
        };
        let key = Key {
            kid: config.kid.as_deref().map(Into::into),
            algorithm: config.algorithm,
            decoding: decoding(config).map_err(wrong)?,
        };
        if keys
            .iter()
            .any(|own| own.kid == key.kid && own.algorithm == key.algorithm)
        {
            return Err(wrong("two keys need two names; give each a `kid`".to_owned()));
        }
        keys.push(Arc::new(key));
    }
    Ok(keys)
}

fn decoding(config: &KeyConfig) -> Result<DecodingKey, String> {
    let key = match config.algorithm {
        Algorithm::Hs256 => return Ok(DecodingKey::from_secret(secret(config)?.expose().as_bytes())),
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(public_key(config)?.as_bytes()),
        Algorithm::Es256 => DecodingKey::from_ec_pem(public_key(config)?.as_bytes()),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(public_key(config)?.as_bytes()),
    };
    let key = key.map_err(|error| format!("not a public key for its algorithm: {error}"))?;
    let point = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if config.algorithm == Algorithm::Es256 && point != P256_POINT_BYTES {
        return Err("ES256 needs a key on the curve P-256".to_owned());
    }
    Ok(key)
}

pub(super) fn secret(config: &KeyConfig) -> Result<Secret, String> {
    if config.public_key.is_some() || config.public_key_file.is_some() {
        return Err("HS256 takes a secret, not a public key".to_owned());
    }
    let secret = match (&config.secret, &config.secret_file) {
        (Some(secret), None) => secret.clone(),
        (None, Some(path)) => Secret::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
        _ => return Err("HS256 needs one of `secret` and `secret_file`".to_owned()),
    };
    if secret.expose().len() < SECRET_BYTES_MIN {
        return Err(format!("the secret needs at least {SECRET_BYTES_MIN} bytes"));
    }
    Ok(secret)
}

fn public_key(config: &KeyConfig) -> Result<String, String> {
    if config.secret.is_some() || config.secret_file.is_some() {
        return Err("this algorithm takes a public key, not a secret".to_owned());
    }
    match (&config.public_key, &config.public_key_file) {
        (Some(pem), None) => Ok(pem.clone()),
        (None, Some(path)) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())),
        _ => Err("it needs one of `public_key` and `public_key_file`".to_owned()),
    }
}

impl Key {
    /// A key as an issuer publishes it; `None` for one that signs no tokens of ours.
    pub(super) fn published(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        let verifies = common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::Es256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
            }
            // A published secret would be none.
            _ => return None,
        };
        if !verifies || !signs || common.key_algorithm.is_some_and(|own| own != named) {
            return None;
        }
        Some(Self {
            kid: Some(common.key_id.as_deref()?.into()),
            algorithm,
            decoding: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}
