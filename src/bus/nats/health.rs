//! The health of the streams, as the operations on them report it. The sweep reads the reports, and acts on them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

use super::epochs::Wrote;
use super::permissions::Permissions;
use super::server::StreamState;
use super::troubles::Troubles;
use crate::nats::Nats;
use crate::nats::request::RequestFailed;

/// The name under which it is reported that streams cannot be created.
const STREAMS: &str = "(lost)";

/// Reports on the streams.
#[derive(Debug, Default)]
pub(super) struct StreamHealth {
    troubles: Troubles,
    permissions: Permissions,
    /// A stream is missing.
    is_lost: AtomicBool,
    /// The connection or a stream has to be checked now.
    check_wanted: Notify,
    /// Since the last report.
    epochs_begun: AtomicU32,
    records_written_back: AtomicU32,
}

impl StreamHealth {
    /// Takes the state of a stream, or the failure to read it. A lost stream has to be recreated, and a sealed one is
    /// reported.
    pub(super) fn observe(&self, stream: &str, state: &Result<StreamState, RequestFailed>) {
        match state {
            Ok(state) if state.sealed => self.unusable(stream, "it is sealed: delete it, and it is recreated"),
            Ok(_) => self.troubles.clear(stream),
            Err(RequestFailed::NoStream) => {
                self.is_lost.store(true, Ordering::SeqCst);
                self.check_soon();
            }
            Err(RequestFailed::ReadOnly | RequestFailed::Unavailable(_)) => {}
        }
    }

    /// Records that a stream is unusable. Logged when it is new.
    pub(super) fn unusable(&self, stream: &str, why: &str) {
        self.troubles.set(stream, why);
    }

    /// Records that the lost streams cannot be created.
    pub(super) fn not_restored(&self, why: &str) {
        self.unusable(STREAMS, why);
    }

    /// Records that the lost streams were created. They have to be checked now.
    pub(super) fn restored(&self) {
        self.troubles.clear(STREAMS);
        self.check_soon();
    }

    /// Reports whether a stream was found to be missing since the last call.
    pub(super) fn take_lost(&self) -> bool {
        self.is_lost.swap(false, Ordering::SeqCst)
    }

    /// Requests a sweep.
    pub(super) fn check_soon(&self) {
        self.check_wanted.notify_one();
    }

    /// Waits until a sweep is requested.
    pub(super) async fn check_wanted(&self) {
        self.check_wanted.notified().await;
    }

    /// Counts the record of an epoch that this node has written.
    pub(super) fn wrote(&self, record: Wrote) {
        let count = match record {
            Wrote::First | Wrote::New => &self.epochs_begun,
            Wrote::Back => &self.records_written_back,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs epoch changes in one line, however many partitions they concern.
    pub(super) fn log_epochs(&self) {
        let begun = self.epochs_begun.swap(0, Ordering::Relaxed);
        if begun > 0 {
            tracing::warn!(streams = begun, "histories restarted with a new epoch");
        }
        let written_back = self.records_written_back.swap(0, Ordering::Relaxed);
        if written_back > 0 {
            tracing::warn!(streams = written_back, "epoch records lost, rewritten");
        }
    }

    /// Reports whether the account may not publish events into the histories.
    pub(super) fn denies_events(&self) -> bool {
        self.permissions.denies_events()
    }

    /// Tests the permissions if the server has refused something since the last test, or one was missing then.
    pub(super) async fn test_permissions(&self, nats: &Nats) {
        self.permissions.look(nats).await;
    }

    /// Returns the first fault that does not heal by itself.
    pub(super) fn trouble(&self) -> Option<String> {
        self.permissions.trouble().or_else(|| self.troubles.first())
    }
}
