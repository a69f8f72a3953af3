//! The lease: a fence that bounds how long a node may deliver without having applied the latest revocations.
//!
//! Access is withdrawn on all nodes before `Revoke` returns, and a revocation must not wait forever for an unreachable
//! node. So each node delivers only while it holds a lease. The lease holds for a bounded time after the node last knew
//! that it had applied everything. When that time has passed, nothing is delivered there until the node knows again.
//! Every component that writes to clients checks [`Lease::holds`] after any wait and before its first write: a process
//! that was suspended and resumed does not know for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::units::millis;

/// A node's lease. Cheap to clone; all clones are one lease.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// The end of the lease, in milliseconds after the origin.
    until_ms: AtomicU64,
    renewed: Notify,
}

impl Lease {
    /// Creates a lease that never lapses, for a node without peers.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::until_ms(u64::MAX)
    }

    /// Creates a lease that does not hold until it is renewed.
    #[must_use]
    pub fn lapsed() -> Self {
        Self::until_ms(0)
    }

    fn until_ms(until_ms: u64) -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            until_ms: AtomicU64::new(until_ms),
            renewed: Notify::new(),
        }))
    }

    /// Reports whether the lease holds now. Costs one reading of the clock.
    #[must_use]
    pub fn holds(&self) -> bool {
        let until_ms = self.0.until_ms.load(Ordering::Acquire);
        until_ms == u64::MAX || millis(self.0.origin.elapsed()) < until_ms
    }

    /// Extends the lease until `length` after `known_at`, the time through which everything is known to be applied.
    /// Never shortens it.
    pub fn renew(&self, known_at: Instant, length: Duration) {
        let until = known_at.saturating_duration_since(self.0.origin) + length;
        self.0.until_ms.fetch_max(millis(until), Ordering::AcqRel);
        self.0.renewed.notify_waiters();
    }

    /// Lets the lease lapse now, as if time had passed.
    #[cfg(test)]
    pub fn lapse(&self) {
        self.0.until_ms.store(0, Ordering::Release);
    }

    /// Waits until the lease holds; returns at once when it does.
    pub async fn held(&self) {
        loop {
            // Before the check: a renewal between the two still wakes this waiter.
            let renewed = self.0.renewed.notified();
            if self.holds() {
                return;
            }
            renewed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_its_length_after_what_was_known() {
        let lease = Lease::lapsed();
        assert!(!lease.holds());
        let now = Instant::now();
        lease.renew(now, Duration::from_secs(60));
        assert!(lease.holds());
        let stale = Lease::lapsed();
        stale.renew(now.checked_sub(Duration::from_secs(61)).unwrap_or(now), Duration::ZERO);
        assert!(!stale.holds(), "what was known too long ago is no lease");
        assert!(Lease::unlimited().holds());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_lease_goes_on_when_it_is_renewed() {
        let lease = Lease::lapsed();
        let waiting = lease.held();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        lease.renew(Instant::now(), Duration::from_secs(60));
        waiting.await;
    }
}
