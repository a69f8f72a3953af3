//! Detects half-open connections by the echo of this node's own heartbeats.

use tokio::time::{Instant, timeout};

use super::{ECHO_MAX, HEARTBEAT_INTERVAL};
use crate::nats::ManagedConnection;

/// The echo state of one connection.
pub(super) struct Echo<'a> {
    link: &'a ManagedConnection,
    last: Instant,
}

impl<'a> Echo<'a> {
    pub(super) fn new(link: &'a ManagedConnection) -> Self {
        Self {
            link,
            last: Instant::now(),
        }
    }

    pub(super) fn heard(&mut self) {
        self.last = Instant::now();
    }

    /// Forces a reconnect of a connection that counts as established and delivers nothing (half-open).
    pub(super) async fn check(&mut self) {
        if self.last.elapsed() < ECHO_MAX || !self.link.is_connected() {
            return;
        }
        tracing::warn!("nats connection stale, reconnecting");
        self.last = Instant::now();
        let client = self.link.client();
        let _ = timeout(HEARTBEAT_INTERVAL / 2, client.force_reconnect()).await;
    }
}
