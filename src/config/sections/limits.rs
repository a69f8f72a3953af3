//! `[connections]`, `[session]` and `[socket]`: what clients may do.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admission;
use crate::bus::ReadBounds;
use crate::config::values::{Bounded, Rated, Size, Time};
use crate::rate::Rate;
use crate::session::{self, outbox};
use crate::transport::shard::{self, ControlConfig};
use crate::transport::websocket::frame::Limits;

/// How many connections the node serves. One more is refused with 503 or 429, or closed with 4504 where it belongs to a
/// user.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "admission::Config", deny_unknown_fields)]
#[schemars(rename = "Connections")]
pub(in crate::config) struct Connections {
    /// All connections of the node. Each costs about 5 KiB, most of it the kernel's, and one file descriptor.
    connections_max: usize,
    /// Connections of one user of one tenant.
    per_user_max: u32,
    /// Connections from one address.
    per_address_max: u32,
}

/// What one client may do, and how often.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "session::Config", deny_unknown_fields)]
#[schemars(rename = "Session")]
pub(in crate::config) struct Session {
    /// How long a client may take to authenticate; then it is closed with 4501.
    #[serde(with = "Time")]
    authentication_timeout: Duration,
    /// How often the server gives a sign of life and expects one.
    #[serde(with = "Time")]
    heartbeat_interval: Duration,
    /// How much longer than the interval a client may be silent; then it is closed with 4003.
    #[serde(with = "Time")]
    heartbeat_grace: Duration,
    /// How long before its token ends a session is told.
    #[serde(with = "Time")]
    expiry_notice: Duration,
    /// The most rooms of one connection.
    rooms_max: usize,
    /// How often a connection joins or leaves.
    #[serde(with = "Rated")]
    join_rate: Rate,
    /// How often a connection publishes, asks a backend, sets its state or queries.
    #[serde(with = "Rated")]
    publish_rate: Rate,
    /// How many refusals for the rate a connection gets within a heartbeat interval before it is closed with 4005.
    rate_strikes_max: u8,
    /// The most commands that wait while one is carried out; then no more are read.
    commands_waiting_max: usize,
    /// The most requests to a backend under way at once.
    asks_max: u8,
    /// How many messages that cannot be read a connection may send within a heartbeat interval; then it is closed with 4500.
    malformed_max: u8,
    /// The largest payload of an event that a client publishes.
    #[serde(with = "Size")]
    payload_bytes_max: usize,
    /// `presence.state_bytes_max` holds for both.
    #[serde(skip)]
    state_bytes_max: usize,
    /// `presence.listed_max` holds for both.
    #[serde(skip)]
    listed_max: usize,
    /// The most that one resume, one rewind or one page of history holds.
    #[serde(with = "Bounded")]
    replay: ReadBounds,
}

/// What one socket may hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SocketSection {
    /// The most that waits for a client that reads slowly; beyond it, it is closed with 4002 and may resume.
    #[serde(with = "Size")]
    pub outbox_bytes_max: usize,
    /// The longest an event waits for a client that reads slowly; then the same.
    #[serde(with = "Time")]
    pub outbox_age_max: Duration,
    /// The largest message of a client, over all its fragments; then it is closed with 1009.
    #[serde(with = "Size")]
    pub message_bytes_max: usize,
    /// The most fragments of one message; then it is closed with 1008.
    pub fragments_max: u32,
    /// The longest time from the first to the last byte of a message; then it is closed with 1008.
    #[serde(with = "Time")]
    pub message_duration_max: Duration,
    /// The most control frames (pings) of a client in one second; then it is closed with 4005.
    pub control_frames_per_second_max: u32,
}

impl Default for SocketSection {
    fn default() -> Self {
        let shard::Config {
            outbox,
            frames,
            control,
        } = shard::Config::default();
        Self {
            outbox_bytes_max: outbox.outbox_bytes_max,
            outbox_age_max: outbox.outbox_age_max,
            message_bytes_max: frames.message_bytes_max,
            fragments_max: frames.fragments_max,
            message_duration_max: frames.message_duration_max,
            control_frames_per_second_max: control.frames_per_second_max,
        }
    }
}

impl From<&SocketSection> for shard::Config {
    fn from(section: &SocketSection) -> Self {
        Self {
            outbox: outbox::Config {
                outbox_bytes_max: section.outbox_bytes_max,
                outbox_age_max: section.outbox_age_max,
            },
            frames: Limits {
                message_bytes_max: section.message_bytes_max,
                fragments_max: section.fragments_max,
                message_duration_max: section.message_duration_max,
            },
            control: ControlConfig {
                frames_per_second_max: section.control_frames_per_second_max,
            },
        }
    }
}
