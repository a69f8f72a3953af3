//! WebSocket frames (RFC 6455 section 5) of a server, without IO.
//!
//! [`Reader`] takes bytes as a socket delivered them and calls back with complete messages. The functions write the
//! server's frames, which are not masked and therefore the same for all receivers. Neither knows a socket, a clock or the
//! meaning of messages.
//!
//! # Contract
//! - A frame that is whole in the input is unmasked and delivered in place, without an allocation. Only half received data
//!   is kept, in a box that is freed with the last byte: a connection at rest owns one empty pointer.
//! - Sizes are checked by the header, before anything is kept. Memory follows the bytes received, not the announced length.
//! - Text is checked on arrival: the first octet that cannot be UTF-8 ends the connection, wherever frames or reads are
//!   cut.
//! - No extensions: all reserved bits are refused, so there is no compression to bomb with.

mod mask;
mod message;
mod reader;
mod writer;

use std::time::Duration;

pub use reader::Reader;
pub use writer::{
    FrameWriter, Written, binary_frame, close, close_without_code, is_open, is_tail, ping, pong, split_first,
    text_frame,
};

/// Limits of half received data of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, over all its fragments, in bytes.
    pub message_bytes_max: usize,
    /// The most fragments of one message; empty ones count.
    pub fragments_max: u32,
    /// The longest time from the first to the last byte of a message or a control frame.
    pub message_duration_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024,
            fragments_max: 64,
            message_duration_max: Duration::from_secs(10),
        }
    }
}

/// A complete message or control frame of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping; its payload, at most 125 bytes, belongs into the pong.
    Ping(&'a [u8]),
    /// A pong, with any payload.
    Pong,
    /// The client closes. Nothing after it counts; the reply is a close frame, unless one was sent before.
    Close(CloseFrame),
}

/// A client's close frame. Its reason text is checked to be UTF-8 and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseFrame {
    /// The close code, one that may be sent (RFC 6455 section 7.4); `None` when the frame was empty.
    pub code: Option<u16>,
}

#[cfg(test)]
mod tests;
