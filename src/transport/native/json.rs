//! The native protocol as JSON text: the mapping at the head of `client.proto`.

mod decode;
mod encode;
mod object;

use crate::event::Event;
use crate::session::{Frame, Message, Wire};
use crate::transport::native::Encoding;
use crate::transport::websocket::frame::{FrameWriter, ping};

pub use decode::decode;

/// Writes text messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonWire;

impl Wire for JsonWire {
    fn protocol(&self) -> &'static str {
        Encoding::Json.subprotocol()
    }

    fn format(&self) -> usize {
        Encoding::Json.format()
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

    fn passed(&self, event: &Event) -> Frame {
        let mut frame = FrameWriter::with_capacity(encode::MESSAGE_BYTES_USUAL);
        encode::passed(frame.body(), event);
        frame.text()
    }
}
