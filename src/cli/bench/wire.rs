//! What a member says and hears, in either form of the native protocol.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::proto::client_v1::client_frame::Command;
use crate::proto::client_v1::server_frame::Message as Push;
use crate::proto::client_v1::{ClientFrame, Connect, Join, Payload, ServerFrame, payload};

const CLIENT: &str = concat!("roomcast-bench/", env!("CARGO_PKG_VERSION"));

/// The form of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Json,
    Protobuf,
}

/// What each event carries: its number in its room, and when it was due, in microseconds of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Stamp {
    #[serde(rename = "n")]
    pub(super) number: u64,
    #[serde(rename = "t")]
    pub(super) due_us: u64,
}

/// What a member cares about in a message of the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Connected,
    Joined,
    Event(Stamp),
    Resync,
    Refused(String),
    Other,
}

impl Stamp {
    /// The smallest payload a stamp fits into.
    pub(super) const BYTES_MIN: u32 = 64;

    /// A JSON payload of exactly this many bytes.
    pub(super) fn payload(self, bytes: usize) -> String {
        let mut text = format!("{{\"n\":{},\"t\":{},\"p\":\"", self.number, self.due_us);
        let padding = bytes.saturating_sub(text.len() + 2);
        text.extend(std::iter::repeat_n('x', padding));
        text.push_str("\"}");
        text
    }
}

impl Wire {
    pub(super) fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "roomcast.v1.json",
            Self::Protobuf => "roomcast.v1.protobuf",
        }
    }

    pub(super) fn connect(self, token: &str) -> Message {
        match self {
            Self::Json => text(&json!({"id": 1, "connect": {"token": token, "client": CLIENT}})),
            Self::Protobuf => binary(
                1,
                Command::Connect(Connect {
                    token: token.to_owned(),
                    client: CLIENT.to_owned(),
                    ..Connect::default()
                }),
            ),
        }
    }

    pub(super) fn join(self, room: &str) -> Message {
        match self {
            Self::Json => text(&json!({"id": 2, "join": {"room": room}})),
            Self::Protobuf => binary(
                2,
                Command::Join(Join {
                    room: room.to_owned(),
                    ..Join::default()
                }),
            ),
        }
    }
}

fn text(command: &serde_json::Value) -> Message {
    Message::text(command.to_string())
}

fn binary(id: u32, command: Command) -> Message {
    let command = Some(command);
    Message::binary(ClientFrame { id, command }.encode_to_vec())
}

impl Heard {
    /// Reads a message; events of other rooms than this one are none of ours. None for what is no frame at all.
    pub(super) fn read(message: Message, room: &str) -> Option<Self> {
        match message {
            Message::Text(text) => from_json(&text, room),
            Message::Binary(bytes) => from_protobuf(bytes, room),
            _ => Some(Self::Other),
        }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    connected: Option<IgnoredAny>,
    joined: Option<IgnoredAny>,
    resync: Option<IgnoredAny>,
    error: Option<Refusal>,
    #[serde(borrow)]
    event: Option<Event<'a>>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    room: Cow<'a, str>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

fn from_json(text: &Utf8Bytes, room: &str) -> Option<Heard> {
    let frame: Frame<'_> = serde_json::from_str(text).ok()?;
    Some(match frame {
        Frame { event: Some(event), .. } if event.room == room => stamped(event.payload.map(RawValue::get)),
        Frame { error: Some(error), .. } => Heard::Refused(format!("{}: {}", error.reason, error.message)),
        Frame { connected: Some(_), .. } => Heard::Connected,
        Frame { joined: Some(_), .. } => Heard::Joined,
        Frame { resync: Some(_), .. } => Heard::Resync,
        _ => Heard::Other,
    })
}

fn from_protobuf(bytes: Bytes, room: &str) -> Option<Heard> {
    Some(match ServerFrame::decode(bytes).ok()?.message? {
        Push::Event(event) if event.room == room => stamped(event.payload.as_ref().and_then(json_of)),
        Push::Error(error) => Heard::Refused(format!("{}: {}", error.reason, error.message)),
        Push::Connected(_) => Heard::Connected,
        Push::Joined(_) => Heard::Joined,
        Push::Resync(_) => Heard::Resync,
        _ => Heard::Other,
    })
}

fn json_of(payload: &Payload) -> Option<&str> {
    match payload.content.as_ref()? {
        payload::Content::Json(text) => Some(text),
        payload::Content::Binary(_) => None,
    }
}

/// An event that somebody else published into our room says nothing about the gateway.
fn stamped(payload: Option<&str>) -> Heard {
    let stamp = payload.and_then(|text| serde_json::from_str(text).ok());
    stamp.map_or(Heard::Other, Heard::Event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_size_asked_for_and_gives_its_stamp_back() {
        for stamp in [(0, 0), (1_000_000, 7_200_000_000)].map(|(number, due_us)| Stamp { number, due_us }) {
            for bytes in [Stamp::BYTES_MIN as usize, 200] {
                let payload = stamp.payload(bytes);
                assert_eq!(payload.len(), bytes);
                assert_eq!(stamped(Some(&payload)), Heard::Event(stamp));
            }
        }
    }

    #[test]
    fn only_events_of_the_own_room_are_heard() {
        let event = |room: &str| format!("{{\"event\":{{\"room\":\"{room}\",\"payload\":{{\"n\":1,\"t\":2}}}}}}");
        let heard = |text: &str| Heard::read(Message::text(text), "r");
        assert_eq!(heard(&event("r")), Some(Heard::Event(Stamp { number: 1, due_us: 2 })));
        assert_eq!(heard(&event("s")), Some(Heard::Other));
        assert_eq!(heard("{\"id\":2,\"joined\":{\"room\":\"r\"}}"), Some(Heard::Joined));
        assert_eq!(heard("nonsense"), None);
    }
}
