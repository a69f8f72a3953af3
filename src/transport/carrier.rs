//! Carriers: how messages are cut out of the bytes that a connection brings.

use std::fmt;
use std::ops::ControlFlow;

use super::protocol::Message;
use super::websocket::frame::{self, CloseFrame, Incoming, Reader};
use crate::error::CloseReason;
use crate::session::Cursor;

pub use super::websocket::frame::Limits;

/// One thing that a connection brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// A message, for the protocol to read.
    Message(Message<'a>),
    /// A WebSocket ping with its payload.
    Ping(&'a [u8]),
    /// A WebSocket pong.
    Pong,
    /// The peer closes. Nothing after it counts.
    Close(CloseFrame),
}

/// Framing that a protocol brings along, for connections that are no WebSockets.
pub trait Framing: fmt::Debug {
    /// Takes what the socket gave and calls `on` for each complete message, in order. `now_ms` is any clock that does not
    /// go back.
    ///
    /// # Errors
    /// Why the connection has to be closed.
    fn feed(
        &mut self,
        input: &[u8],
        limits: &Limits,
        now_ms: u64,
        on: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), CloseReason>;

    /// Since when a message is half received; `None` at rest and after [`Self::stop_clock`].
    fn partial_since_ms(&self) -> Option<u64>;

    /// Lets the time of a half received message start anew with the next bytes: the gateway does not read.
    fn stop_clock(&mut self);

    /// Reports whether the client sends nothing after its request, so that its silence says nothing.
    fn is_one_way(&self) -> bool {
        false
    }

    /// The cursor of the connection, in a protocol that keeps one.
    fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        None
    }
}

/// The body of a response: the request has said all that the client says.
///
/// Each line of the request's opening ([`super::http::HandOver::opening`]) is a message; any byte after it ends the connection.
#[derive(Debug, Default)]
pub(super) struct ResponseBody {
    has_opened: bool,
}

impl Framing for ResponseBody {
    fn feed(&mut self, input: &[u8], _: &Limits, _: u64, on: &mut dyn FnMut(Message<'_>)) -> Result<(), CloseReason> {
        if std::mem::replace(&mut self.has_opened, true) {
            return Err(CloseReason::PolicyViolation);
        }
        for line in input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            on(Message::Text(
                std::str::from_utf8(line).map_err(|_| CloseReason::InvalidUtf8)?,
            ));
        }
        Ok(())
    }

    fn partial_since_ms(&self) -> Option<u64> {
        None
    }

    fn stop_clock(&mut self) {}

    fn is_one_way(&self) -> bool {
        true
    }
}

/// The reading end of one connection. A WebSocket at rest owns one empty pointer.
#[derive(Debug)]
pub enum Carrier {
    /// WebSocket frames (RFC 6455).
    WebSocket(Reader),
    /// A byte stream with a protocol's own framing.
    Stream(Box<dyn Framing>),
}

impl Default for Carrier {
    fn default() -> Self {
        Self::WebSocket(Reader::default())
    }
}

impl Carrier {
    /// The body of a response, for a protocol whose clients come by a [`super::http::Route`].
    #[must_use]
    pub fn response_body() -> Self {
        Self::Stream(Box::<ResponseBody>::default())
    }

    /// Reports whether the client sends nothing after its request.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        match self {
            Self::WebSocket(_) => false,
            Self::Stream(framing) => framing.is_one_way(),
        }
    }

    /// The cursor of the connection, in a protocol that keeps one.
    pub fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        match self {
            Self::WebSocket(_) => None,
            Self::Stream(framing) => framing.cursor_mut(),
        }
    }

    /// Takes what the socket gave, which may be changed in place, and calls `on` for each thing that is complete.
    ///
    /// # Errors
    /// Why the connection has to be closed.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        limits: &Limits,
        now_ms: u64,
        on: &mut dyn FnMut(Arrival<'_>),
    ) -> Result<(), CloseReason> {
        match self {
            Self::WebSocket(reader) => reader.feed(input, limits, now_ms, &mut |incoming| {
                on(match incoming {
                    Incoming::Text(text) => Arrival::Message(Message::Text(text)),
                    Incoming::Binary(bytes) => Arrival::Message(Message::Binary(bytes)),
                    Incoming::Ping(payload) => Arrival::Ping(payload),
                    Incoming::Pong => Arrival::Pong,
                    Incoming::Close(close) => Arrival::Close(close),
                });
                ControlFlow::Continue(())
            }),
            Self::Stream(framing) => framing.feed(input, limits, now_ms, &mut |message| on(Arrival::Message(message))),
        }
    }

    /// Since when something is half received, by the clock of [`Self::feed`].
    #[must_use]
    pub fn partial_since_ms(&self) -> Option<u64> {
        match self {
            Self::WebSocket(reader) => reader.partial_since_ms(),
            Self::Stream(framing) => framing.partial_since_ms(),
        }
    }

    /// Lets the time of what is half received start anew with the next bytes.
    pub fn stop_clock(&mut self) {
        match self {
            Self::WebSocket(reader) => reader.stop_clock(),
            Self::Stream(framing) => framing.stop_clock(),
        }
    }
}

/// The answer to a peer's close frame.
pub(super) fn close_answer(close: CloseFrame) -> crate::session::Frame {
    match close.code {
        Some(code) => frame::close(code, ""),
        None => frame::close_without_code(),
    }
}
