//! The lease: how long a node may go on delivering without having heard what it must obey.
//!
//! Access is withdrawn on all nodes before `Revoke` answers. A node that cannot be asked may not be waited for for ever;
//! instead each node delivers only while it holds a lease, and holds it only for a bounded time after it last knew that
//! it had obeyed everything. Once that time has passed, nothing is delivered there until it knows again. Whoever writes
//! to clients asks [`Lease::holds`] before the first write after any wait: a process that was stopped and goes on does
//! not know for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A node's lease. Cheap to clone; all clones are one lease.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// Milliseconds after the origin until which it holds.
    until_ms: AtomicU64,
    renewed: Notify,
}

impl Lease {
    /// A lease that never lapses: of a node that is alone.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::until_ms(u64::MAX)
    }

    /// A lease that does not hold until it is renewed.
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

    /// Whether it holds now. Costs one look at the clock.
    #[must_use]
    pub fn holds(&self) -> bool {
        let until_ms = self.0.until_ms.load(Ordering::Acquire);
        until_ms == u64::MAX || millis(self.0.origin.elapsed()) < until_ms
    }

    /// Makes it hold until `length` after `known_at`, the moment up to which everything is known to be obeyed. Never
    /// shortens it.
    pub fn renew(&self, known_at: Instant, length: Duration) {
        let until = known_at.saturating_duration_since(self.0.origin) + length;
        self.0.until_ms.fetch_max(millis(until), Ordering::AcqRel);
        self.0.renewed.notify_waiters();
    }

    /// Makes it lapse now, as if time had passed.
    #[cfg(test)]
    pub fn lapse(&self) {
        self.0.until_ms.store(0, Ordering::Release);
    }

    /// Waits until it holds; at once when it does.
    pub async fn held(&self) {
        loop {
            let renewed = self.0.renewed.notified();
            if self.holds() {
                return;
            }
            renewed.await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
