//! The body of a polling request or answer: packets joined by a separator (Engine.IO protocol, "HTTP long-polling").
//!
//! Frames are WebSocket frames wherever they are queued, so that what waits for the next poll can go out on the WebSocket after an
//! upgrade. Only an answer to a poll takes them apart.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::packet::{BINARY_MARK, SEPARATOR};
use crate::error::CloseReason;
use crate::session::Frame;
use crate::transport::websocket::frame;

/// The most packets of one answer: python-engineio takes no more, and ends the connection at the seventeenth.
pub(super) const PACKETS_PER_ANSWER: usize = 16;

/// The bytes after which an answer takes no further packet. What is left goes with the next answer.
const ANSWER_BYTES_FULL: usize = 256 * 1024;

/// One packet of a request's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'b> {
    /// A packet as text.
    Text(&'b str),
    /// A binary message.
    Binary(Vec<u8>),
}

/// Splits the body of a request into its packets.
///
/// # Errors
/// [`CloseReason::InvalidUtf8`], [`CloseReason::ProtocolError`] for base64 that cannot be decoded, and
/// [`CloseReason::Flooding`] for more than `packets_max` packets.
pub(super) fn parts(body: &[u8], packets_max: usize) -> Result<Vec<Part<'_>>, CloseReason> {
    let text = std::str::from_utf8(body).map_err(|_| CloseReason::InvalidUtf8)?;
    let mut parts = Vec::new();
    for packet in text.split(SEPARATOR as char) {
        if parts.len() == packets_max {
            return Err(CloseReason::Flooding);
        }
        parts.push(match packet.strip_prefix(BINARY_MARK as char) {
            None => Part::Text(packet),
            Some(encoded) => {
                let decoded = crate::binary::decode(encoded);
                Part::Binary(decoded.map_err(|_| CloseReason::ProtocolError)?.to_vec())
            }
        });
    }
    Ok(parts)
}

/// An answer to a poll in the making.
#[derive(Debug, Default)]
pub(super) struct Answer {
    body: Vec<u8>,
    packets: usize,
}

impl Answer {
    /// Reports whether it takes no further packet.
    pub(super) const fn is_full(&self) -> bool {
        self.packets >= PACKETS_PER_ANSWER || self.body.len() >= ANSWER_BYTES_FULL
    }

    /// Takes packets off the front of a run of WebSocket frames, as many as fit. The run is empty afterwards, or the answer full.
    pub(super) fn take_from(&mut self, frames: &mut Frame) {
        // The end of a packet that was taken goes with it.
        while !frames.is_empty() && (!self.is_full() || frame::is_tail(frames)) {
            let Some(frame) = frame::split_first(frames) else {
                // Only our own writer fills queues; a frame that it cannot read back is dropped with what follows it.
                frames.clear();
                return;
            };
            match frame {
                frame::Written::Text(body) | frame::Written::OpenText(body) => self.push(&body),
                frame::Written::Tail(body) => self.body.extend_from_slice(&body),
                frame::Written::Binary(body) => {
                    let mut packet = vec![BINARY_MARK];
                    packet.extend_from_slice(STANDARD.encode(&body).as_bytes());
                    self.push(&packet);
                }
                // Nothing but data frames means anything to a poll.
                frame::Written::Control => {}
            }
        }
    }

    fn push(&mut self, packet: &[u8]) {
        if self.packets > 0 {
            self.body.push(SEPARATOR);
        }
        self.body.extend_from_slice(packet);
        self.packets += 1;
    }

    /// Returns the body; `None` while it holds no packet.
    pub(super) fn into_body(self) -> Option<Bytes> {
        (self.packets > 0).then(|| self.body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_split_at_separators() {
        let split = parts(b"4hello\x1e2\x1ebAQID\x1eb", 64);
        let expected = vec![
            Part::Text("4hello"),
            Part::Text("2"),
            Part::Binary(vec![1, 2, 3]),
            Part::Binary(vec![]),
        ];
        assert_eq!(split, Ok(expected));
        assert_eq!(parts(b"", 64), Ok(vec![Part::Text("")]));
        assert_eq!(parts(b"4\xff", 64), Err(CloseReason::InvalidUtf8));
        assert_eq!(parts(b"b?", 64), Err(CloseReason::ProtocolError));
        assert_eq!(parts(b"4\x1e4\x1e4", 2), Err(CloseReason::Flooding));
    }

    #[test]
    fn the_end_of_a_packet_goes_with_its_begin_into_an_answer_that_is_full() {
        let part = |text: &str, finish: fn(frame::FrameWriter) -> Bytes| {
            let mut writer = frame::FrameWriter::with_capacity(8);
            writer.body().extend_from_slice(text.as_bytes());
            finish(writer)
        };
        let mut answer = Answer::default();
        for _ in 0..16 {
            answer.take_from(&mut part("42[", frame::FrameWriter::open_text));
            // Each is a frame of its own in the queue.
            answer.take_from(&mut part("]", frame::FrameWriter::tail));
        }
        let mut next = part("42[", frame::FrameWriter::open_text);
        answer.take_from(&mut next);
        assert!(!next.is_empty());
        assert_eq!(answer.into_body().unwrap(), ["42[]"; 16].join("\u{1e}"));
    }

    #[test]
    fn an_answer_takes_sixteen_packets_and_leaves_the_rest() {
        let mut frames = Vec::new();
        for _ in 0..15 {
            frames.extend_from_slice(&frame::text_frame("4x"));
        }
        frames.extend_from_slice(&frame::binary_frame(&[1, 2, 3]));
        frames.extend_from_slice(&frame::text_frame("last"));
        let (mut frames, mut answer) = (Frame::from(frames), Answer::default());
        answer.take_from(&mut frames);
        assert!(answer.is_full());
        assert_eq!(frames, frame::text_frame("last"));
        let expected = format!("{}bAQID", "4x\u{1e}".repeat(15));
        assert_eq!(answer.into_body().unwrap(), expected);
        assert_eq!(Answer::default().into_body(), None);
    }
}
