//! Rate limits: a token bucket without a timer, 8 bytes of state, refilled on use; and a rate limit for log lines.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// A rate limit: a steady rate, and a burst after idleness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Steady rate, per second. At least 1.
    pub per_second: u32,
    /// The largest burst. At least 1; more than 4,294,966 count as that many.
    pub burst: u32,
}

/// One counter under a [`Rate`]. The caller passes the time, in milliseconds of any clock that does not run backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// The used part of the burst, in thousandths of a token.
    used_milli: u32,
    /// The low bits of the clock. A bucket that was unused for weeks may refill late, but not too early.
    refilled_ms: u32,
}

impl TokenBucket {
    /// Creates a full bucket.
    #[must_use]
    pub const fn new(now_ms: u64) -> Self {
        Self {
            used_milli: 0,
            refilled_ms: low(now_ms),
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until the next token when there is none; nothing is taken then.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), Duration> {
        let passed_ms = low(now_ms).wrapping_sub(self.refilled_ms);
        // More than half the range: another caller was here with a later time.
        if passed_ms <= u32::MAX / 2 {
            let refill = u64::from(passed_ms) * u64::from(rate.per_second);
            self.used_milli = self
                .used_milli
                .saturating_sub(u32::try_from(refill).unwrap_or(u32::MAX));
        }
        self.refilled_ms = low(now_ms);
        let after = u64::from(self.used_milli) + 1000;
        let burst = (u64::from(rate.burst) * 1000).min(u64::from(u32::MAX));
        if after > burst {
            let wait_ms = (after - burst).div_ceil(u64::from(rate.per_second).max(1));
            return Err(Duration::from_millis(wait_ms));
        }
        self.used_milli = u32::try_from(after).expect("it is at most the burst, which fits");
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn low(ms: u64) -> u32 {
    ms as u32
}

/// The minimum time between two log lines of one kind.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// A rate limit for one kind of log line that a request may cause, so that a flood of requests does not flood the log.
#[derive(Debug, Default)]
pub struct Notice(Mutex<Unlogged>);

#[derive(Debug, Default)]
struct Unlogged {
    last: Option<Instant>,
    count: u64,
}

impl Notice {
    /// Counts an occurrence. Returns the number since the last log line when another one is due.
    pub fn count(&self) -> Option<u64> {
        let mut unlogged = lock(&self.0);
        unlogged.count += 1;
        if unlogged.last.is_some_and(|last| last.elapsed() < NOTICE_INTERVAL) {
            return None;
        }
        unlogged.last = Some(Instant::now());
        Some(std::mem::take(&mut unlogged.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_noticed_once_a_minute_with_its_count() {
        let notice = Notice::default();
        assert_eq!(notice.count(), Some(1));
        for _ in 0..99 {
            assert_eq!(notice.count(), None);
        }
        tokio::time::advance(NOTICE_INTERVAL).await;
        assert_eq!(notice.count(), Some(100));
        assert_eq!(notice.count(), None);
    }

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    #[test]
    fn a_burst_passes_and_then_the_steady_rate() {
        let mut bucket = TokenBucket::new(0);
        assert!((0..3).all(|_| bucket.take(RATE, 0).is_ok()));
        assert_eq!(bucket.take(RATE, 0), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(RATE, 99), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(RATE, 100), Ok(()));
    }

    #[test]
    fn a_clock_that_wraps_around_or_is_late_refills_no_more_than_passed() {
        let end = u64::from(u32::MAX);
        let mut bucket = TokenBucket::new(end - 10);
        assert!((0..3).all(|_| bucket.take(RATE, end - 10).is_ok()));
        assert!(bucket.take(RATE, end + 80).is_err());
        assert!(bucket.take(RATE, end + 79).is_err(), "asked with an earlier time");
        assert_eq!(bucket.take(RATE, end + 91), Ok(()));
        assert!(bucket.take(RATE, end + 91).is_err());
    }

    #[test]
    fn the_largest_burst_is_a_burst() {
        let rate = Rate {
            per_second: 1,
            burst: u32::MAX,
        };
        let mut bucket = TokenBucket::new(0);
        assert!((0..10_000).all(|_| bucket.take(rate, 0).is_ok()));
    }

    proptest::proptest! {
        #[test]
        fn never_more_than_burst_plus_rate_pass(steps in proptest::collection::vec(0u64..50, 1..200)) {
            let (mut bucket, mut now, mut passed) = (TokenBucket::new(0), 0, 0u64);
            for step in steps {
                now += step;
                passed += u64::from(bucket.take(RATE, now).is_ok());
                proptest::prop_assert!(passed <= 3 + now / 100);
            }
        }
    }
}
