//! The bounds of one client's session.

use std::time::Duration;

use crate::bus::ReadBounds;
use crate::rate::Rate;

/// Bounds of one client's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The longest a client may take to authenticate.
    pub authentication_timeout: Duration,
    /// The interval of heartbeats, in both directions.
    pub heartbeat_interval: Duration,
    /// The time beyond the interval that a client may be silent.
    pub heartbeat_grace: Duration,
    /// The time before a token's end at which its session is notified.
    pub expiry_notice: Duration,
    /// The most rooms of one connection.
    pub rooms_max: usize,
    /// The rate at which a connection joins and leaves.
    pub join_rate: Rate,
    /// The rate at which a connection publishes, asks a backend, sets its state or queries.
    pub publish_rate: Rate,
    /// The most refusals for the rate within a heartbeat interval before a connection is closed.
    pub rate_strikes_max: u8,
    /// The most commands that wait while one is carried out; reading stops then.
    pub commands_waiting_max: usize,
    /// The most requests to a backend under way at once.
    pub asks_max: u8,
    /// The most asks of backends that wait for one client's answer.
    pub asked_max: u16,
    /// The most malformed messages of a connection within a heartbeat interval.
    pub malformed_max: u8,
    /// The largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// The largest presence state, in bytes.
    pub state_bytes_max: usize,
    /// The most members a presence answer lists.
    pub listed_max: usize,
    /// The most a resume, a rewind or a page of history holds.
    pub replay: ReadBounds,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            authentication_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(25),
            heartbeat_grace: Duration::from_secs(8),
            expiry_notice: Duration::from_secs(30),
            rooms_max: 128,
            join_rate: Rate {
                per_second: 10,
                burst: 50,
            },
            publish_rate: Rate {
                per_second: 20,
                burst: 40,
            },
            rate_strikes_max: 20,
            commands_waiting_max: 64,
            asks_max: 8,
            asked_max: 16,
            malformed_max: 3,
            payload_bytes_max: 64 * 1024,
            state_bytes_max: 1024,
            listed_max: 1000,
            replay: ReadBounds {
                events_max: 300,
                bytes_max: 1 << 20,
            },
        }
    }
}
