//! The bounds of the in-process bus.

use std::time::Duration;

use crate::bus::history::HistoryRules;

/// The bounds of a [`super::MemoryBus`]. The defaults suit one node with 1 GiB of memory.
#[derive(Debug, Clone)]
pub struct Config {
    /// The history limits of each room.
    pub history: HistoryRules,
    /// The most bytes all histories and last values may take together, bookkeeping included (256 per event). Default
    /// 256 MiB. When it is used up, a room that publishes gives up its own oldest events; other rooms' events are not
    /// touched.
    pub history_bytes_max: usize,
    /// The most event names of a room whose last value is kept. Default 16; the name that was published longest ago is
    /// dropped first. Costs one event each.
    pub last_value_names_max: usize,
    /// The longest time a last value is kept. Default 24 h. A room with last values stays in memory.
    pub last_value_age_max: Duration,
    /// The time during which a repeated idempotency key is recognized. Default 2 min.
    pub idempotency_window: Duration,
    /// The most idempotency keys remembered at once. Default 1,000,000, about 110 bytes each. Beyond that the window
    /// shrinks: the oldest keys are forgotten first.
    pub idempotency_keys_max: usize,
    /// The most events that are published but not yet released by every subscriber (back-pressure). Default 65,536. It
    /// bounds the memory of queues towards slow shards.
    pub in_flight_events_max: usize,
    /// The time a publish waits while that many are in flight, before it is refused. Default 2 s.
    pub in_flight_wait_max: Duration,
    /// The most rooms with subscribers, history or a recent event. Default 1,000,000, about 200 bytes each without
    /// events. Beyond that new rooms are refused.
    pub rooms_max: usize,
    /// The time a room stays in memory after its last use once its history has expired. Default 1 min.
    pub room_idle_max: Duration,
    /// The most rooms whose head is remembered after they left memory. Default 1,000,000, about 20 bytes each. A
    /// remembered head lets a reader resume and a publisher expect a version after that.
    pub forgotten_rooms_max: usize,
    /// The interval between sweeps for expired events, keys and rooms. Default 10 s.
    pub sweep_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            history: HistoryRules::default(),
            history_bytes_max: 256 << 20,
            last_value_names_max: 16,
            last_value_age_max: Duration::from_secs(24 * 3600),
            idempotency_window: Duration::from_secs(120),
            idempotency_keys_max: 1_000_000,
            in_flight_events_max: 65_536,
            in_flight_wait_max: Duration::from_secs(2),
            rooms_max: 1_000_000,
            room_idle_max: Duration::from_secs(60),
            forgotten_rooms_max: 1_000_000,
            sweep_interval: Duration::from_secs(10),
        }
    }
}
