//! The authenticator of a running gateway: issuers behind an atomic swap.
//!
//! A verification loads the issuers once and takes no lock. What a swap removes ends no session that is open: a token is
//! verified when it is shown, and a session lives until its expiry, or until a backend revokes or disconnects it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{AuthConfigError, Config};
use super::jwt::Issuers;
use super::{AuthError, Authenticator};
use crate::identity::Identity;

/// Verifies tokens of the configured issuers. The issuers and their keys are replaced as a whole.
#[derive(Debug)]
pub struct JwtAuthenticator {
    in_force: ArcSwap<Issuers>,
    swapped: Notify,
}

/// Issuers that were read to take the place of those in force; see [`JwtAuthenticator::prepare`].
#[derive(Debug)]
pub struct Prepared(Issuers);

impl JwtAuthenticator {
    /// Reads keys and checks the settings. Published keys are fetched by
    /// [`keep_keys_fresh`](Authenticator::keep_keys_fresh).
    ///
    /// # Errors
    /// [`AuthConfigError`] names the issuer and the key.
    pub fn new(config: &Config) -> Result<Self, AuthConfigError> {
        Ok(Self {
            in_force: ArcSwap::from_pointee(Issuers::read(config, None)?),
            swapped: Notify::new(),
        })
    }

    /// Reads keys and checks settings that may take the place of those in force. A key set whose settings are unchanged
    /// keeps the keys that were fetched last.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn prepare(&self, config: &Config) -> Result<Prepared, AuthConfigError> {
        let current = self.in_force.load();
        Issuers::read(config, Some(&current)).map(Prepared)
    }

    /// Waits until the first fetch of each issuer's published keys has ended, successful or not. Returns at once where no
    /// issuer publishes keys. Needs [`keep_keys_fresh`](Authenticator::keep_keys_fresh) to run.
    ///
    /// # Cancel safety
    /// Dropping the future cancels no fetch.
    pub async fn first_fetch(&self) {
        let issuers = self.in_force.load_full();
        join_all(issuers.published().map(|jwks| jwks.first_fetch())).await;
    }

    /// Puts issuers in force: every token from here on is verified by them. Key sets are fetched anew by
    /// [`keep_keys_fresh`](Authenticator::keep_keys_fresh).
    pub fn swap(&self, prepared: Prepared) {
        self.in_force.store(Arc::new(prepared.0));
        self.swapped.notify_one();
    }
}

impl Authenticator for JwtAuthenticator {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(async move { self.in_force.load_full().verify(token).await })
    }

    /// Fetches published keys, now, regularly, when a token names an unknown one, and after a swap.
    fn keep_keys_fresh(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while !stop.is_cancelled() {
                let issuers = self.in_force.load_full();
                let fresh = join_all(issuers.published().map(|jwks| jwks.keep_fresh(&stop)));
                tokio::select! {
                    () = self.swapped.notified() => {}
                    () = async { tokio::join!(fresh, stop.cancelled()); } => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
