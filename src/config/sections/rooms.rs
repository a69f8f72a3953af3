//! `[history]`, `[bus]` and `[presence]`: retention and presence of rooms.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::bus::memory as bus;
use crate::config::Problem;
use crate::config::problem::all;
use crate::config::values::{Positive, PositiveTime, Size, Time};
use crate::presence::memory as presence;
use crate::room::RoomPattern;

/// Retention of a room's events, for resuming and history queries. The first bound that is reached drops the oldest
/// events.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySection {
    /// The most events of a room. 0 keeps nothing: no client can resume.
    pub events_max: usize,
    /// The longest time an event is kept. Zero keeps nothing.
    #[serde(with = "Time")]
    pub age_max: Duration,
    /// The most payload bytes of a room. An event larger than this is not kept.
    #[serde(with = "Size")]
    pub bytes_max: usize,
    /// Other bounds for some rooms; the first match applies.
    pub rooms: Vec<HistoryOfRooms>,
}

/// The history of the rooms that match a pattern. Omitted bounds are those of `[history]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryOfRooms {
    /// The rooms, as a pattern: `project:{id}`, `doc:{path*}`.
    pub room: String,
    /// The most events of a room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_max: Option<usize>,
    /// The longest time an event is kept.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "humantime_serde")]
    #[schemars(with = "Option<Time>")]
    pub age_max: Option<Duration>,
    /// The most payload bytes of a room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<SizeSetting>,
}

/// An optional size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SizeSetting(#[serde(with = "Size")] pub usize);

impl Default for HistorySection {
    fn default() -> Self {
        let limits = HistoryLimits::default();
        Self {
            events_max: limits.events_max,
            age_max: limits.age_max,
            bytes_max: limits.bytes_max,
            rooms: Vec::new(),
        }
    }
}

impl HistorySection {
    pub(in crate::config) fn rules(&self) -> Result<HistoryRules, Vec<Problem>> {
        let rules = self.rooms.iter().enumerate().map(|(at, rooms)| self.rule(at, rooms));
        Ok(HistoryRules::new(all(rules)?, self.limits()))
    }

    fn rule(&self, at: usize, rooms: &HistoryOfRooms) -> Result<(RoomPattern, HistoryLimits), Problem> {
        let pattern =
            RoomPattern::parse(&rooms.room).map_err(|error| Problem::new(format!("history.rooms.{at}.room"), error))?;
        let limits = HistoryLimits {
            events_max: rooms.events_max.unwrap_or(self.events_max),
            age_max: rooms.age_max.unwrap_or(self.age_max),
            bytes_max: rooms.bytes_max.map_or(self.bytes_max, |size| size.0),
        };
        Ok((pattern, limits))
    }

    fn limits(&self) -> HistoryLimits {
        HistoryLimits {
            events_max: self.events_max,
            age_max: self.age_max,
            bytes_max: self.bytes_max,
        }
    }
}

/// The in-process bus: the bounds of all rooms together.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "bus::Config", deny_unknown_fields)]
#[schemars(rename = "MemoryBus")]
pub(in crate::config) struct MemoryBus {
    /// `[history]` sets it.
    #[serde(skip)]
    history: HistoryRules,
    /// The most bytes of all histories and last values together, bookkeeping included (256 per event). When it is used up,
    /// a room that publishes drops its own oldest events; no other room's are touched.
    #[serde(with = "Size")]
    history_bytes_max: usize,
    /// The most event names of a room whose last value is kept; the one published longest ago is dropped first.
    last_value_names_max: usize,
    /// The longest time a last value is kept. A room with last values stays in memory.
    #[serde(with = "Time")]
    last_value_age_max: Duration,
    /// Time for which a repeated idempotency key is recognized.
    #[serde(with = "Time")]
    idempotency_window: Duration,
    /// The most remembered idempotency keys, about 110 bytes each; beyond, the oldest are dropped.
    idempotency_keys_max: usize,
    /// The most published events that not every shard has taken yet: bounds the memory of their queues.
    #[serde(with = "Positive")]
    in_flight_events_max: usize,
    /// Time for which a publish waits while that many are in flight, before it is refused.
    #[serde(with = "Time")]
    in_flight_wait_max: Duration,
    /// The most rooms with members, history or a recent event, about 200 bytes each; beyond, new rooms are refused.
    #[serde(with = "Positive")]
    rooms_max: usize,
    /// Time for which a room stays in memory after its last use once its history has expired.
    #[serde(with = "Time")]
    room_idle_max: Duration,
    /// The most rooms whose head is remembered after they left memory, about 20 bytes each.
    forgotten_rooms_max: usize,
    /// Interval of the sweep for expired events, keys and rooms.
    #[serde(with = "PositiveTime")]
    sweep_interval: Duration,
}

/// Presence of rooms, and its form.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "presence::Config", deny_unknown_fields)]
#[schemars(rename = "MemoryPresence")]
pub(in crate::config) struct MemoryPresence {
    /// The largest state of a user in a room, as JSON.
    #[serde(with = "Size")]
    state_bytes_max: usize,
    /// The most users of a room that are listed by name; a larger room is reported in counts.
    listed_max: u32,
    /// Grace period of a user whose last connection was lost: a page that reloads does not blink. Zero reports the loss at
    /// once.
    #[serde(with = "Time")]
    leave_grace: Duration,
    /// Time for which changes are coalesced before they are sent. Longer saves frames, shorter feels faster.
    #[serde(with = "Time")]
    flush_interval: Duration,
    /// The shortest time between two changes of a room that is reported in counts.
    #[serde(with = "PositiveTime")]
    counts_interval: Duration,
    /// The shortest time between two changes for clients that asked for counts only; `counts_interval` holds for rooms
    /// that are reported in counts.
    #[serde(with = "Time")]
    counts_coalesce_interval: Duration,
    /// The most activities kept for a slow `Watch`, about 100 bytes each. At least 1.
    #[serde(with = "Positive")]
    activity_capacity: usize,
}
