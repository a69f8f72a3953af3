//! The bounds of the bus over NATS on one node. What the deployment keeps is in [`crate::nats::Config`].

use std::time::Duration;

use crate::bus::history::HistoryRules;

/// The bounds of a [`super::NatsBus`]. While nodes differ in `history` and `last_value_*` the streams keep what the largest
/// bounds ask for, and each node answers by its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// What each room keeps. The largest bounds decide what the streams keep; a room's own bounds count when it is read.
    pub history: HistoryRules,
    /// The most bytes the histories of rooms with members may take in this node's memory, bookkeeping included (256 per
    /// event). Default 256 MiB. What does not fit is read from NATS.
    pub history_bytes_max: usize,
    /// The most event names of a room whose last value is answered, the newest. Default 16.
    pub last_value_names_max: usize,
    /// The longest time a last value is kept. Default 24 h.
    pub last_value_age_max: Duration,
    /// The most events that have come but are not yet taken by every subscriber. Default 65,536. Beyond that nothing
    /// more is read from NATS.
    pub in_flight_events_max: usize,
    /// The most rooms with subscribers on this node. Default 1,000,000.
    pub rooms_max: usize,
    /// The most live events of one room that wait while a gap before them is fetched. Default 1,024; what comes on top
    /// is fetched, too.
    pub held_events_max: usize,
    /// The most reads of histories that are under way at once. Default 32.
    pub reads_in_flight_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            history: HistoryRules::default(),
            history_bytes_max: 256 << 20,
            last_value_names_max: 16,
            last_value_age_max: Duration::from_secs(24 * 3600),
            in_flight_events_max: 65_536,
            rooms_max: 1_000_000,
            held_events_max: 1024,
            reads_in_flight_max: 32,
        }
    }
}
