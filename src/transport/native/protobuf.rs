//! The native protocol as protobuf.

mod decode;
mod encode;
mod fields;

use prost::Message as _;

use crate::event::Event;
use crate::session::{Frame, Message, Wire};
use crate::transport::native::Encoding;
use crate::transport::websocket::frame::{FrameWriter, ping};

pub use decode::decode;

/// Writes binary messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProtobufWire;

impl Wire for ProtobufWire {
    fn protocol(&self) -> &'static str {
        Encoding::Protobuf.subprotocol()
    }

    fn format(&self) -> usize {
        Encoding::Protobuf.format()
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

    fn passed(&self, event: &Event) -> Frame {
        fields::passed(event)
    }
}
