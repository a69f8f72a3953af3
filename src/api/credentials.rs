//! Authentication of backend services: by static token, by JWT or by client certificate.
//!
//! A credential grants scopes and tenants. The grant becomes a [`Service`](crate::policy::Service), which issues the
//! permits. Tokens are kept as SHA-256 digests. A client's token is no credential here: a service token needs the claims
//! `scope` and `tenants`.

mod caller;
mod grant;
mod jwt;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use self::caller::Buckets;
use self::jwt::JwtTokens;
use super::status::Refusal;
use crate::auth::Authenticator;

pub use caller::Caller;
pub use grant::{Grant, Scope, TokenDigest};

/// The longest token that is checked, in bytes: common proxies allow no longer header, and each is hashed.
const TOKEN_BYTES_MAX: usize = 8 << 10;

type Tokens = Arc<[(TokenDigest, Arc<Caller>)]>;

/// The credentials that the listener accepts.
#[derive(Default)]
pub struct Credentials {
    tokens: RwLock<Tokens>,
    jwt: Option<JwtTokens>,
    certificates: HashMap<Box<str>, Arc<Caller>>,
    everybody: Option<Arc<Caller>>,
    buckets: Buckets,
}

impl Credentials {
    /// Creates an empty set.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Accepts every caller with every scope in every tenant. For `dev` on loopback.
    #[must_use]
    pub fn everybody() -> Self {
        let mut credentials = Self::none();
        credentials.everybody = Some(credentials.caller(&Grant {
            name: "everybody".to_owned(),
            scopes: Scope::ALL.to_vec(),
            tenants: None,
            publish_rate: None,
        }));
        credentials
    }

    /// Accepts these tokens.
    #[must_use]
    pub fn with_tokens(self, tokens: impl IntoIterator<Item = (TokenDigest, Grant)>) -> Self {
        self.replace_tokens(tokens);
        self
    }

    /// Accepts JWTs that `verifier` accepts and that carry the claims `scope` (names, separated by spaces) and `tenants`
    /// (an array of tenants, or `["*"]`). The service's name is the verified user.
    #[must_use]
    pub fn with_jwt(mut self, verifier: Arc<dyn Authenticator>) -> Self {
        self.jwt = Some(JwtTokens::new(verifier));
        self
    }

    /// Accepts client certificates by a DNS name or URI of their subject alternative names.
    #[must_use]
    pub fn with_certificates(mut self, certificates: impl IntoIterator<Item = (String, Grant)>) -> Self {
        for (name, grant) in certificates {
            let caller = self.caller(&grant);
            self.certificates.insert(name.into(), caller);
        }
        self
    }

    /// Replaces the static tokens. Calls in flight continue.
    pub fn replace_tokens(&self, tokens: impl IntoIterator<Item = (TokenDigest, Grant)>) {
        let tokens = tokens.into_iter().map(|(digest, grant)| (digest, self.caller(&grant)));
        let tokens: Tokens = tokens.collect();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// Keeps the keys of the issuers of service tokens up to date until `stop`.
    pub(super) async fn keep_keys_fresh(&self, stop: CancellationToken) {
        if let Some(jwt) = &self.jwt {
            jwt.keep_keys_fresh(stop).await;
        }
    }

    /// Reports whether no caller could be accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.everybody.is_none() && self.jwt.is_none() && self.certificates.is_empty() && self.tokens().is_empty()
    }

    /// Reports whether a call without a credential is accepted.
    #[must_use]
    pub const fn lets_everybody_in(&self) -> bool {
        self.everybody.is_some()
    }

    /// Reports whether client certificates are credentials.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Authenticates a call: by its token if it has one, else by the certificate.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], and [`Refusal::NotStored`] when the keys are unavailable.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        certificates: Option<&[CertificateDer<'static>]>,
    ) -> Result<Arc<Caller>, Refusal> {
        if let Some(token) = bearer(headers)? {
            return self.by_token(token).await;
        }
        if let Some(caller) = certificates.and_then(|chain| self.by_certificate(chain.first()?)) {
            return Ok(caller);
        }
        self.everybody
            .clone()
            .ok_or(Refusal::Unauthenticated("the call carries no credential"))
    }

    async fn by_token(&self, token: &str) -> Result<Arc<Caller>, Refusal> {
        let digest = TokenDigest::of(token);
        // Every digest is compared, so that the time does not reveal which one matched.
        let tokens = self.tokens();
        let mut found = None;
        for (known, caller) in tokens.iter() {
            if known.same(&digest) {
                found = Some(caller);
            }
        }
        if let Some(caller) = found {
            return Ok(caller.clone());
        }
        match &self.jwt {
            Some(jwt) => jwt.verify(digest, token, |grant| self.caller(&grant)).await,
            None => Err(Refusal::Unauthenticated("the token is not valid")),
        }
    }

    /// Finds the caller of a certificate. The common name is ignored (RFC 9525 section 2).
    fn by_certificate(&self, certificate: &CertificateDer<'static>) -> Option<Arc<Caller>> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
        names.find_map(|name| self.certificates.get(name).cloned())
    }

    fn tokens(&self) -> Tokens {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn caller(&self, grant: &Grant) -> Arc<Caller> {
        Arc::new(Caller::new(grant, self.buckets.of(&grant.name)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("tokens", &self.tokens().len())
            .field("jwt", &self.jwt.is_some())
            .field("certificates", &self.certificates.len())
            .field("everybody", &self.everybody.is_some())
            .finish_non_exhaustive()
    }
}

/// Returns the bearer token (RFC 6750 section 2.1). The scheme's case does not matter.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let malformed = Refusal::Unauthenticated("the authorization is not a bearer token");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        // A proxy may have checked the other one.
        (Some(_), Some(_)) => return Err(malformed),
    };
    let Ok(text) = value.to_str() else {
        return Err(malformed);
    };
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES_MAX => {
            Ok(Some(token.trim_start()))
        }
        _ => Err(malformed),
    }
}
