//! Times as numbers of milliseconds, as wires and counters have them, and jitter.

use std::time::{Duration, SystemTime};

/// Returns whole milliseconds, at most `u64::MAX`: a time that long is never reached.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the milliseconds since 1970; 0 for an earlier time.
#[must_use]
pub fn unix_millis(time: SystemTime) -> u64 {
    millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Returns between half of a time and all of it: jitter, so that many who wait do not act in step (thundering herd).
/// `draw` is a random number; it is the caller's, so that simulations replay.
#[must_use]
pub const fn jittered_ms(ms: u64, draw: u64) -> u64 {
    let half = ms / 2;
    // The remainder is uneven by one part in 2^64 / half, or in 2^32 / half for a draw of 32 bits: nothing beside a delay.
    half + draw % (half + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_lies_between_half_of_a_time_and_all_of_it() {
        for (ms, draw, expected) in [(0, 9, 0), (1, 9, 0), (100, 0, 50), (100, 50, 100), (100, 51, 50)] {
            assert_eq!(jittered_ms(ms, draw), expected, "{ms} {draw}");
        }
    }
}
