//! Bounds and intervals of the in-process presence.

use std::time::Duration;

/// Configuration of a [`super::MemoryPresence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The largest state of a user in a room, in bytes of JSON. Default 1,024.
    pub state_bytes_max: usize,
    /// The most users of a room that are listed by name. Default 1,000. A room above it is reported in counts until its
    /// users drop a tenth below; the hysteresis keeps it from flapping.
    pub listed_max: u32,
    /// Grace period of a user whose last connection was lost. Default 5 s: a page that reloads or a phone that changes its
    /// network does not blink. Zero reports the loss at once.
    pub leave_grace: Duration,
    /// Time for which changes are coalesced before observers receive them. Default 25 ms. Longer saves frames, shorter
    /// feels faster.
    pub flush_interval: Duration,
    /// The shortest time between two changes of a room that is reported in counts. Default 1 s.
    pub counts_interval: Duration,
    /// The shortest time between two changes for observers of counts only. Default 200 ms: the eye does not follow more,
    /// and each change is a frame for each of them. In a room reported in counts `counts_interval` holds.
    pub counts_coalesce_interval: Duration,
    /// The most activities kept for a slow watcher. Default 4,096, about 100 bytes each. At least 1.
    pub activity_capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_bytes_max: 1024,
            listed_max: 1000,
            leave_grace: Duration::from_secs(5),
            flush_interval: Duration::from_millis(25),
            counts_interval: Duration::from_secs(1),
            counts_coalesce_interval: Duration::from_millis(200),
            activity_capacity: 4096,
        }
    }
}

impl Config {
    /// Returns the most users with which a room reported in counts is listed by name again.
    pub(super) const fn relisted_max(&self) -> u32 {
        self.listed_max - self.listed_max / 10
    }
}
