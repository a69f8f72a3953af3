//! The gate in front of every delivery: open while the node's lease holds.

use crate::lease::Lease;

/// What the shard last knew of the lease.
pub(super) struct Gate {
    lease: Lease,
    /// It was found not to hold.
    lapsed: bool,
    /// It has held before.
    has_held: bool,
}

impl Gate {
    pub fn new(lease: Lease) -> Self {
        Self {
            lapsed: false,
            has_held: lease.holds(),
            lease,
        }
    }

    /// Whether anything of a room may be handed to a client now. To be asked after it was taken from wherever it came
    /// from, and before it is written: what comes later than a revocation that has been answered elsewhere is then only
    /// written where that revocation was carried out, or where the process was stopped in between, and what it held
    /// then is older than the revocation.
    pub fn may_deliver(&mut self) -> bool {
        let holds = self.lease.holds();
        if holds == self.lapsed {
            self.lapsed = !holds;
            // A node that starts takes its first lease: that is no news.
            let has_held = self.has_held;
            self.has_held |= holds;
            match (has_held, holds) {
                (true, true) => tracing::info!("lease regained, deliveries resumed"),
                (true, false) => tracing::warn!("lease lapsed, deliveries paused"),
                (false, _) => {}
            }
        }
        holds
    }

    /// Whether the lease was found not to hold.
    pub const fn is_lapsed(&self) -> bool {
        self.lapsed
    }

    /// Waits until the lease holds.
    pub async fn regained(&self) {
        self.lease.held().await;
    }
}
