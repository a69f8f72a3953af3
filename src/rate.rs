//! A token bucket without a timer: 16 bytes of state, refilled when it is asked.

use std::time::Duration;

/// How often something may happen: a steady rate and a burst on top of idleness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Steady rate, per second. At least 1.
    pub per_second: u32,
    /// The most that may happen at once. At least 1.
    pub burst: u32,
}

/// One counter under a [`Rate`]. Time is handed in, in milliseconds of any clock that does not run backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Thousandths of a token that have been used up.
    used_milli: u64,
    refilled_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(now_ms: u64) -> Self {
        Self {
            used_milli: 0,
            refilled_ms: now_ms,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long to wait for the next one when there is none; nothing is taken then.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), Duration> {
        let passed_ms = now_ms.saturating_sub(self.refilled_ms);
        let refill = passed_ms.saturating_mul(u64::from(rate.per_second));
        self.used_milli = self.used_milli.saturating_sub(refill);
        self.refilled_ms = self.refilled_ms.max(now_ms);
        let after = self.used_milli + 1000;
        let burst = u64::from(rate.burst) * 1000;
        if after > burst {
            let wait_ms = (after - burst).div_ceil(u64::from(rate.per_second).max(1));
            return Err(Duration::from_millis(wait_ms));
        }
        self.used_milli = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
