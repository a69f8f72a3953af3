//! Whether a connection still brings what this node says itself.

use tokio::time::{Instant, timeout};

use super::{ECHO_MAX, HEARTBEAT_INTERVAL};
use crate::nats::Link;

/// Whether one connection still brings this node's own heartbeats.
pub(super) struct Echo<'a> {
    link: &'a Link,
    last: Instant,
}

impl<'a> Echo<'a> {
    pub(super) fn new(link: &'a Link) -> Self {
        Self {
            link,
            last: Instant::now(),
        }
    }

    pub(super) fn heard(&mut self) {
        self.last = Instant::now();
    }

    /// Makes a connection that says it stands and brings nothing anew.
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
