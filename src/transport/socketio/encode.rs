//! From messages and events to Socket.IO packets in WebSocket frames.

use std::borrow::Cow;
use std::io::Write as _;

use super::decode::{CONNECT, UNACKNOWLEDGED};
use super::offset;
use crate::error::{CloseReason, ErrorCode};
use crate::event::{Event, Payload};
use crate::session::recovery::Recovery;
use crate::session::{Encoder, Ending, Frame, Message, Refusal};
use crate::transport::escape;
use crate::transport::http::Route;
use crate::transport::native;
use crate::transport::native::json::object::{Object, text};
use crate::transport::protocol::{self, Decoded, Protocol};
use crate::transport::websocket::frame::{FrameWriter, Written, binary_frame, is_open, split_first};

/// Size that most packets fit into, in bytes.
const PACKET_BYTES_USUAL: usize = 256;

/// Size that most ends of packets fit into, in bytes.
const TAIL_BYTES_USUAL: usize = 64;

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
    /// Its sessions can be recovered: an event is the first fragment of a message, which an offset completes.
    is_recoverable: bool,
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
            is_recoverable: config.recovery.is_some(),
        }
    }

    /// Writes one packet: `4`, its type, its namespace, and the rest.
    fn packet(&self, bytes: usize, kind: &str, fill: impl FnOnce(&mut Vec<u8>)) -> Frame {
        self.begin(bytes, kind, fill).text()
    }

    /// Writes a packet but for its last byte, which each connection adds with what is its own; where nothing is, the whole packet.
    fn open_packet(&self, bytes: usize, kind: &str, end: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Frame {
        let mut frame = self.begin(bytes, kind, fill);
        if self.is_recoverable {
            return frame.open_text();
        }
        frame.body().push(end);
        frame.text()
    }

    fn begin(&self, bytes: usize, kind: &str, fill: impl FnOnce(&mut Vec<u8>)) -> FrameWriter {
        let mut frame = FrameWriter::with_capacity(bytes);
        let out = frame.body();
        out.push(b'4');
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(self.mark.as_bytes());
        fill(out);
        frame
    }

    /// Writes the end of a packet: the offset behind an event, the secret behind the answer to CONNECT.
    fn tail(begun: &[u8], recovery: &Recovery) -> Frame {
        let mut frame = FrameWriter::with_capacity(TAIL_BYTES_USUAL);
        let out = frame.body();
        let is_answer = begun.get(1) == Some(&b'0');
        match &recovery.ticket {
            Some(ticket) if is_answer => write!(out, ",\"pid\":\"{}\"", ticket.pid).expect(IN_MEMORY),
            Some(_) => {
                out.extend_from_slice(b",\"");
                offset::write(recovery, out);
                out.push(b'"');
            }
            None => {}
        }
        out.push(if is_answer { b'}' } else { b']' });
        frame.tail()
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
        self.open_packet(PACKET_BYTES_USUAL, "2", b']', |out| {
            out.push(b'[');
            text(out, &format!("{}{name}", self.prefix));
            out.push(b',');
            Object::write(out, fields);
        })
    }

    /// Writes an event of an application, with the number that its acknowledgement is to have, if it asks for one. One that does
    /// carries no offset: behind its arguments a client adds the function that answers.
    fn application_event(&self, ack: Option<u32>, name: &str, payload: &Payload) -> Frame {
        let name = self.told(name);
        let begin = |out: &mut Vec<u8>| {
            if let Some(ack) = ack {
                write!(out, "{ack}").expect(IN_MEMORY);
            }
            out.push(b'[');
            text(out, &name);
        };
        let packet = |bytes, kind, arguments: &dyn Fn(&mut Vec<u8>)| match ack {
            None => self.open_packet(bytes, kind, b']', |out| {
                begin(out);
                arguments(out);
            }),
            Some(_) => self.packet(bytes, kind, |out| {
                begin(out);
                arguments(out);
                out.push(b']');
            }),
        };
        match payload {
            Payload::Json(json) => packet(name.len() + json.bytes().len() + 64, "2", &|out| {
                out.push(b',');
                out.extend_from_slice(json.bytes());
            }),
            Payload::Binary(bytes) => {
                let packet = packet(name.len() + 96, "51-", &|out| {
                    out.extend_from_slice(br#",{"_placeholder":true,"num":0}"#);
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
                let connected = self.open_packet(PACKET_BYTES_USUAL, "0", b'}', |out| {
                    write!(out, "{{\"sid\":\"{connection}\"").expect(IN_MEMORY);
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

    fn keeps_cursor(&self) -> bool {
        self.is_recoverable
    }

    fn complete(&self, frame: &Frame, recovery: &Recovery) -> Ending {
        if !is_open(frame) {
            return Ending::None;
        }
        let mut rest = frame.clone();
        let Some(Written::OpenText(begun)) = split_first(&mut rest) else {
            return Ending::None;
        };
        let tail = Self::tail(&begun, recovery);
        if rest.is_empty() {
            return Ending::Tail(tail);
        }
        // An attachment, or what follows the answer to CONNECT, stands behind the end.
        let begun = frame.slice(..frame.len() - rest.len());
        let behind = match self.complete(&rest, recovery) {
            Ending::None => vec![rest],
            Ending::Tail(tail) => vec![rest, tail],
            Ending::Whole(behind) => vec![behind],
        };
        Ending::Whole(
            [begun, tail]
                .into_iter()
                .chain(behind)
                .collect::<Vec<_>>()
                .concat()
                .into(),
        )
    }
}

#[cfg(test)]
mod tests;
