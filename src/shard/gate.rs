//! The gate in front of every delivery: open while the node's lease holds (fencing).

use crate::counters::Counters;
use crate::lease::Lease;

/// The lease as the shard last saw it.
pub(super) struct LeaseGate {
    lease: Lease,
    counters: Counters,
    /// It was found not to hold.
    lapsed: bool,
    /// It has held before.
    has_held: bool,
}

impl LeaseGate {
    pub fn new(lease: Lease, counters: Counters) -> Self {
        Self {
            counters,
            lapsed: false,
            has_held: lease.holds(),
            lease,
        }
    }

    /// Reports whether anything of a room may be written to a client now. Check after dequeuing and before writing: a shard
    /// whose lease lapsed, or whose process was suspended, must not write anything published after a revocation that it has
    /// not applied yet.
    pub fn may_deliver(&mut self) -> bool {
        let holds = self.lease.holds();
        if holds == self.lapsed {
            self.lapsed = !holds;
            // A node that starts takes its first lease: that is no news.
            let has_held = self.has_held;
            self.has_held |= holds;
            match (has_held, holds) {
                (true, true) => tracing::info!("lease regained, deliveries resumed"),
                (true, false) => {
                    self.counters.lease_lapses.add();
                    tracing::warn!("lease lapsed, deliveries paused");
                }
                (false, _) => {}
            }
        }
        holds
    }

    /// Reports whether the lease was found not to hold.
    pub const fn is_lapsed(&self) -> bool {
        self.lapsed
    }

    /// Waits until the lease holds.
    pub async fn regained(&self) {
        self.lease.held().await;
    }
}
