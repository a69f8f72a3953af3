//! `[grpc.subscriptions]`: bounds of the streams of events to backends.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api;
use crate::config::values::{Positive, PositiveSize, PositiveTime};

/// Bounds of `Subscribe`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubscriptionsSection {
    /// The most subscriptions of the node.
    #[serde(with = "Positive")]
    pub subscriptions_max: usize,
    /// The most subscriptions of one service on the node.
    #[serde(with = "Positive")]
    pub per_service_max: usize,
    /// The most rooms that one subscription names.
    #[serde(with = "Positive")]
    pub rooms_max: usize,
    /// The most events that wait for one reader; one more ends the subscription with `SLOW_CONSUMER`.
    #[serde(with = "Positive")]
    pub waiting_events_max: usize,
    /// The most bytes of events that wait for one reader; an event counts 256 bytes more than its payload.
    #[serde(with = "PositiveSize")]
    pub waiting_bytes_max: usize,
    /// The longest time that a response may wait for its reader; then the subscription ends with `SLOW_CONSUMER`.
    #[serde(with = "PositiveTime")]
    pub waiting_age_max: Duration,
    /// Time without events after which a response with the cursor alone is sent.
    #[serde(with = "PositiveTime")]
    pub heartbeat_interval: Duration,
}

impl Default for SubscriptionsSection {
    fn default() -> Self {
        let api::Subscriptions {
            subscriptions_max,
            per_service_max,
            rooms_max,
            waiting_events_max,
            waiting_bytes_max,
            waiting_age_max,
            heartbeat_interval,
        } = api::Subscriptions::default();
        Self {
            subscriptions_max,
            per_service_max,
            rooms_max,
            waiting_events_max,
            waiting_bytes_max,
            waiting_age_max,
            heartbeat_interval,
        }
    }
}

impl From<SubscriptionsSection> for api::Subscriptions {
    fn from(section: SubscriptionsSection) -> Self {
        let SubscriptionsSection {
            subscriptions_max,
            per_service_max,
            rooms_max,
            waiting_events_max,
            waiting_bytes_max,
            waiting_age_max,
            heartbeat_interval,
        } = section;
        Self {
            subscriptions_max,
            per_service_max,
            rooms_max,
            waiting_events_max,
            waiting_bytes_max,
            waiting_age_max,
            heartbeat_interval,
        }
    }
}
