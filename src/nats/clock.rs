//! The clock of the NATS servers.
//!
//! Ages that concern all nodes, of events and of revocations, count from the time at which a stream stored something. A
//! node's own wall clock is no measure for them: it may be an hour off, and may be set at any moment. So a node
//! extrapolates from the last server timestamp on its monotonic clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::units::millis;

/// An estimate of the servers' clock.
#[derive(Debug)]
pub struct ServerClock {
    origin: Instant,
    /// The servers' time at the origin, in milliseconds since the Unix epoch; 0 while it is unknown.
    origin_ms: AtomicU64,
}

impl Default for ServerClock {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            origin_ms: AtomicU64::new(0),
        }
    }
}

impl ServerClock {
    /// Returns the servers' time in milliseconds since the Unix epoch. Falls back to this machine's clock until a
    /// server has reported its time.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.at(self.origin.elapsed()).unwrap_or_else(own_ms)
    }

    /// Sets the clock to a time that a server has just reported.
    pub fn stands_at(&self, server_ms: u64) {
        self.set(server_ms, self.origin.elapsed());
    }

    /// Raises the clock to a time that a server reported an unknown time ago.
    pub fn has_passed(&self, server_ms: u64) {
        self.raise(server_ms, self.origin.elapsed());
    }

    fn at(&self, passed: Duration) -> Option<u64> {
        let origin_ms = self.origin_ms.load(Ordering::Relaxed);
        (origin_ms > 0).then(|| origin_ms + millis(passed))
    }

    fn set(&self, server_ms: u64, passed: Duration) {
        let origin_ms = server_ms.saturating_sub(millis(passed));
        self.origin_ms.store(origin_ms, Ordering::Relaxed);
    }

    fn raise(&self, server_ms: u64, passed: Duration) {
        let origin_ms = server_ms.saturating_sub(millis(passed));
        self.origin_ms.fetch_max(origin_ms, Ordering::Relaxed);
    }
}

fn own_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_goes_on_from_what_a_server_said_last() {
        let clock = ServerClock::default();
        assert_eq!(clock.at(SECOND), None);
        clock.set(50_000, SECOND);
        assert_eq!(clock.at(SECOND * 3), Some(52_000));
        clock.set(40_000, SECOND * 4);
        assert_eq!(clock.at(SECOND * 4), Some(40_000), "a server's clock was set back");
    }

    #[test]
    fn what_was_said_some_time_ago_never_sets_it_back() {
        let clock = ServerClock::default();
        clock.raise(50_000, SECOND);
        assert_eq!(clock.at(SECOND), Some(50_000), "more is not known");
        clock.raise(20_000, SECOND * 2);
        assert_eq!(clock.at(SECOND * 2), Some(51_000));
        clock.raise(90_000, SECOND * 2);
        assert_eq!(clock.at(SECOND * 2), Some(90_000));
    }

    #[test]
    fn until_a_server_has_spoken_it_is_this_machines() {
        let (before, now) = (own_ms(), ServerClock::default().now_ms());
        assert!((before..=own_ms()).contains(&now));
    }
}
