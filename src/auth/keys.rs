//! Keys that verify tokens. A key is used for one algorithm only, whatever a token names.

use std::sync::Arc;

use jsonwebtoken::DecodingKey;

use super::AuthError;
use super::config::{Algorithm, AuthConfigError, IssuerConfig, KeyConfig, Secret};
use super::jwks::Jwks;

/// The shortest secret for HS256, in bytes (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Bytes of an uncompressed point on P-256.
const P256_POINT_BYTES: usize = 65;

/// The most keys of one name and algorithm. A token is tried with each, so more would multiply the cost of a forged one.
const SAME_NAME_MAX: usize = 4;

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
    /// Keys from the configuration.
    Fixed(KeyRing),
    /// Keys that the issuer publishes.
    Published(Arc<Jwks>),
}

impl Keys {
    /// Returns the keys of a token's name and algorithm, at least one.
    pub(super) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<SameName, AuthError> {
        match self {
            Self::Fixed(keys) => keys.find(kid, algorithm).ok_or(NO_SUCH_KEY),
            Self::Published(jwks) => {
                let kid = kid.ok_or(AuthError::Invalid("it names no key"))?;
                jwks.find(kid, algorithm).await
            }
        }
    }
}

/// The refusal of a token whose name and algorithm match no key.
pub(super) const NO_SUCH_KEY: AuthError = AuthError::Invalid("no key of that name and algorithm");

/// The keys of one name and algorithm.
pub(super) type SameName = Arc<[DecodingKey]>;

/// Keys by name and algorithm. A name alone is not unique: RFC 7517 section 4.5 allows keys of different types to share
/// one, and issuers publish two of one type during a rotation.
#[derive(Debug, Default)]
pub(super) struct KeyRing(Vec<(Option<Box<str>>, Algorithm, SameName)>);

impl KeyRing {
    /// Groups keys, up to [`SAME_NAME_MAX`] of one name and algorithm. Returns those beyond.
    pub(super) fn new(keys: impl IntoIterator<Item = Key>) -> (Self, Vec<Key>) {
        let mut groups: Vec<(Option<Box<str>>, Algorithm, Vec<DecodingKey>)> = Vec::new();
        let mut beyond = Vec::new();
        for key in keys {
            let group = groups
                .iter_mut()
                .find(|(kid, algorithm, _)| (kid, *algorithm) == (&key.kid, key.algorithm));
            match group {
                None => groups.push((key.kid, key.algorithm, vec![key.decoding])),
                Some((_, _, same)) if same.len() < SAME_NAME_MAX => same.push(key.decoding),
                Some(_) => beyond.push(key),
            }
        }
        let groups = groups.into_iter();
        let groups = groups.map(|(kid, algorithm, same)| (kid, algorithm, same.into()));
        (Self(groups.collect()), beyond)
    }

    /// Returns the keys of a name and an algorithm.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<SameName> {
        let found = self
            .0
            .iter()
            .find(|(name, own, _)| name.as_deref() == kid && *own == algorithm);
        found.map(|(_, _, keys)| Arc::clone(keys))
    }

    /// Returns the number of pairs of name and algorithm.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

/// Reads the configured keys of an issuer.
pub(super) fn fixed(issuer: &IssuerConfig) -> Result<KeyRing, AuthConfigError> {
    let mut keys: Vec<Key> = Vec::new();
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
        keys.push(key);
    }
    // No two share a name and an algorithm, so none is beyond the bound.
    Ok(KeyRing::new(keys).0)
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
