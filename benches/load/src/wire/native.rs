//! Roomcast's native protocol, as far as a member hears it.

use prost::Message as _;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Heard;
use roomcast::proto::client_v1::ServerFrame;
use roomcast::proto::client_v1::server_frame::Message as Push;

#[derive(Deserialize)]
struct Message {
    connected: Option<IgnoredAny>,
    joined: Option<Joined>,
    left: Option<IgnoredAny>,
    resync: Option<IgnoredAny>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Joined {
    #[serde(default)]
    recovered: bool,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

pub(super) fn json(message: &[u8]) -> Heard {
    let Ok(message) = serde_json::from_slice::<Message>(message) else {
        return Heard::Refused("the server does not speak roomcast.v1".to_owned());
    };
    match message {
        Message { error: Some(error), .. } => Heard::Refused(format!("{}: {}", error.reason, error.message)),
        Message { connected: Some(_), .. } => Heard::Connected,
        Message {
            joined: Some(joined), ..
        } => Heard::Joined {
            exact: joined.recovered,
        },
        Message { left: Some(_), .. } => Heard::Left,
        Message { resync: Some(_), .. } => Heard::Resync,
        _ => Heard::Other,
    }
}

pub(super) fn protobuf(message: &[u8]) -> Heard {
    let Ok(frame) = ServerFrame::decode(message) else {
        return Heard::Refused("the server does not speak roomcast.v1".to_owned());
    };
    match frame.message {
        Some(Push::Error(error)) => Heard::Refused(format!("{}: {}", error.reason, error.message)),
        Some(Push::Connected(_)) => Heard::Connected,
        Some(Push::Joined(joined)) => Heard::Joined {
            exact: joined.recovered,
        },
        Some(Push::Left(_)) => Heard::Left,
        Some(Push::Resync(_)) => Heard::Resync,
        _ => Heard::Other,
    }
}
