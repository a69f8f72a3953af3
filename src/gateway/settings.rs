//! The settings that all nodes of a deployment share, over all components.

use super::Config;
use crate::bus::nats as bus;
use crate::nats;
use crate::nats::agreement::{Rule, Setting, Value};

/// What the bus needs to be equal or large enough, and what clients would notice as a difference between nodes.
pub(super) fn shared(config: &Config, cluster: &nats::Config, bus: &bus::Config) -> Vec<Setting> {
    let bytes = |number: usize| Value::Bytes(u64::try_from(number).unwrap_or(u64::MAX));
    let presence = &config.presence;
    let mut settings = bus::shared_settings(cluster, bus);
    settings.extend(
        [
            ("grpc.payload_bytes_max", bytes(config.api.payload_bytes_max)),
            ("session.payload_bytes_max", bytes(config.session.payload_bytes_max)),
            ("presence.state_bytes_max", bytes(presence.state_bytes_max)),
            ("presence.listed_max", Value::Count(presence.listed_max.into())),
            ("presence.leave_grace", Value::Time(presence.leave_grace)),
        ]
        .map(|(key, value)| Setting::new(key, value, Rule::Own)),
    );
    settings
}
