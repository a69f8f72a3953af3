//! `[grpc.subscriptions]`: bounds of the streams of events to backends.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api;
use crate::config::values::{Positive, PositiveSize, PositiveTime};

/// Bounds of `Subscribe`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "api::Subscriptions", deny_unknown_fields)]
#[schemars(rename = "Subscriptions")]
pub(in crate::config) struct Subscriptions {
    /// The most subscriptions of the node.
    #[serde(with = "Positive")]
    subscriptions_max: usize,
    /// The most subscriptions of one service on the node.
    #[serde(with = "Positive")]
    per_service_max: usize,
    /// The most rooms that one subscription names.
    #[serde(with = "Positive")]
    rooms_max: usize,
    /// The most events that wait for one reader; one more ends the subscription with `SLOW_CONSUMER`.
    #[serde(with = "Positive")]
    waiting_events_max: usize,
    /// The most bytes of events that wait for one reader; an event counts 256 bytes more than its payload.
    #[serde(with = "PositiveSize")]
    waiting_bytes_max: usize,
    /// The longest time that a response may wait for its reader; then the subscription ends with `SLOW_CONSUMER`.
    #[serde(with = "PositiveTime")]
    waiting_age_max: Duration,
    /// Time without events after which a response with the cursor alone is sent.
    #[serde(with = "PositiveTime")]
    heartbeat_interval: Duration,
}
