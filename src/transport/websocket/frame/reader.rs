//! Reads a client's frames in place.

use std::io::Cursor;
use std::mem;
use std::ops::ControlFlow;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::mask::Mask;
use super::message::{Message, MessageKind};
use super::{CloseFrame, Incoming, Limits};
use crate::error::CloseReason;

/// The longest header of a masked frame, in bytes (RFC 6455 section 5.2).
const HEAD_BYTES_MAX: usize = 14;

/// The longest payload of a control frame, in bytes (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Receiver of messages; `Break` ends the reading.
type Sink<'s> = &'s mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>;

/// The reading end of one connection. Empty, and a single pointer, while nothing is half received.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Option<Box<Partial>>,
}

/// Half received data: of a frame's header, of a control frame, of a message.
#[derive(Debug)]
struct Partial {
    since_ms: Option<u64>,
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Message>,
}

/// A frame whose header is complete.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    mask: Mask,
    /// Payload bytes still to come.
    remaining: usize,
}

/// Received bytes that are not read yet.
struct Input<'i>(&'i mut [u8]);

impl<'i> Input<'i> {
    /// Takes the next bytes, as many as are there.
    fn take(&mut self, bytes_max: usize) -> &'i mut [u8] {
        let here = bytes_max.min(self.0.len());
        let (taken, rest) = mem::take(&mut self.0).split_at_mut(here);
        self.0 = rest;
        taken
    }
}

impl Reader {
    /// Reads received bytes, which are unmasked in place, and calls `on` for each complete message or control frame, in
    /// order. `now_ms` is any monotonic clock.
    ///
    /// After a close frame, and after `on` returned `Break`, the rest of the input is dropped. Nothing should be fed then,
    /// nor after an error.
    ///
    /// # Errors
    /// The reason to close the connection: [`CloseReason::ProtocolError`], [`CloseReason::InvalidUtf8`],
    /// [`CloseReason::MessageTooBig`], or [`CloseReason::PolicyViolation`] for too many fragments and too slow messages.
    pub fn feed(&mut self, input: &mut [u8], limits: &Limits, now_ms: u64, on: Sink<'_>) -> Result<(), CloseReason> {
        self.check_duration(limits, now_ms)?;
        let mut input = Input(input);
        while let Some(mut frame) = self.next_frame(&mut input, limits, now_ms)? {
            let payload = input.take(frame.remaining);
            frame.mask.apply(payload);
            frame.remaining -= payload.len();
            let flow = match frame.opcode {
                OpCode::Control(kind) => self.control(kind, frame, payload, now_ms, on)?,
                OpCode::Data(kind) => self.data(kind, frame, payload, now_ms, on)?,
            };
            if flow.is_break() {
                self.partial = None;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the start of half received data, by the clock of [`Self::feed`]; `None` at rest and after
    /// [`Self::stop_clock`]. Serves to close connections that fall silent halfway.
    #[must_use]
    pub fn partial_since_ms(&self) -> Option<u64> {
        self.partial.as_ref().and_then(|partial| partial.since_ms)
    }

    /// Stops the clock of half received data while the gateway itself does not read. It restarts with the next bytes.
    pub fn stop_clock(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.since_ms = None;
        }
    }

    fn check_duration(&mut self, limits: &Limits, now_ms: u64) -> Result<(), CloseReason> {
        let Some(partial) = &mut self.partial else {
            return Ok(());
        };
        let taken = now_ms.saturating_sub(*partial.since_ms.get_or_insert(now_ms));
        if u128::from(taken) > limits.message_duration_max.as_millis() {
            return Err(CloseReason::PolicyViolation);
        }
        Ok(())
    }

    /// Returns the frame of the next bytes; `None` when the input is used up.
    fn next_frame(
        &mut self,
        input: &mut Input<'_>,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<Option<Frame>, CloseReason> {
        let begun = self
            .partial
            .as_mut()
            .and_then(|partial| partial.frame.take_if(|_| !input.0.is_empty()));
        if begun.is_some() || input.0.is_empty() {
            return Ok(begun);
        }
        let Some(frame) = self.read_head(input, now_ms)? else {
            return Ok(None);
        };
        self.admit(&frame, limits)?;
        Ok(Some(frame))
    }

    /// Reads a header, of which a part may have been received before. Keeps an incomplete one.
    fn read_head(&mut self, input: &mut Input<'_>, now_ms: u64) -> Result<Option<Frame>, CloseReason> {
        let kept = self.partial.as_ref().map_or(0, |partial| partial.head_len);
        if kept == 0
            && let Some((frame, len)) = Frame::parse(input.0)?
        {
            input.take(len);
            return Ok(Some(frame));
        }
        let partial = self.partial(now_ms);
        let end = HEAD_BYTES_MAX.min(kept + input.0.len());
        partial.head[kept..end].copy_from_slice(&input.0[..end - kept]);
        let parsed = Frame::parse(&partial.head[..end])?;
        partial.head_len = if parsed.is_some() { 0 } else { end };
        input.take(parsed.map_or(end, |(_, len)| len) - kept);
        Ok(parsed.map(|(frame, _)| frame))
    }

    /// Refuses a frame that is not allowed now, or that makes its message too long, before any of it is kept.
    fn admit(&mut self, frame: &Frame, limits: &Limits) -> Result<(), CloseReason> {
        let message = self.partial.as_mut().and_then(|partial| partial.message.as_mut());
        let (bytes, fragments) = match (frame.opcode, message) {
            (OpCode::Control(_), _) => return Ok(()),
            (OpCode::Data(Data::Continue), Some(message)) => {
                message.fragments += 1;
                (message.bytes.len(), message.fragments)
            }
            (OpCode::Data(Data::Continue), None) | (OpCode::Data(_), Some(_)) => {
                return Err(CloseReason::ProtocolError);
            }
            (OpCode::Data(_), None) => (0, 1),
        };
        if frame.remaining > limits.message_bytes_max.saturating_sub(bytes) {
            return Err(CloseReason::MessageTooBig);
        }
        if fragments > limits.fragments_max {
            return Err(CloseReason::PolicyViolation);
        }
        Ok(())
    }

    fn control(
        &mut self,
        kind: Control,
        frame: Frame,
        payload: &[u8],
        now_ms: u64,
        on: Sink<'_>,
    ) -> Result<ControlFlow<()>, CloseReason> {
        let begun = self.partial.as_ref().is_some_and(|partial| !partial.control.is_empty());
        if frame.remaining == 0 && !begun {
            self.rest_if_idle();
            return deliver_control(kind, payload, on);
        }
        let partial = self.partial(now_ms);
        partial.control.extend_from_slice(payload);
        if frame.remaining > 0 {
            partial.frame = Some(frame);
            return Ok(ControlFlow::Continue(()));
        }
        let whole = mem::take(&mut partial.control);
        self.rest_if_idle();
        deliver_control(kind, &whole, on)
    }

    fn data(
        &mut self,
        kind: Data,
        frame: Frame,
        payload: &[u8],
        now_ms: u64,
        on: Sink<'_>,
    ) -> Result<ControlFlow<()>, CloseReason> {
        let kind = if kind == Data::Text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        let ends = frame.is_final && frame.remaining == 0;
        let begun = self.partial.as_ref().is_some_and(|partial| partial.message.is_some());
        if ends && !begun {
            self.partial = None;
            return deliver_message(kind, payload, on);
        }
        let partial = self.partial(now_ms);
        let message = partial.message.get_or_insert_with(|| Message::new(kind));
        message.append(payload)?;
        if !ends {
            partial.frame = (frame.remaining > 0).then_some(frame);
            return Ok(ControlFlow::Continue(()));
        }
        let (kind, bytes) = (message.kind, mem::take(&mut message.bytes));
        self.partial = None;
        deliver_message(kind, &bytes, on)
    }

    fn partial(&mut self, now_ms: u64) -> &mut Partial {
        self.partial.get_or_insert_with(|| Box::new(Partial::new(now_ms)))
    }

    /// Frees the box unless a message is incomplete. Only between frames.
    fn rest_if_idle(&mut self) {
        self.partial.take_if(|partial| partial.message.is_none());
    }
}

impl Partial {
    const fn new(since_ms: u64) -> Self {
        Self {
            since_ms: Some(since_ms),
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            frame: None,
            control: Vec::new(),
            message: None,
        }
    }
}

impl Frame {
    /// Parses a header and checks what it alone shows. Also returns its length; `None` when it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, CloseReason> {
        let mut cursor = Cursor::new(bytes);
        let Some((head, payload_bytes)) = FrameHeader::parse(&mut cursor).map_err(|_| CloseReason::ProtocolError)?
        else {
            return Ok(None);
        };
        let head_bytes = head.len(payload_bytes);
        let is_control = matches!(head.opcode, OpCode::Control(_));
        let Some(mask) = head.mask else {
            return Err(CloseReason::ProtocolError);
        };
        // Lengths have one form (section 5.2), and the longest leaves its highest bit free.
        if head.rsv1 || head.rsv2 || head.rsv3 || head_bytes as u64 != cursor.position() || payload_bytes >> 63 != 0 {
            return Err(CloseReason::ProtocolError);
        }
        if is_control && (!head.is_final || payload_bytes > CONTROL_BYTES_MAX as u64) {
            return Err(CloseReason::ProtocolError);
        }
        let frame = Self {
            opcode: head.opcode,
            is_final: head.is_final,
            mask: Mask::new(mask),
            remaining: usize::try_from(payload_bytes).map_err(|_| CloseReason::MessageTooBig)?,
        };
        Ok(Some((frame, head_bytes)))
    }
}

fn deliver_message(kind: MessageKind, bytes: &[u8], on: Sink<'_>) -> Result<ControlFlow<()>, CloseReason> {
    Ok(match kind {
        MessageKind::Binary => on(Incoming::Binary(bytes)),
        MessageKind::Text => on(Incoming::Text(
            std::str::from_utf8(bytes).map_err(|_| CloseReason::InvalidUtf8)?,
        )),
    })
}

fn deliver_control(kind: Control, payload: &[u8], on: Sink<'_>) -> Result<ControlFlow<()>, CloseReason> {
    match kind {
        Control::Ping => Ok(on(Incoming::Ping(payload))),
        Control::Pong => Ok(on(Incoming::Pong)),
        Control::Close => {
            let _ = on(Incoming::Close(close_frame(payload)?));
            Ok(ControlFlow::Break(()))
        }
        Control::Reserved(_) => Err(CloseReason::ProtocolError),
    }
}

fn close_frame(payload: &[u8]) -> Result<CloseFrame, CloseReason> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        // One byte is half a code.
        return if payload.is_empty() {
            Ok(CloseFrame { code: None })
        } else {
            Err(CloseReason::ProtocolError)
        };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(CloseReason::ProtocolError);
    }
    std::str::from_utf8(reason).map_err(|_| CloseReason::InvalidUtf8)?;
    Ok(CloseFrame { code: Some(code) })
}

/// Reports whether a close frame may carry the code (RFC 6455 section 7.4 and the IANA registry built on it).
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_the_bytes_that_came_and_not_the_length_that_was_promised() {
        let promises_60_000 = [0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0];
        let mut input = [&promises_60_000[..], &[0; 12]].concat();
        let mut reader = Reader::default();
        let result = reader.feed(&mut input, &Limits::default(), 0, &mut |_| ControlFlow::Continue(()));
        assert_eq!(result, Ok(()));
        let kept = reader.partial.unwrap().message.unwrap().bytes.capacity();
        assert!(kept < 64, "{kept} bytes kept for 12 received");
    }
}
