//! Times as numbers of milliseconds, as wires and counters have them.

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
