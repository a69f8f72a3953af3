//! Who calls: backend services by static token, by JWT or by client certificate.
//!
//! A credential grants scopes and tenants; what it grants becomes a [`Service`], which the permits come from. Tokens are
//! kept as SHA-256 digests. A client's token is no credential here: a service token needs the claims `scope` and
//! `tenants`.

mod jwt;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::status::Refusal;
use crate::auth::Authenticator;
use crate::policy::Service;
use crate::rate::{Rate, TokenBucket};

use jwt::JwtTokens;

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// What a credential may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Publish events.
    Publish,
    /// Read members, history, statistics and decisions.
    Read,
    /// Join, remove, disconnect and revoke.
    Manage,
    /// Watch who comes and goes.
    Watch,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Manage, Self::Watch];

    /// The scope's name in settings, claims and errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Manage => "manage",
            Self::Watch => "watch",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// What a credential grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The service's name, for logs, rates and the permits' rule.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// For which tenants; `None` for all.
    pub tenants: Option<Vec<String>>,
    /// How often it may publish; `None` for the listener's default.
    pub publish_rate: Option<Rate>,
}

/// The SHA-256 digest of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Reads a digest as `sha256sum` writes it: 64 hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    fn same(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

/// An authenticated service, as the handlers see it.
#[derive(Debug)]
pub struct Caller {
    /// What it may do in rooms.
    pub service: Service,
    watch: bool,
    rate: Option<Rate>,
    bucket: Arc<Mutex<TokenBucket>>,
}

impl Caller {
    /// Checks the scope, then the tenant.
    ///
    /// # Errors
    /// [`Refusal::ScopeMissing`] and [`Refusal::TenantForbidden`].
    pub fn check(&self, scope: Scope, tenant: &str) -> Result<(), Refusal> {
        self.check_scope(scope)?;
        if self.service.serves(tenant) {
            Ok(())
        } else {
            Err(Refusal::TenantForbidden)
        }
    }

    /// Checks the scope alone.
    ///
    /// # Errors
    /// [`Refusal::ScopeMissing`].
    pub fn check_scope(&self, scope: Scope) -> Result<(), Refusal> {
        let granted = match scope {
            Scope::Publish => self.service.publish,
            Scope::Read => self.service.read,
            Scope::Manage => self.service.manage,
            Scope::Watch => self.watch,
        };
        if granted {
            Ok(())
        } else {
            Err(Refusal::ScopeMissing(scope))
        }
    }

    /// Counts `count` publishes against the service's rate.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub fn spend(&self, count: usize, default: Rate) -> Result<(), Refusal> {
        let now_ms = clock_ms();
        let rate = self.rate.unwrap_or(default);
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..count {
            bucket.take(rate, now_ms).map_err(|retry_after| Refusal::RateLimited {
                service: self.service.name.clone(),
                retry_after,
            })?;
        }
        Ok(())
    }
}

/// Milliseconds of a clock that does not run backwards.
fn clock_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let passed: Duration = START.get_or_init(Instant::now).elapsed();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

/// The buckets of services, by name: a new token of a service does not come with a new bucket.
#[derive(Debug, Default)]
struct Buckets(Mutex<HashMap<Box<str>, Arc<Mutex<TokenBucket>>>>);

impl Buckets {
    /// Unused buckets are dropped above this many.
    const KEPT_MAX: usize = 1024;

    fn of(&self, name: &str) -> Arc<Mutex<TokenBucket>> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= Self::KEPT_MAX {
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1);
        }
        let new = || Arc::new(Mutex::new(TokenBucket::new(clock_ms())));
        buckets.entry(name.into()).or_insert_with(new).clone()
    }
}

type Tokens = Arc<[(TokenDigest, Arc<Caller>)]>;

/// What the listener accepts as proof of who calls.
#[derive(Default)]
pub struct Credentials {
    tokens: RwLock<Tokens>,
    jwt: Option<JwtTokens>,
    certificates: HashMap<Box<str>, Arc<Caller>>,
    everybody: Option<Arc<Caller>>,
    buckets: Buckets,
}

impl Credentials {
    /// No credential yet.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Lets everybody in with every scope in every tenant. For `dev` on loopback.
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

    /// Accepts these static tokens from now on, and no others. Calls under way go on.
    pub fn replace_tokens(&self, tokens: impl IntoIterator<Item = (TokenDigest, Grant)>) {
        let tokens = tokens.into_iter().map(|(digest, grant)| (digest, self.caller(&grant)));
        let tokens: Tokens = tokens.collect();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// Whether nobody would be let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.everybody.is_none() && self.jwt.is_none() && self.certificates.is_empty() && self.tokens().is_empty()
    }

    /// Whether a call without a credential is let in.
    #[must_use]
    pub const fn lets_everybody_in(&self) -> bool {
        self.everybody.is_some()
    }

    /// Whether client certificates grant something.
    #[must_use]
    pub fn has_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Who calls: by the token if there is one, else by the certificate.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`], and [`Refusal::NotStored`] when the keys cannot be had.
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
        // Every digest is looked at, so that the time tells nothing about which one matched.
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

    /// RFC 9525 section 2: the common name is not looked at.
    fn by_certificate(&self, certificate: &CertificateDer<'static>) -> Option<Arc<Caller>> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
        names.find_map(|name| self.certificates.get(name).cloned())
    }

    fn tokens(&self) -> Tokens {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn caller(&self, grant: &Grant) -> Arc<Caller> {
        let may = |scope| grant.scopes.contains(&scope);
        let tenants = |tenants: &Vec<String>| tenants.iter().map(|tenant| tenant.as_str().into()).collect();
        Arc::new(Caller {
            service: Service {
                name: grant.name.as_str().into(),
                publish: may(Scope::Publish),
                read: may(Scope::Read),
                manage: may(Scope::Manage),
                tenants: grant.tenants.as_ref().map(tenants),
            },
            watch: may(Scope::Watch),
            rate: grant.publish_rate,
            bucket: self.buckets.of(&grant.name),
        })
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

/// The bearer token (RFC 6750 section 2.1); the scheme's case does not matter.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let malformed = Refusal::Unauthenticated("the authorization is not a bearer token");
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
