//! JWTs as credentials of services: verified, then cached by digest for a minute, or until they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Caller, Grant, Scope, TokenDigest};
use crate::api::status::Refusal;
use crate::auth::{AuthError, Authenticator};
use crate::identity::{Expiry, Identity};
use crate::sync::lock;

/// The most verified tokens in the cache; a deployment has far fewer services. At this number lapsed ones are dropped, and all if that is not enough.
const KNOWN_MAX: usize = 1024;

/// Longest age of a cached token: a revoked key works at most this long, whatever the wall clock does.
const KNOWN_MAX_AGE: Duration = Duration::from_secs(60);

/// Verifies JWTs of services.
pub(super) struct JwtTokens {
    verifier: Arc<dyn Authenticator>,
    known: Mutex<HashMap<TokenDigest, Known>>,
}

/// A verified token.
struct Known {
    caller: Arc<Caller>,
    expiry: Expiry,
    verified: Instant,
}

impl Known {
    fn holds(&self) -> bool {
        self.expiry > now() && self.verified.elapsed() < KNOWN_MAX_AGE
    }
}

/// Claims that a service token has and a client's token does not have.
#[derive(serde::Deserialize)]
struct Claims {
    scope: String,
    tenants: Vec<String>,
}

impl JwtTokens {
    pub(super) fn new(verifier: Arc<dyn Authenticator>) -> Self {
        Self {
            verifier,
            known: Mutex::default(),
        }
    }

    /// Keeps the issuers' keys up to date until `stop`.
    pub(super) async fn keep_keys_fresh(&self, stop: CancellationToken) {
        self.verifier.keep_keys_fresh(stop).await;
    }

    /// Verifies a token and returns its service.
    pub(super) async fn verify(
        &self,
        digest: TokenDigest,
        token: &str,
        caller: impl FnOnce(Grant) -> Arc<Caller>,
    ) -> Result<Arc<Caller>, Refusal> {
        if let Some(caller) = self.recall(&digest) {
            return Ok(caller);
        }
        let identity = self.verifier.authenticate(token).await.map_err(|error| match error {
            AuthError::Invalid(why) => Refusal::TokenInvalid(why),
            AuthError::Expired => Refusal::Unauthenticated("the token has expired"),
            AuthError::Unavailable(why) => Refusal::NotStored(why),
        })?;
        let grant = grant(&identity).ok_or(Refusal::Unauthenticated("the token is not one of a service"))?;
        let caller = caller(grant);
        self.remember(digest, &caller, identity.expiry);
        Ok(caller)
    }

    fn recall(&self, digest: &TokenDigest) -> Option<Arc<Caller>> {
        let mut known = self.lock();
        let token = known.get(digest)?;
        if token.holds() {
            return Some(token.caller.clone());
        }
        known.remove(digest);
        None
    }

    fn remember(&self, digest: TokenDigest, caller: &Arc<Caller>, expiry: Expiry) {
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, token| token.holds());
        }
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let token = Known {
            caller: caller.clone(),
            expiry,
            verified: Instant::now(),
        };
        known.insert(digest, token);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TokenDigest, Known>> {
        lock(&self.known)
    }
}

fn now() -> Expiry {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Expiry(since_epoch.as_secs())
}

/// Returns the grant of the claims; `None` for a token that is not a service's.
fn grant(identity: &Identity) -> Option<Grant> {
    let claims: Claims = serde_json::from_str(identity.claims.as_str()).ok()?;
    let scopes: Vec<_> = claims.scope.split(' ').filter_map(Scope::parse).collect();
    if scopes.is_empty() || claims.tenants.is_empty() {
        return None;
    }
    let all = claims.tenants.iter().any(|tenant| tenant == "*");
    Some(Grant {
        name: identity.user.as_str().to_owned(),
        scopes,
        tenants: (!all).then_some(claims.tenants),
        publish_rate: None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::api::Credentials;
    use crate::identity::UserId;
    use crate::json::Json;
    use crate::room::Tenant;

    /// Accepts every token for as long as `expiry` says.
    struct Issuer {
        asked: AtomicU32,
        expiry: Expiry,
    }

    impl Authenticator for Issuer {
        fn authenticate<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let identity = Identity {
                tenant: Tenant::default(),
                user: UserId::parse("billing").unwrap(),
                claims: Json::parse(r#"{"scope":"publish","tenants":["*"]}"#).unwrap().into(),
                expiry: self.expiry,
            };
            Box::pin(async { Ok(identity) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_verified_again_after_a_minute() {
        let issuer = Arc::new(Issuer {
            asked: AtomicU32::new(0),
            expiry: Expiry(u64::MAX),
        });
        let credentials = Credentials::none().with_jwt(issuer.clone());
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", "Bearer token".parse().unwrap());
        for asked in [1, 1, 2] {
            credentials.authenticate(&headers, None).await.unwrap();
            assert_eq!(issuer.asked.load(Ordering::Relaxed), asked);
            tokio::time::advance(KNOWN_MAX_AGE / 2).await;
        }
    }

    #[tokio::test]
    async fn a_token_is_verified_once_while_it_is_valid() {
        for (expiry, tokens, asked) in [
            (Expiry(u64::MAX), 1, 1),
            (Expiry(0), 1, 3),
            (Expiry(u64::MAX), 2000, 6000),
        ] {
            let issuer = Arc::new(Issuer {
                asked: AtomicU32::new(0),
                expiry,
            });
            let credentials = Credentials::none().with_jwt(issuer.clone());
            for _ in 0..3 {
                for token in 0..tokens {
                    let mut headers = http::HeaderMap::new();
                    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
                    credentials.authenticate(&headers, None).await.unwrap();
                }
            }
            // What is known is bounded: more tokens than that are verified again.
            let asked_now = issuer.asked.load(Ordering::Relaxed);
            assert!(if tokens == 1 {
                asked_now == asked
            } else {
                asked_now <= asked && asked_now > tokens
            });
        }
    }
}
