//! The reading end of a stream: the request, as the handler has written it into the opening.

use super::id::{self, LastEventId};
use crate::error::CloseReason;
use crate::session::Cursor;
use crate::transport::carrier::{Framing, Limits, ResponseBody};
use crate::transport::protocol::Message;

/// A stream: the body of a response, and its cursor.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    body: ResponseBody,
    cursor: Option<Cursor>,
}

impl Framing for EventStream {
    /// The first line of the opening is the last event id; the others are commands.
    fn feed(
        &mut self,
        input: &[u8],
        limits: &Limits,
        now_ms: u64,
        on: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), CloseReason> {
        if self.cursor.is_some() {
            return self.body.feed(input, limits, now_ms, on);
        }
        let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
        let shown = std::str::from_utf8(&input[..end]).map_err(|_| CloseReason::InvalidUtf8)?;
        self.cursor = Some(match id::parse(shown) {
            LastEventId::From(cursor) => cursor,
            LastEventId::End => Cursor::foreign(),
        });
        self.body.feed(&input[end..], limits, now_ms, on)
    }

    fn partial_since_ms(&self) -> Option<u64> {
        None
    }

    fn stop_clock(&mut self) {}

    fn is_one_way(&self) -> bool {
        true
    }

    fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        self.cursor.as_mut()
    }
}
