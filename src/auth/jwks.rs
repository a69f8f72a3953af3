//! Keys that an issuer publishes (RFC 7517), fetched from one fixed address.
//!
//! One task per issuer fetches ([`Jwks::keep_fresh`]); callers only wait for it (single-flight). So at most one fetch is in
//! flight, a dropped caller cancels none, and a flood of unknown key names costs one fetch in 30 s. Each issuer has its own
//! keys: equal names at two issuers are two keys.

mod fetch;
mod published;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::fetch::Fetcher;
use self::published::LeftOut;
use super::AuthError;
use super::config::{Algorithm, AuthConfigError, JwksConfig};
use super::keys::{Key, KeyRing, NO_SUCH_KEY, SameName};
use crate::sync::lock;
use crate::url;

/// The first pause after a failed fetch. Doubled up to the refetch interval.
const RETRY_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The published keys of one issuer.
#[derive(Debug)]
pub(super) struct Jwks {
    config: JwksConfig,
    issuer: Box<str>,
    fetcher: Fetcher,
    known: RwLock<Option<Known>>,
    /// Unused keys of the last set: each is logged when it appears, not at every fetch.
    left_out: Mutex<HashSet<LeftOut>>,
    progress: watch::Sender<Progress>,
    wanted: Notify,
}

#[derive(Debug)]
struct Known {
    keys: KeyRing,
    fetched: Instant,
}

/// Progress of the fetching task.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    fetching: bool,
    /// Start of the last fetch; `None` before the first.
    begun: Option<Instant>,
    /// Number of finished fetches, successful or not.
    ended: u64,
}

impl Jwks {
    pub(super) fn new(issuer: &str, config: &JwksConfig) -> Result<Arc<Self>, AuthConfigError> {
        let wrong = |detail: String| AuthConfigError::Issuer {
            issuer: issuer.to_owned(),
            detail,
        };
        let url = fixed_address(&config.url).map_err(wrong)?;
        let fetcher = Fetcher::new(url, config).map_err(wrong)?;
        Ok(Arc::new(Self {
            config: config.clone(),
            issuer: issuer.into(),
            fetcher,
            known: RwLock::new(None),
            left_out: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
            wanted: Notify::new(),
        }))
    }

    /// Returns whether it is of this issuer and has these settings.
    pub(super) fn is_configured_as(&self, issuer: &str, config: &JwksConfig) -> bool {
        *self.issuer == *issuer && self.config == *config
    }

    /// The keys of that name and algorithm. Waits for a fetch when there are none and a fetch may be made.
    ///
    /// # Cancel safety
    /// Dropping the future cancels no fetch.
    pub(super) async fn find(&self, kid: &str, algorithm: Algorithm) -> Result<SameName, AuthError> {
        match self.look(kid, algorithm) {
            Ok(keys) => Ok(keys),
            Err(error) => {
                if !self.ask_for_fetch().await {
                    return Err(error);
                }
                self.look(kid, algorithm)
            }
        }
    }

    fn look(&self, kid: &str, algorithm: Algorithm) -> Result<SameName, AuthError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known
            .as_ref()
            .filter(|known| known.fetched.elapsed() < self.config.keep)
            .ok_or(AuthError::Unavailable("the issuer's keys could not be fetched"))?;
        known.keys.find(Some(kid), algorithm).ok_or(NO_SUCH_KEY)
    }

    /// Waits for the fetch that is due or in flight; `false` when there is none.
    async fn ask_for_fetch(&self) -> bool {
        let mut progress = self.progress.subscribe();
        let now = *progress.borrow_and_update();
        if !now.fetching && !self.is_due(now) {
            return false;
        }
        self.wanted.notify_one();
        let ended = progress.wait_for(|later| later.ended > now.ended);
        // The fetch itself is bounded; this bounds the wait when the task does not run.
        matches!(timeout(self.config.timeout * 2, ended).await, Ok(Ok(_)))
    }

    fn is_due(&self, progress: Progress) -> bool {
        let begun = progress.begun;
        begun.is_none_or(|begun| begun.elapsed() >= self.config.refetch_interval)
    }

    /// Waits until a fetch has ended, successful or not.
    pub(super) async fn first_fetch(&self) {
        // It cannot fail while this waits: the sender is a field.
        let _ = self.progress.subscribe().wait_for(|progress| progress.ended > 0).await;
    }

    /// Returns when a caller wants a fetch and one is due.
    async fn wanted_and_due(&self) {
        loop {
            self.wanted.notified().await;
            if self.is_due(*self.progress.borrow()) {
                return;
            }
        }
    }

    /// Fetches now, regularly, and on demand, until `stop`.
    pub(super) async fn keep_fresh(&self, stop: &CancellationToken) {
        let mut retry = RETRY_INTERVAL_MIN;
        loop {
            let pause = match stop.run_until_cancelled(self.fetch()).await {
                None => return,
                Some(true) => {
                    retry = RETRY_INTERVAL_MIN;
                    self.config.refresh_interval
                }
                Some(false) => {
                    let pause = retry.min(self.config.refetch_interval);
                    retry *= 2;
                    pause
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                () = self.wanted_and_due() => {}
            }
        }
    }

    /// Fetches once. The last good keys stay when that fails.
    async fn fetch(&self) -> bool {
        self.progress.send_modify(|progress| {
            progress.fetching = true;
            progress.begun = Some(Instant::now());
        });
        let fetched = self.fetcher.fetch().await;
        let good = match fetched {
            Ok((keys, left_out)) => {
                self.take(keys, left_out);
                true
            }
            Err(error) => {
                tracing::warn!(issuer = &*self.issuer, %error, "key fetch failed");
                false
            }
        };
        self.progress.send_modify(|progress| {
            progress.fetching = false;
            progress.ended += 1;
        });
        good
    }

    fn take(&self, keys: Vec<Key>, mut left_out: Vec<LeftOut>) {
        let (keys, beyond) = KeyRing::new(keys);
        left_out.extend(beyond.iter().map(published::beyond));
        tracing::debug!(issuer = &*self.issuer, keys = keys.len(), "keys fetched");
        self.log_left_out(left_out.into_iter().collect());
        let fetched = Instant::now();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Known { keys, fetched });
    }

    /// Logs unused keys with the reason. The names are the issuer's text, so they are escaped.
    fn log_left_out(&self, now: HashSet<LeftOut>) {
        let mut before = lock(&self.left_out);
        for LeftOut { key, why, is_usual } in now.difference(&before) {
            if *is_usual {
                tracing::info!(issuer = &*self.issuer, ?key, why, "key skipped");
            } else {
                tracing::warn!(issuer = &*self.issuer, ?key, why, "key skipped");
            }
        }
        *before = now;
    }
}

fn fixed_address(url: &str) -> Result<Uri, String> {
    if url::has_credentials(url) {
        return Err("`jwks.url` must not hold a user and a password: neither is sent".to_owned());
    }
    let uri: Uri = url.parse().map_err(|error| format!("`jwks.url`: {error}"))?;
    let host = uri.host().unwrap_or_default();
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if loopback => Ok(uri),
        _ => Err("`jwks.url` must begin with `https://`; `http://` is only for loopback addresses".to_owned()),
    }
}

#[cfg(test)]
mod tests;
