//! The bounds of the bus over NATS on one node. The bounds of the deployment are in [`crate::nats::Config`].

use std::time::Duration;

use crate::bus::history::HistoryRules;

/// The bounds of a [`super::NatsBus`]. While nodes differ in `history` and `last_value_*`, the streams keep what the
/// largest bounds require, and each node serves by its own.
#[derive(Debug, Clone)]
pub struct Config {
    /// The history limits of each room. The largest bounds decide what the streams keep; a room's own bounds apply when
    /// it is read.
    pub history: HistoryRules,
    /// The most bytes the histories of rooms with members may take in this node's memory, bookkeeping included (256 per
    /// event). Default 256 MiB. Events beyond it are read from NATS.
    pub history_bytes_max: usize,
    /// The most event names of a room whose last value is returned, the newest. Default 16.
    pub last_value_names_max: usize,
    /// The longest time a last value is kept. Default 24 h.
    pub last_value_age_max: Duration,
    /// The most events that were received but not yet released by every subscriber (back-pressure). Default 65,536.
    /// Beyond that the node stops reading from NATS.
    pub in_flight_events_max: usize,
    /// The most rooms with subscribers on this node. Default 1,000,000.
    pub rooms_max: usize,
    /// The most live events of one room that are held while a gap before them is fetched. Default 1,024; events beyond
    /// it are fetched, too.
    pub held_events_max: usize,
    /// The most concurrent reads of histories. Default 32.
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
