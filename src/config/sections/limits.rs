//! `[connections]`, `[session]` and `[socket]`: limits of clients.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admission;
use crate::bus::ReadBounds;
use crate::config::values::{Bounded, Positive, PositiveSize, PositiveTime, Rated, Size, Time};
use crate::rate::Rate;
use crate::session;
use crate::transport::outbox;
use crate::transport::shard::{self, ControlConfig};
use crate::transport::websocket::frame::Limits;

/// Limits on connections. One more is refused with 503 or 429, or closed with 4504 where the limit is a user's.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "admission::Config", deny_unknown_fields)]
#[schemars(rename = "Connections")]
pub(in crate::config) struct Connections {
    /// The most connections of the node. Each costs about 5 KiB, most of it the kernel's, and one file descriptor.
    #[serde(with = "Positive")]
    connections_max: usize,
    /// The most connections of one user of one tenant.
    per_user_max: u32,
    /// The most connections from one address.
    per_address_max: u32,
}

/// Limits and rates of one client.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "session::Config", deny_unknown_fields)]
#[schemars(rename = "Session")]
pub(in crate::config) struct Session {
    /// Deadline of a client's authentication; then it is closed with 4501.
    #[serde(with = "PositiveTime")]
    authentication_timeout: Duration,
    /// Interval at which the server sends a heartbeat and expects one.
    #[serde(with = "PositiveTime")]
    heartbeat_interval: Duration,
    /// Time beyond the interval for which a client may be silent; then it is closed with 4003.
    #[serde(with = "Time")]
    heartbeat_grace: Duration,
    /// Time before the token's expiry at which a session is warned.
    #[serde(with = "Time")]
    expiry_notice: Duration,
    /// The most rooms of one connection.
    rooms_max: usize,
    /// Rate of a connection's joins and leaves.
    #[serde(with = "Rated")]
    join_rate: Rate,
    /// Rate of a connection's publishes, backend requests, presence states and queries.
    #[serde(with = "Rated")]
    publish_rate: Rate,
    /// The most rate refusals of a connection within a heartbeat interval; then it is closed with 4005.
    rate_strikes_max: u8,
    /// The most commands that wait while one is executed; at this number no more are read.
    #[serde(with = "Positive")]
    commands_waiting_max: usize,
    /// The most concurrent requests to a backend.
    asks_max: u8,
    /// The most asks of backends that wait for one client's answer; one more is refused with `ASK_LIMIT`.
    asked_max: u16,
    /// The most unreadable messages of a connection within a heartbeat interval; then it is closed with 4500.
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
    /// Bounds of one resume, one rewind or one page of history.
    #[serde(with = "Bounded")]
    replay: ReadBounds,
}

/// Limits of one socket.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SocketSection {
    /// The most bytes queued for a slow consumer; beyond, it is closed with 4002 and may resume.
    #[serde(with = "PositiveSize")]
    pub outbox_bytes_max: usize,
    /// The longest time an event is queued for a slow consumer; then the same.
    #[serde(with = "PositiveTime")]
    pub outbox_age_max: Duration,
    /// The largest message of a client, over all its fragments; then it is closed with 1009.
    #[serde(with = "PositiveSize")]
    pub message_bytes_max: usize,
    /// The most fragments of one message; then it is closed with 1008.
    pub fragments_max: u32,
    /// The longest time from the first to the last byte of a message; then it is closed with 1008.
    #[serde(with = "PositiveTime")]
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
            socketio: _,
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
            ..Self::default()
        }
    }
}
