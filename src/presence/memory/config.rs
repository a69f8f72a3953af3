//! The bounds and rhythms of the in-process presence.

use std::time::Duration;

/// How a [`super::MemoryPresence`] keeps and tells who is where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The largest state of a user in a room, in bytes of JSON. Default 1,024.
    pub state_bytes_max: usize,
    /// The most users of a room that observers are told by name. Default 1,000. A room above is told in counts until a
    /// tenth fewer are left, so that it does not go back and forth.
    pub listed_max: u32,
    /// How long a user whose last connection was lost is still shown. Default 5 s: a page that reloads or a phone that
    /// changes its network does not blink. Zero shows it at once.
    pub leave_grace: Duration,
    /// How long changes are gathered before observers are told. Default 25 ms. Longer saves frames, shorter feels faster.
    pub flush_interval: Duration,
    /// The shortest time between two changes of a room that is told in counts. Default 1 s.
    pub counts_interval: Duration,
    /// The shortest time between two changes for those who asked for counts only. Default 200 ms: the eye does not follow
    /// more, and each change is a frame for each of them. In a room told in counts `counts_interval` holds.
    pub counts_coalesce_interval: Duration,
    /// The most activities kept for watchers that read slowly. Default 4,096, about 100 bytes each. At least 1.
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
    /// The most users with which a room that is told in counts is told by name again.
    pub(super) const fn relisted_max(&self) -> u32 {
        self.listed_max - self.listed_max / 10
    }
}
