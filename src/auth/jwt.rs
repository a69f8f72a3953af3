//! JSON Web Tokens (RFC 7519) of one or several issuers.
//!
//! Every field of the validation is set here; no default of the library applies. A token selects among configured values
//! and never contributes one: no key, no address, no algorithm.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::config::{Algorithm, AuthConfigError, ClaimsConfig, Config, IssuerConfig};
use super::jwks::Jwks;
use super::keys::{self, Keys};
use super::{AuthError, registered};
use crate::identity::{Identity, UserId};
use crate::json::{Json, Members};
use crate::room::Tenant;

/// Bounds of `lifetime_max`. The upper one keeps every time that clients receive, in milliseconds, below 2^53.
const LIFETIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(100 * 31_557_600);

/// Issuers, their settings and their keys. Nothing in it changes but keys that are fetched.
#[derive(Debug)]
pub(super) struct Issuers {
    issuers: Vec<Issuer>,
    token_bytes_max: usize,
}

#[derive(Debug)]
struct Issuer {
    /// `None` when `iss` is not checked.
    name: Option<Box<str>>,
    audiences: Option<Vec<String>>,
    algorithms: Vec<Algorithm>,
    keys: Keys,
    claims: ClaimsConfig,
    leeway: Duration,
    lifetime_max: Duration,
}

impl Issuers {
    /// Reads keys and checks the settings; key sets of `current` are used on where theirs are the same.
    pub(super) fn read(config: &Config, current: Option<&Self>) -> Result<Self, AuthConfigError> {
        if !LIFETIMES.contains(&config.lifetime_max) {
            return Err(AuthConfigError::LifetimeMax);
        }
        let fetched: Vec<&Arc<Jwks>> = current.into_iter().flat_map(Self::published).collect();
        let issuers = config.issuers.iter();
        let issuers: Vec<Issuer> = issuers
            .map(|issuer| Issuer::new(issuer, config, &fetched))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            issuers,
            token_bytes_max: config.token_bytes_max,
        })
    }

    pub(super) fn published(&self) -> impl Iterator<Item = &Arc<Jwks>> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            Keys::Published(jwks) => Some(jwks),
            Keys::Fixed(_) => None,
        })
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > self.token_bytes_max {
            return Err(AuthError::Invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| AuthError::Invalid("its header cannot be read or names an unknown algorithm"))?;
        refuse_brought_along(&header)?;
        let issuer = self.issuer_of(token)?;
        let algorithm = algorithm_of(header.alg)
            .filter(|named| issuer.algorithms.contains(named))
            .ok_or(AuthError::Invalid("its algorithm is not accepted"))?;
        let keys = issuer.keys.find(header.kid.as_deref(), algorithm).await?;
        let claims = issuer.decode(token, &keys, header.alg)?;
        issuer.identity(&claims)
    }

    /// Selects the issuer whose keys and settings apply. The token is not trusted yet; it only selects.
    fn issuer_of(&self, token: &str) -> Result<&Issuer, AuthError> {
        #[derive(Deserialize)]
        struct Claimed {
            iss: Option<Value>,
        }
        let claimed: Claimed = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| AuthError::Invalid("its claims cannot be read"))?;
        let named = claimed.iss.as_ref().and_then(Value::as_str);
        self.issuers
            .iter()
            .find(|issuer| issuer.name.is_none() || issuer.name.as_deref() == named)
            .ok_or(AuthError::Invalid("its issuer is not known"))
    }
}

impl Issuer {
    fn new(config: &IssuerConfig, all: &Config, fetched: &[&Arc<Jwks>]) -> Result<Self, AuthConfigError> {
        check_settings(config, all).map_err(|detail| AuthConfigError::Issuer {
            issuer: config.issuer.clone(),
            detail,
        })?;
        let keys = match &config.jwks {
            Some(jwks) => Keys::Published(
                match fetched.iter().find(|one| one.is_configured_as(&config.issuer, jwks)) {
                    Some(same) => Arc::clone(same),
                    None => Jwks::new(&config.issuer, jwks)?,
                },
            ),
            None => Keys::Fixed(keys::fixed(config)?),
        };
        Ok(Self {
            name: (!config.issuer_unchecked).then(|| config.issuer.as_str().into()),
            audiences: (!config.audience_unchecked).then(|| config.audiences.clone()),
            algorithms: accepted_algorithms(config),
            keys,
            claims: config.claims.clone(),
            leeway: all.leeway,
            lifetime_max: all.lifetime_max,
        })
    }

    fn validation(&self, algorithm: jsonwebtoken::Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.algorithms = vec![algorithm];
        validation.leeway = self.leeway.as_secs();
        validation.reject_tokens_expiring_in_less_than = 0;
        // Checked in `registered`: by one rule, and what is refused there and what ends a session are one moment.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = self.audiences.is_some();
        validation.aud = None;
        validation.iss = None;
        validation.sub = None;
        let mut required = Vec::new();
        if let Some(name) = &self.name {
            validation.set_issuer(&[name]);
            required.push("iss");
        }
        if let Some(audiences) = &self.audiences {
            validation.set_audience(audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn decode(
        &self,
        token: &str,
        keys: &[DecodingKey],
        algorithm: jsonwebtoken::Algorithm,
    ) -> Result<Box<RawValue>, AuthError> {
        let validation = self.validation(algorithm);
        let mut refused = keys::NO_SUCH_KEY;
        for key in keys {
            match jsonwebtoken::decode(token, key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                // The signature is right, so this is the reason: no other key's verdict may hide it.
                Err(error) if is_about_claims(error.kind()) => return Err(refusal(error.kind())),
                Err(error) => refused = refusal(error.kind()),
            }
        }
        Err(refused)
    }

    fn identity(&self, claims: &RawValue) -> Result<Identity, AuthError> {
        let text = Json::parse(claims.get().as_bytes().to_vec())
            .map_err(|_| AuthError::Invalid("its claims are not acceptable JSON"))?;
        let claims = Members::parse(claims.get()).map_err(|_| AuthError::Invalid("its claims are no object"))?;
        registered::check_id(&claims)?;
        let user = claims
            .text(&self.claims.user)
            .and_then(|text| UserId::parse(&text).ok())
            .ok_or(AuthError::Invalid("it names no acceptable user"))?;
        Ok(Identity {
            tenant: self.tenant(&claims)?,
            user,
            expiry: registered::expiry(&claims, self.leeway, self.lifetime_max)?,
            claims: text.into(),
        })
    }

    fn tenant(&self, claims: &Members<'_>) -> Result<Tenant, AuthError> {
        let text = match &self.claims.tenant {
            Some(claim) => claims.text(claim),
            None => Some(self.claims.tenant_default.clone()),
        };
        text.and_then(|text| Tenant::parse(&text).ok())
            .ok_or(AuthError::Invalid("it names no acceptable tenant"))
    }
}

/// Refuses headers by which a token would choose its own key (RFC 7515 section 4.1), or that are not supported.
const fn refuse_brought_along(header: &Header) -> Result<(), AuthError> {
    if header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some() || header.x5c.is_some() {
        return Err(AuthError::Invalid("it brings its own key"));
    }
    if header.crit.is_some() || header.zip.is_some() || header.enc.is_some() {
        return Err(AuthError::Invalid("its header asks for more than is supported"));
    }
    Ok(())
}

const fn algorithm_of(named: jsonwebtoken::Algorithm) -> Option<Algorithm> {
    use jsonwebtoken::Algorithm as Named;
    match named {
        Named::HS256 => Some(Algorithm::Hs256),
        Named::RS256 => Some(Algorithm::Rs256),
        Named::ES256 => Some(Algorithm::Es256),
        Named::EdDSA => Some(Algorithm::EdDsa),
        _ => None,
    }
}

/// Reports whether a token was refused for its claims, which are looked at only after its signature was found right.
const fn is_about_claims(error: &ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience | ErrorKind::Json(_)
    )
}

fn refusal(error: &ErrorKind) -> AuthError {
    AuthError::Invalid(match error {
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => "its `aud` is missing or of a wrong type",
        ErrorKind::MissingRequiredClaim(_) => "its `iss` is missing or of a wrong type",
        ErrorKind::Json(_) => "a claim is of a wrong type",
        ErrorKind::InvalidIssuer => "its issuer is not the expected one",
        ErrorKind::InvalidAudience => "its `aud` names no accepted audience",
        _ => "it cannot be verified",
    })
}

fn accepted_algorithms(config: &IssuerConfig) -> Vec<Algorithm> {
    if !config.algorithms.is_empty() {
        return config.algorithms.clone();
    }
    if config.jwks.is_some() {
        return vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
    }
    config.keys.iter().map(|key| key.algorithm).collect()
}

/// Checks that the settings agree. The error is for the operator.
fn check_settings(config: &IssuerConfig, all: &Config) -> Result<(), String> {
    let refuse = |detail: &str| Err(detail.to_owned());
    if config.issuer_unchecked && all.issuers.len() > 1 {
        return refuse("`issuer_unchecked` needs a single issuer, else it is not clear whose keys apply");
    }
    if !config.issuer_unchecked && config.issuer.is_empty() {
        return refuse("`issuer` is empty; give the value of `iss`");
    }
    if all.issuers.iter().filter(|other| other.issuer == config.issuer).count() > 1 {
        return refuse("it is configured twice");
    }
    if config.audience_unchecked != config.audiences.is_empty() {
        return refuse("give `audiences`, or in development `audience_unchecked = true`, and not both");
    }
    if config.jwks.is_some() != config.keys.is_empty() {
        return refuse("give either `keys` or `jwks`");
    }
    if config.jwks.is_some() && config.algorithms.contains(&Algorithm::Hs256) {
        return refuse("HS256 does not go with `jwks`: a published secret is none");
    }
    if let Some(key) = config
        .keys
        .iter()
        .find(|key| !accepted_algorithms(config).contains(&key.algorithm))
    {
        return Err(format!(
            "a key is for {:?}, which `algorithms` does not list",
            key.algorithm
        ));
    }
    if config.claims.tenant.is_none() && Tenant::parse(&config.claims.tenant_default).is_err() {
        return refuse("`claims.tenant_default` is no tenant");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
