//! The dialects of connections: what a member says to get into its rooms, and what it hears.

mod native;
mod socketio;
mod sse;

use clap::ValueEnum;
use prost::Message as _;
use serde_json::json;

pub(super) use self::socketio::SEPARATOR;

use super::frames::{self, BINARY, TEXT};
use super::stamp::Stamp;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::{ClientFrame, Connect, Join, Leave, Position};

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
    /// Socket.IO: Engine.IO 4 over polling; one connection carries all requests, one after the other
    SocketioPolling,
    /// An event stream (Server-Sent Events) of the gateway
    Sse,
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
    /// A connection of Engine.IO is open, with this id.
    Opened(String),
    /// A sign of life of the server.
    Ping,
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
            Self::SocketioPolling => "socketio-polling",
            Self::Sse => "sse",
        }
    }

    /// Reports whether only the gateway speaks it.
    pub(super) const fn is_gateways(self) -> bool {
        matches!(self, Self::Json | Self::Protobuf | Self::Sse)
    }

    /// Reports whether members can join and leave while they are connected.
    pub(super) const fn has_commands(self) -> bool {
        !matches!(self, Self::Plain | Self::Sse)
    }

    /// The first request of a connection: for a WebSocket, or for a stream. Room names here need no escaping.
    pub(super) fn request(self, host: &str, path: &str, rooms: &[String], token: &str) -> Vec<u8> {
        let query: Vec<_> = rooms.iter().map(|room| format!("room={room}")).collect();
        let query = query.join("&");
        if self == Self::Sse {
            return format!(
                "GET /v1/events?{query} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
            )
            .into_bytes();
        }
        let protocol = match self {
            Self::Json => "Sec-WebSocket-Protocol: roomcast.v1.json\r\n",
            Self::Protobuf => "Sec-WebSocket-Protocol: roomcast.v1.protobuf\r\n",
            _ => "",
        };
        let path = match self {
            Self::Socketio => "/socket.io/?EIO=4&transport=websocket".to_owned(),
            Self::Plain => format!("{path}?{query}"),
            _ => path.to_owned(),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{protocol}\r\n"
        )
        .into_bytes()
    }

    /// Opens the session; none where the request did.
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
            Self::Socketio | Self::SocketioPolling => Some(self.packet(&socketio::connect(token))),
            Self::Plain | Self::Sse => None,
        }
    }

    /// Reports whether the session is opened as soon as the request is answered; else the server speaks first.
    pub(super) const fn opens_at_once(self) -> bool {
        matches!(self, Self::Json | Self::Protobuf)
    }

    /// Answers a sign of life; none where that is not asked for.
    pub(super) fn pong(self) -> Option<Vec<u8>> {
        matches!(self, Self::Socketio | Self::SocketioPolling).then(|| self.packet("3"))
    }

    /// One packet of Engine.IO: a message of a WebSocket, or a part of a request's body.
    fn packet(self, packet: &str) -> Vec<u8> {
        match self {
            Self::SocketioPolling => [packet.as_bytes(), &[SEPARATOR]].concat(),
            _ => frames::write(TEXT, packet.as_bytes()),
        }
    }

    /// Joins these rooms, and how many answers are to come. A peer of ours joins all of them by one command.
    pub(super) fn join(self, rooms: &[String], since: Since<'_>, at_peer: bool) -> (Vec<u8>, u8) {
        let count = u8::try_from(rooms.len()).unwrap_or(u8::MAX);
        match self {
            Self::Plain => (Vec::new(), 0),
            Self::Sse => (Vec::new(), count),
            Self::Socketio | Self::SocketioPolling if at_peer => (self.packet(&socketio::join_all(rooms)), 1),
            _ => {
                let join = |(room, id): (&String, u32)| self.join_one(id, room, since);
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
            (Self::Socketio | Self::SocketioPolling, _) => self.packet(&socketio::join(id, room, since)),
            (_, None) => text(&json!({"id": id, "join": {"room": room}})),
            (_, Some(at)) => {
                let since = json!({"epoch": at.epoch, "offset": at.offset});
                text(&json!({"id": id, "join": {"room": room, "since": since}}))
            }
        }
    }

    /// Leaves a room, where [`Self::has_commands`].
    pub(super) fn leave(self, room: &str) -> Vec<u8> {
        match self {
            Self::Socketio | Self::SocketioPolling => self.packet(&socketio::leave(room)),
            Self::Protobuf => binary(2, Command::Leave(Leave { room: room.to_owned() })),
            _ => text(&json!({"id": 2, "leave": {"room": room}})),
        }
    }

    /// Reads a message. `place` is where the last stamp stood.
    pub(super) fn hear(self, message: &[u8], place: &mut usize) -> Heard {
        match self {
            Self::Json if message.starts_with(b"{\"event\"") => event(message, place),
            Self::Json => native::json(message),
            Self::Protobuf if message.first() == Some(&PROTOBUF_EVENT) => event(message, place),
            Self::Protobuf => native::protobuf(message),
            Self::Plain => event(message, place),
            Self::Socketio | Self::SocketioPolling => socketio::hear(message, place),
            Self::Sse => sse::hear(message, place),
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
            (
                "432[{\"ok\":true,\"recovered\":true}]".to_owned(),
                Heard::Joined { exact: true },
            ),
            ("432[{\"error\":{}}]".to_owned(), Heard::Refused("{}".to_owned())),
            (
                "0{\"sid\":\"a\",\"upgrades\":[]}".to_owned(),
                Heard::Opened("a".to_owned()),
            ),
            ("2".to_owned(), Heard::Ping),
            ("42[\"roomcast:degraded\",{}]".to_owned(), Heard::Other),
            ("42[\"roomcast:resync\",{}]".to_owned(), Heard::Resync),
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
        let request = Wire::Plain.request("h:1", "/", &["a".to_owned(), "b".to_owned()], "");
        assert!(request.starts_with(b"GET /?room=a&room=b HTTP/1.1\r\nHost: h:1\r\n"));
    }

    #[test]
    fn event_streams_are_understood() {
        let event = format!("id: AQ\nevent: event\ndata: {}", STAMP.payload(64));
        for (block, expected) in [
            (event.as_str(), Heard::Event(STAMP)),
            ("retry: 3000", Heard::Other),
            (":", Heard::Ping),
            ("event: roomcast:connected\ndata: {}", Heard::Other),
            (
                "id: AQ\nevent: roomcast:joined\ndata: {}",
                Heard::Joined { exact: false },
            ),
            ("event: roomcast:resync\ndata: {}", Heard::Resync),
        ] {
            assert_eq!(heard(Wire::Sse, block), expected, "{block}");
        }
        assert!(matches!(
            heard(Wire::Sse, "event: roomcast:closing\ndata: {}"),
            Heard::Refused(_)
        ));
    }
}
