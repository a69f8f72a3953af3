//! The settings that all nodes of a deployment share, over all components.

use super::Config;
use crate::bus::nats as bus;
use crate::nats::agreement::{Rule, Setting, Value};
use crate::nats::{self, Nats, NatsError};
use crate::relay;
use crate::rooms::HomeRooms;

/// Returns the settings that the bus needs equal or large enough, and those whose difference clients would notice.
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
    settings.extend(home_rooms(&config.home_rooms));
    settings
}

/// The instruction to change the template of a home room.
const PURGE_THE_RECORD: &str = "to change it, end all nodes, purge the subject DEPLOYMENT.m.settings of the stream DEPLOYMENT-m and \
                                start them: no history begins anew";

/// Returns the templates that are configured. With another template a node would publish to a room that the user is not in,
/// and answer OK. A node without one refuses such a publish, so its setting is not compared.
fn home_rooms(homes: &HomeRooms) -> impl Iterator<Item = Setting> {
    let keys = ["grpc.user_room", "grpc.tenant_room"].into_iter();
    keys.zip(homes.templates()).filter_map(|(key, template)| {
        let value = Value::Text(template?.as_str().to_owned());
        Some(Setting::new(key, value, Rule::Equal(PURGE_THE_RECORD)))
    })
}

/// Returns the bounds of polling requests that nodes relay. An answer holds a quarter of a megabyte and one packet at most, a request
/// the body of a client.
pub(super) fn relay(config: &Config) -> relay::Config {
    const ANSWER_BYTES_MAX: usize = 1 << 20;
    let socketio = &config.sockets.socketio;
    let packet = config.api.payload_bytes_max.max(config.session.payload_bytes_max);
    relay::Config {
        in_flight_max: socketio.forwarded_max,
        // Base64, and a packet's envelope.
        message_bytes_max: ANSWER_BYTES_MAX + 2 * packet.max(socketio.payload_bytes_max),
    }
}

/// The smallest message size that nodes need among themselves.
const MESSAGE_BYTES_MIN: usize = 32 << 10;

/// Compares the largest event with NATS's limit. Events between the two are refused as too large, one by one.
///
/// # Errors
/// [`NatsError::Refused`] where nodes could not even exchange messages.
pub(super) fn compare_limits(config: &Config, nats: &Nats) -> Result<(), NatsError> {
    let message_bytes_max = nats.message_bytes_max();
    let size = |bytes: usize| nats::streams::size(u64::try_from(bytes).unwrap_or(u64::MAX));
    let max_payload = size(message_bytes_max);
    if message_bytes_max < MESSAGE_BYTES_MIN {
        return Err(NatsError::Refused(format!(
            "max_payload of the server is {max_payload}, nodes need {} among themselves: raise it",
            size(MESSAGE_BYTES_MIN)
        )));
    }
    for (setting, bytes) in [
        ("grpc.payload_bytes_max", config.api.payload_bytes_max),
        ("session.payload_bytes_max", config.session.payload_bytes_max),
    ] {
        if bytes + bus::ENVELOPE_BYTES_MAX > message_bytes_max {
            let bound = size(bytes);
            tracing::warn!(
                setting,
                bound,
                max_payload,
                "nats max_payload below the largest allowed event"
            );
        }
    }
    Ok(())
}
