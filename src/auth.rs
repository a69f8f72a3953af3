//! Authentication: from a token to an [`Identity`].
//!
//! The port knows no connection and no room. A token is a secret: no implementation logs it, and no error repeats it.

mod authenticator;
mod config;
mod issue;
mod jwks;
mod jwt;
mod keys;
mod registered;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;

pub use authenticator::{JwtAuthenticator, Prepared};
pub use config::{Algorithm, AuthConfigError, ClaimsConfig, Config, IssuerConfig, JwksConfig, KeyConfig, Secret};
pub use issue::{IssueError, TokenIssuer};

/// Reason why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token is malformed, wrongly signed, for another audience, or lacks a required claim.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The token was valid until its `exp` and the leeway.
    #[error("the token has expired")]
    Expired,
    /// The keys to verify it are unavailable.
    #[error("the keys cannot be had: {0}")]
    Unavailable(&'static str),
}

/// Verifies tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// Verifies one token. An identity whose [`expiry`](Identity::expiry) has passed is never returned. This is the one
    /// place where a token's age is checked, and the expiry is the moment at which the result changes.
    ///
    /// # Errors
    /// Every variant of [`AuthError`]. A failure to decide is an error, never an identity.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>>;

    /// Keeps the keys that issuers publish up to date until `stop`. Without it running, their tokens are refused as
    /// [`AuthError::Unavailable`].
    fn keep_keys_fresh(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        drop(stop);
        Box::pin(std::future::ready(()))
    }
}
