//! The native protocol as JSON text: the mapping at the head of `client.proto`.

mod decode;
pub(in crate::transport) mod encode;
pub(in crate::transport) mod object;

use crate::event::Event;
use crate::session::{Encoder, Frame, Message};
use crate::transport::protocol::{self, Decoded, Protocol};
use crate::transport::websocket::frame::{FrameWriter, ping};

pub use decode::decode;
pub(in crate::transport) use decode::named;
pub(in crate::transport) use encode::{fields, name};

/// JSON in text messages; the default of a client that asks for no subprotocol.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonProtocol;

impl Protocol for JsonProtocol {
    fn decode(&self, message: protocol::Message<'_>) -> Decoded {
        match message {
            protocol::Message::Text(text) => decode(text).into(),
            protocol::Message::Binary(_) => Decoded::Unsupported,
        }
    }
}

impl Encoder for JsonProtocol {
    fn name(&self) -> &'static str {
        "roomcast.v1.json"
    }

    fn message(&self, id: u32, message: &Message) -> Frame {
        let mut frame = FrameWriter::with_capacity(encode::MESSAGE_BYTES_USUAL);
        encode::message(frame.body(), id, message);
        frame.text()
    }

    fn heartbeat(&self) -> Frame {
        ping()
    }

    fn event(&self, event: &Event) -> Frame {
        let mut frame = FrameWriter::with_capacity(encode::event_bytes(event));
        encode::event(frame.body(), event);
        frame.text()
    }

    fn passed(&self, event: &Event) -> Option<Frame> {
        let mut frame = FrameWriter::with_capacity(encode::MESSAGE_BYTES_USUAL);
        encode::passed(frame.body(), event);
        Some(frame.text())
    }
}
