//! The native protocol as protobuf.

mod decode;
mod encode;
mod fields;

use prost::Message as _;

use crate::event::Event;
use crate::session::{Encoder, Frame, Message};
use crate::transport::protocol::{self, Decoded, Protocol};
use crate::transport::websocket::frame::{FrameWriter, ping};

pub use decode::decode;

/// Protobuf in binary messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProtobufProtocol;

impl Protocol for ProtobufProtocol {
    fn decode(&self, message: protocol::Message<'_>) -> Decoded {
        match message {
            protocol::Message::Binary(bytes) => decode(bytes).into(),
            protocol::Message::Text(_) => Decoded::Unsupported,
        }
    }
}

impl Encoder for ProtobufProtocol {
    fn name(&self) -> &'static str {
        "roomcast.v1.protobuf"
    }

    fn message(&self, id: u32, message: &Message) -> Frame {
        let message = encode::message(id, message);
        let mut frame = FrameWriter::with_capacity(message.encoded_len());
        message.encode_raw(frame.body());
        frame.binary()
    }

    fn heartbeat(&self) -> Frame {
        ping()
    }

    fn event(&self, event: &Event) -> Frame {
        fields::event(event)
    }

    fn passed(&self, event: &Event) -> Option<Frame> {
        Some(fields::passed(event))
    }
}
