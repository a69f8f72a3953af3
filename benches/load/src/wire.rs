//! The dialects of connections: what a member says to get into its rooms, and what it hears.

use clap::ValueEnum;
use prost::Message as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::frames::{self, BINARY, TEXT};
use super::stamp::Stamp;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Push;
use roomcast::proto::client_v1::{ClientFrame, Connect, Join, Leave, Position, ServerFrame};

const CLIENT: &str = concat!("roomcast-bench/", env!("CARGO_PKG_VERSION"));

/// The handshake's key: the one of RFC 6455 section 1.3. Nobody here checks the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The first byte of a protobuf frame that is an event: field 14, and no id before it.
const PROTOBUF_EVENT: u8 = 14 << 3 | 2;

/// The members' protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Wire {
    /// Roomcast's native protocol as JSON
    Json,
    /// Roomcast's native protocol as protobuf
    Protobuf,
    /// A plain WebSocket: the address names the rooms, every message is an event
    Plain,
    /// Socket.IO: Engine.IO 4 over a WebSocket
    Socketio,
}

/// The parts of a server's message that matter to a member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The session is open: rooms can be joined.
    Connected,
    /// A room is joined, or all where one command joins them; `exact`: nothing missed is missing.
    Joined {
        exact: bool,
    },
    Left,
    Event(Stamp),
    Resync,
    Refused(String),
    /// Something has to be said back at once.
    Answer(Vec<u8>),
    Other,
}

/// The position at which a room was left.
pub(super) type Since<'a> = Option<&'a Position>;

impl Wire {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Plain => "plain",
            Self::Socketio => "socketio",
        }
    }

    /// The request that asks for a WebSocket. Room names here need no escaping.
    pub(super) fn upgrade(self, host: &str, path: &str, rooms: &[String]) -> Vec<u8> {
        let protocol = match self {
            Self::Json => "Sec-WebSocket-Protocol: roomcast.v1.json\r\n",
            Self::Protobuf => "Sec-WebSocket-Protocol: roomcast.v1.protobuf\r\n",
            Self::Plain | Self::Socketio => "",
        };
        let path = match self {
            Self::Json | Self::Protobuf => path.to_owned(),
            Self::Socketio => "/socket.io/?EIO=4&transport=websocket".to_owned(),
            Self::Plain => {
                let rooms: Vec<_> = rooms.iter().map(|room| format!("room={room}")).collect();
                format!("{path}?{}", rooms.join("&"))
            }
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{protocol}\r\n"
        )
        .into_bytes()
    }

    /// Opens the session; none where the upgrade did, or where the server speaks first.
    pub(super) fn connect(self, token: &str) -> Option<Vec<u8>> {
        match self {
            Self::Json => Some(text(&json!({"id": 1, "connect": {"token": token, "client": CLIENT}}))),
            Self::Protobuf => Some(binary(
                1,
                Command::Connect(Connect {
                    token: token.to_owned(),
                    client: CLIENT.to_owned(),
                    ..Connect::default()
                }),
            )),
            Self::Plain | Self::Socketio => None,
        }
    }

    /// Joins these rooms, and how many answers are to come.
    pub(super) fn join(self, rooms: &[String], since: Since<'_>) -> (Vec<u8>, u8) {
        match self {
            Self::Plain => (Vec::new(), 0),
            Self::Socketio => (
                frames::write(TEXT, format!("420{}", json!(["join", rooms])).as_bytes()),
                1,
            ),
            Self::Json | Self::Protobuf => {
                let join = |(room, id): (&String, u32)| self.join_one(id, room, since);
                let count = u8::try_from(rooms.len()).unwrap_or(u8::MAX);
                (rooms.iter().zip(2..).flat_map(join).collect(), count)
            }
        }
    }

    fn join_one(self, id: u32, room: &str, since: Since<'_>) -> Vec<u8> {
        match (self, since) {
            (Self::Protobuf, _) => binary(
                id,
                Command::Join(Join {
                    room: room.to_owned(),
                    since: since.cloned(),
                    ..Join::default()
                }),
            ),
            (_, None) => text(&json!({"id": id, "join": {"room": room}})),
            (_, Some(at)) => {
                let since = json!({"epoch": at.epoch, "offset": at.offset});
                text(&json!({"id": id, "join": {"room": room, "since": since}}))
            }
        }
    }

    /// Leaves a room. Only the native protocol can.
    pub(super) fn leave(self, room: &str) -> Vec<u8> {
        match self {
            Self::Protobuf => binary(2, Command::Leave(Leave { room: room.to_owned() })),
            _ => text(&json!({"id": 2, "leave": {"room": room}})),
        }
    }

    /// Reads a message. `place` is where the last stamp stood.
    pub(super) fn hear(self, message: &[u8], place: &mut usize) -> Heard {
        match self {
            Self::Json if message.starts_with(b"{\"event\"") => event(message, place),
            Self::Json => native_json(message),
            Self::Protobuf if message.first() == Some(&PROTOBUF_EVENT) => event(message, place),
            Self::Protobuf => native_protobuf(message),
            Self::Plain => event(message, place),
            Self::Socketio => socketio(message, place),
        }
    }
}

fn text(command: &serde_json::Value) -> Vec<u8> {
    frames::write(TEXT, command.to_string().as_bytes())
}

fn binary(id: u32, command: Command) -> Vec<u8> {
    let command = Some(command);
    frames::write(BINARY, &ClientFrame { id, command }.encode_to_vec())
}

/// An event that somebody else published into our room says nothing about the server.
fn event(message: &[u8], place: &mut usize) -> Heard {
    Stamp::find(message, place).map_or(Heard::Other, Heard::Event)
}

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

fn native_json(message: &[u8]) -> Heard {
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

fn native_protobuf(message: &[u8]) -> Heard {
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

/// Engine.IO 4 and Socket.IO 5, as far as a room server uses them.
fn socketio(message: &[u8], place: &mut usize) -> Heard {
    match message {
        [b'0', ..] => Heard::Answer(frames::write(TEXT, b"40")),
        [b'2', ..] => Heard::Answer(frames::write(TEXT, b"3")),
        [b'4', b'0', ..] => Heard::Connected,
        [b'4', b'2', ..] => event(message, place),
        [b'4', b'3', ..] => Heard::Joined { exact: false },
        [b'1', ..] | [b'4', b'1' | b'4', ..] => Heard::Refused(String::from_utf8_lossy(message).into_owned()),
        _ => Heard::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        number: 1,
        due_us: 2,
        room: 3,
    };

    fn heard(wire: Wire, message: &str) -> Heard {
        wire.hear(message.as_bytes(), &mut 0)
    }

    #[test]
    fn the_native_protocol_is_understood() {
        let event = format!("{{\"event\":{{\"room\":\"r\",\"payload\":{}}}}}", STAMP.payload(64));
        for (message, expected) in [
            (event.as_str(), Heard::Event(STAMP)),
            ("{\"id\":1,\"connected\":{\"userId\":\"a\"}}", Heard::Connected),
            ("{\"id\":2,\"joined\":{\"room\":\"r\"}}", Heard::Joined { exact: false }),
            (
                "{\"id\":2,\"joined\":{\"recovered\":true}}",
                Heard::Joined { exact: true },
            ),
            ("{\"id\":2,\"left\":{\"room\":\"r\"}}", Heard::Left),
            ("{\"resync\":{\"room\":\"r\"}}", Heard::Resync),
            ("{\"presenceDelta\":{\"room\":\"r\"}}", Heard::Other),
        ] {
            assert_eq!(heard(Wire::Json, message), expected, "{message}");
        }
        let refused = "{\"id\":1,\"error\":{\"code\":\"forbidden\",\"reason\":\"a\",\"message\":\"b\"}}";
        assert_eq!(heard(Wire::Json, refused), Heard::Refused("a: b".to_owned()));
        assert!(matches!(heard(Wire::Json, "nonsense"), Heard::Refused(_)));
    }

    #[test]
    fn socket_io_is_understood() {
        let event = serde_json::to_string(&STAMP.payload(64)).unwrap();
        for (message, expected) in [
            (format!("42[\"event\",{event}]"), Heard::Event(STAMP)),
            ("40{\"sid\":\"a\"}".to_owned(), Heard::Connected),
            ("430[]".to_owned(), Heard::Joined { exact: false }),
            ("2".to_owned(), Heard::Answer(frames::write(TEXT, b"3"))),
            (
                "44{\"message\":\"no\"}".to_owned(),
                Heard::Refused("44{\"message\":\"no\"}".to_owned()),
            ),
        ] {
            assert_eq!(heard(Wire::Socketio, &message), expected, "{message}");
        }
    }

    #[test]
    fn a_plain_member_names_its_rooms_in_the_address() {
        let request = Wire::Plain.upgrade("h:1", "/", &["a".to_owned(), "b".to_owned()]);
        assert!(request.starts_with(b"GET /?room=a&room=b HTTP/1.1\r\nHost: h:1\r\n"));
    }
}
