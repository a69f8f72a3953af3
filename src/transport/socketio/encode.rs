//! From messages and events to Socket.IO packets in WebSocket frames.

use std::borrow::Cow;
use std::io::Write as _;

use super::decode::{CONNECT, UNACKNOWLEDGED};
use crate::error::{CloseReason, ErrorCode};
use crate::event::{Event, Payload};
use crate::session::{Encoder, Frame, Message, Refusal};
use crate::transport::escape;
use crate::transport::http::Route;
use crate::transport::native;
use crate::transport::native::json::object::{Object, text};
use crate::transport::protocol::{self, Decoded, Protocol};
use crate::transport::websocket::frame::{FrameWriter, binary_frame};

/// Size that most packets fit into, in bytes.
const PACKET_BYTES_USUAL: usize = 256;

/// Writing to memory cannot fail.
const IN_MEMORY: &str = "writing text to memory cannot fail";

/// One namespace of Socket.IO, as a protocol: its frames name it.
#[derive(Debug)]
pub struct Namespace {
    name: &'static str,
    /// Behind the type in each packet: empty for the main namespace, `/name,` for others.
    mark: Box<str>,
    /// Begins the names of the gateway's own events.
    prefix: Box<str>,
    authentication_error: Box<str>,
    routes: Vec<Route>,
}

impl Namespace {
    /// The namespace of this name, which begins with a slash.
    pub(super) fn new(namespace: &str, config: &super::Config, routes: Vec<Route>) -> Self {
        Self {
            // Kept for the life of the process, which registers its protocols once: so a session's protocol has a name without an allocation.
            name: String::leak(super::protocol_name(namespace)),
            mark: mark(namespace).into(),
            prefix: config.event_prefix.as_str().into(),
            authentication_error: config.authentication_error.as_str().into(),
            routes,
        }
    }

    /// Writes one packet: `4`, its type, its namespace, and the rest.
    fn packet(&self, bytes: usize, kind: &str, fill: impl FnOnce(&mut Vec<u8>)) -> Frame {
        let mut frame = FrameWriter::with_capacity(bytes);
        let out = frame.body();
        out.push(b'4');
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(self.mark.as_bytes());
        fill(out);
        frame.text()
    }

    /// The name of an application's event as clients see it.
    fn told<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match escape(&self.prefix, name) {
            "" => Cow::Borrowed(name),
            prefix => Cow::Owned(format!("{prefix}{name}")),
        }
    }

    /// Writes an event of the gateway itself.
    fn own_event(&self, name: &str, fields: impl FnOnce(&mut Object<'_>)) -> Frame {
        self.packet(PACKET_BYTES_USUAL, "2", |out| {
            out.push(b'[');
            text(out, &format!("{}{name}", self.prefix));
            out.push(b',');
            Object::write(out, fields);
            out.push(b']');
        })
    }

    /// Writes an event of an application, with the number that its acknowledgement is to have, if it asks for one.
    fn application_event(&self, ack: Option<u32>, name: &str, payload: &Payload) -> Frame {
        let name = self.told(name);
        let begin = |out: &mut Vec<u8>| {
            if let Some(ack) = ack {
                write!(out, "{ack}").expect(IN_MEMORY);
            }
            out.push(b'[');
            text(out, &name);
        };
        match payload {
            Payload::Json(json) => self.packet(name.len() + json.bytes().len() + 64, "2", |out| {
                begin(out);
                out.push(b',');
                out.extend_from_slice(json.bytes());
                out.push(b']');
            }),
            Payload::Binary(bytes) => {
                let packet = self.packet(name.len() + 96, "51-", |out| {
                    begin(out);
                    out.extend_from_slice(br#",{"_placeholder":true,"num":0}]"#);
                });
                // One frame of ours, so that nothing gets between a packet and its attachment.
                [packet, binary_frame(bytes)].concat().into()
            }
        }
    }

    fn acknowledgement(&self, ack: u32, fields: impl FnOnce(&mut Object<'_>)) -> Frame {
        self.packet(PACKET_BYTES_USUAL, "3", |out| {
            write!(out, "{ack}[").expect(IN_MEMORY);
            Object::write(out, fields);
            out.push(b']');
        })
    }

    /// The answer to CONNECT. A client does not come back by itself after a refusal, so one that time may mend is not sent: the end
    /// of the connection is, after which it does.
    fn connect_answer(&self, message: &Message) -> Frame {
        match message {
            Message::Connected { connection, rooms, .. } => {
                let connected = self.packet(PACKET_BYTES_USUAL, "0", |out| {
                    Object::write(out, |object| object.plain("sid", connection));
                });
                if rooms.is_empty() {
                    return connected;
                }
                let rooms = self.own_event(native::json::name(message), |object| {
                    native::json::fields(object, message);
                });
                [connected, rooms].concat().into()
            }
            Message::Error(refusal) if !refusal.code.may_repeat() => self.packet(PACKET_BYTES_USUAL, "4", |out| {
                Object::write(out, |object| {
                    object.text("message", &self.refused(refusal));
                    object.object("data", |object| {
                        object.text("code", refusal.code.as_str());
                        object.text("message", &refusal.message);
                    });
                });
            }),
            _ => Frame::new(),
        }
    }

    /// The text of a refusal as applications look for it.
    fn refused(&self, refusal: &Refusal) -> String {
        let reason = match refusal.code {
            ErrorCode::TokenExpired => "token expired",
            ErrorCode::Unauthenticated => "token missing or invalid",
            _ => return refusal.message.clone(),
        };
        self.authentication_error.replace("{reason}", reason)
    }
}

/// The name of a namespace as it stands in packets.
pub(super) fn mark(namespace: &str) -> String {
    match namespace {
        "/" => String::new(),
        other => format!("{other},"),
    }
}

impl Protocol for Namespace {
    /// Messages of connections are read by [`super::inbox::Inbox`]: one connection has several namespaces.
    fn decode(&self, _: protocol::Message<'_>) -> Decoded {
        Decoded::Unsupported
    }

    fn is_upgraded_to(&self) -> bool {
        false
    }

    fn routes(&self) -> Vec<Route> {
        self.routes.clone()
    }

    fn farewell(&self, code: CloseReason, reason: &str) -> Frame {
        crate::transport::websocket::frame::close(code.code(), reason)
    }
}

impl Encoder for Namespace {
    fn name(&self) -> &'static str {
        self.name
    }

    fn message(&self, id: u32, message: &Message) -> Frame {
        let fields = |object: &mut Object<'_>| native::json::fields(object, message);
        match (id, message) {
            (CONNECT, _) => self.connect_answer(message),
            (_, Message::Asked { ask, method, payload }) => {
                self.application_event(Some(*ask), method.as_str(), payload)
            }
            (
                UNACKNOWLEDGED,
                Message::Error(_)
                | Message::RoomJoined { .. }
                | Message::RoomLeft { .. }
                | Message::Disconnected { .. }
                | Message::PresenceChanged(_)
                | Message::Degraded { .. }
                | Message::Resync { .. }
                | Message::ReconnectAdvice { .. }
                | Message::Expiring { .. },
            ) => self.own_event(native::json::name(message), fields),
            // An answer that nobody waits for.
            (UNACKNOWLEDGED, _) => Frame::new(),
            (id, Message::Error(_)) => self.acknowledgement(id - 1, |object| object.object("error", fields)),
            (id, _) => self.acknowledgement(id - 1, |object| {
                object.flag("ok", true);
                fields(object);
            }),
        }
    }

    /// None: a connection is pinged, not each of its namespaces.
    fn heartbeat(&self) -> Frame {
        Frame::new()
    }

    fn event(&self, event: &Event) -> Frame {
        self.application_event(None, event.name.as_str(), &event.payload)
    }

    fn passed(&self, _: &Event) -> Option<Frame> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{EventId, EventName, Except, Retention, Timestamp};
    use crate::json::Json;
    use crate::position::{Epoch, Offset, Position};
    use crate::room::{Room, Tenant};
    use crate::transport::websocket::frame::text_frame;

    fn event_of(namespace: &str, name: &str, payload: Payload) -> Frame {
        let tenant = Tenant::parse("t").unwrap();
        let event = Event {
            room: Room::parse(&tenant, "r").unwrap(),
            id: EventId::random(),
            name: EventName::parse(name).unwrap(),
            link: None,
            time: Timestamp(1),
            retention: Retention::Ephemeral,
            payload,
            actor: None,
            except: Except::NOBODY,
        };
        Namespace::new(namespace, &super::super::Config::default(), Vec::new()).event(&Arc::new(event))
    }

    fn json(text: &'static str) -> Payload {
        Payload::Json(Json::parse(text).unwrap())
    }

    #[test]
    fn events_are_packets_of_their_namespace() {
        assert_eq!(
            event_of("/", "said", json("{ \"n\": 1.0 }")),
            text_frame("42[\"said\",{ \"n\": 1.0 }]")
        );
        assert_eq!(
            event_of("/custom", "a\"b", json("null")),
            text_frame("42/custom,[\"a\\\"b\",null]")
        );
        let binary = event_of("/custom", "file", Payload::Binary(bytes::Bytes::from_static(b"\x04")));
        let packet = text_frame("451-/custom,[\"file\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(binary, [packet, binary_frame(b"\x04")].concat());
    }

    #[test]
    fn asks_are_events_with_an_acknowledgement() {
        let asked = |namespace: &str, payload| {
            let namespace = Namespace::new(namespace, &super::super::Config::default(), Vec::new());
            let (ask, method) = (12, EventName::parse("confirm").unwrap());
            namespace.message(0, &Message::Asked { ask, method, payload })
        };
        assert_eq!(asked("/", json("{}")), text_frame("4212[\"confirm\",{}]"));
        let binary = asked("/custom", Payload::Binary(bytes::Bytes::from_static(b"\x04")));
        let packet = text_frame("451-/custom,12[\"confirm\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(binary, [packet, binary_frame(b"\x04")].concat());
    }

    #[test]
    fn a_resync_says_where_its_room_goes_on() {
        let room = Room::parse(&Tenant::parse("t").unwrap(), "r").unwrap();
        let head = Position {
            epoch: Epoch::from_bits(1),
            offset: Offset(7),
        };
        let namespace = Namespace::new("/", &super::super::Config::default(), Vec::new());
        let told = namespace.message(0, &Message::Resync { room, head });
        let data = r#"{"room":"r","head":{"epoch":"0000000000000001","offset":7}}"#;
        assert_eq!(told, text_frame(&format!("42[\"roomcast:resync\",{data}]")));
    }

    #[test]
    fn no_publisher_can_imitate_the_gateway() {
        let told = event_of("/", "roomcast:roomLeft", json("{}"));
        assert_eq!(told, text_frame("42[\"roomcast:roomcast:roomLeft\",{}]"));
    }
}
