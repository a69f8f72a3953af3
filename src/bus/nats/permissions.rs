//! Permissions that the account loses while the node runs.
//!
//! A server reports a refused operation asynchronously, and a publish that it refuses is never answered. So a refusal
//! leads to a test of all permissions, which is repeated until none is missing. Meanwhile the node is not healthy, and
//! events that the account may not publish are refused before they are submitted: their outcome is known then.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::nats::{Nats, NatsError};
use crate::sync::lock;

/// The interval between two tests. Each is a connection of its own.
const INTERVAL: Duration = Duration::from_secs(2);

/// The state of the account's permissions.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    known: Mutex<Known>,
    denies_events: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    /// The first missing permission.
    missing: Option<String>,
    /// The number of refusals before the last test.
    refusals: u64,
    tested_at: Option<Instant>,
}

impl Permissions {
    /// Reports whether the account may not publish events into the histories.
    pub(super) fn denies_events(&self) -> bool {
        self.denies_events.load(Ordering::Relaxed)
    }

    /// Returns what the account may not do.
    pub(super) fn trouble(&self) -> Option<String> {
        let missing = lock(&self.known).missing.clone()?;
        Some(format!("the account may not {missing}"))
    }

    /// Tests the permissions if the server has refused something since the last test, or one was missing then.
    pub(super) async fn look(&self, nats: &Nats) {
        // Read before the test: what is refused during it leads to another.
        let refusals = nats.refusals();
        {
            let known = lock(&self.known);
            let is_due = known.missing.is_some() || known.refusals != refusals;
            if !is_due || known.tested_at.is_some_and(|at| at.elapsed() < INTERVAL) {
                return;
            }
        }
        let tested = nats.test_permissions().await;
        let mut known = lock(&self.known);
        known.tested_at = Some(Instant::now());
        match tested {
            Ok(()) => {
                known.refusals = refusals;
                self.denies_events.store(false, Ordering::Relaxed);
                if known.missing.take().is_some() {
                    tracing::info!("nats permissions complete again");
                }
            }
            Err(NatsError::Permission(missing)) => {
                let denied = format!("publish to {}.h.", nats.subjects().deployment());
                self.denies_events
                    .store(missing.starts_with(&denied), Ordering::Relaxed);
                if known.missing.as_ref() != Some(&missing) {
                    tracing::error!(missing, "nats permission withdrawn");
                }
                known.missing = Some(missing);
            }
            // Without a connection nothing is known. The next sweep tests again.
            Err(error) => tracing::debug!(%error, "nats permissions not tested"),
        }
    }
}
