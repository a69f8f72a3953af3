//! The server's frames: final, unmasked, without extensions.

use bytes::{Buf as _, Bytes};

use crate::transport::prefix;

/// First byte of a frame (RFC 6455 section 5.2): FIN and the opcode.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
/// The first fragment of a text, and its last one (RFC 6455 section 5.4).
const OPEN_TEXT: u8 = 0x01;
const TAIL: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The longest header of an unmasked frame, in bytes.
const HEAD_BYTES_MAX: usize = 10;

/// The longest payload of a control frame, in bytes (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Writes one data frame without copying its body: room for the header is reserved in front.
#[derive(Debug)]
pub struct FrameWriter(Vec<u8>);

impl FrameWriter {
    /// Begins a frame whose body is expected to have this many bytes.
    #[must_use]
    pub fn with_capacity(body_bytes: usize) -> Self {
        let mut frame = Vec::with_capacity(HEAD_BYTES_MAX + body_bytes);
        frame.resize(HEAD_BYTES_MAX, 0);
        Self(frame)
    }

    /// Returns the buffer to which the body is appended. Its present content must stay.
    pub const fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Finishes the frame as a text message.
    #[must_use]
    pub fn text(self) -> Bytes {
        self.finish(TEXT)
    }

    /// Finishes the frame as the first fragment of a text message, which a [tail](Self::tail) completes.
    #[must_use]
    pub fn open_text(self) -> Bytes {
        self.finish(OPEN_TEXT)
    }

    /// Finishes the frame as the last fragment of a message.
    #[must_use]
    pub fn tail(self) -> Bytes {
        self.finish(TAIL)
    }

    /// Finishes the frame as a binary message.
    #[must_use]
    pub fn binary(self) -> Bytes {
        self.finish(BINARY)
    }

    fn finish(mut self, first: u8) -> Bytes {
        let (head, len) = head(first, self.0.len() - HEAD_BYTES_MAX);
        let start = HEAD_BYTES_MAX - len;
        self.0[start..HEAD_BYTES_MAX].copy_from_slice(&head[..len]);
        Bytes::from(self.0).slice(start..)
    }
}

/// Returns the header of a frame, and the number of its bytes.
fn head(first: u8, body_bytes: usize) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [0; HEAD_BYTES_MAX];
    head[0] = first;
    let len = match (u8::try_from(body_bytes), u16::try_from(body_bytes)) {
        (Ok(short @ ..=125), _) => {
            head[1] = short;
            2
        }
        (_, Ok(middle)) => {
            head[1] = 126;
            head[2..4].copy_from_slice(&middle.to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(body_bytes as u64).to_be_bytes());
            10
        }
    };
    (head, len)
}

fn frame(first: u8, body: &[u8]) -> Bytes {
    let mut writer = FrameWriter::with_capacity(body.len());
    writer.body().extend_from_slice(body);
    writer.finish(first)
}

/// Builds a text message.
#[must_use]
pub fn text_frame(body: &str) -> Bytes {
    frame(TEXT, body.as_bytes())
}

/// Builds a binary message.
#[must_use]
pub fn binary_frame(body: &[u8]) -> Bytes {
    frame(BINARY, body)
}

/// Builds a ping without a payload.
#[must_use]
pub const fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0])
}

/// Builds a pong with the payload of the ping, truncated after 125 bytes.
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, &payload[..payload.len().min(CONTROL_BYTES_MAX)])
}

/// Builds a close frame with a code and a text, which is truncated to what a control frame can hold.
#[must_use]
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut body = code.to_be_bytes().to_vec();
    body.extend_from_slice(prefix(reason, CONTROL_BYTES_MAX - body.len()).as_bytes());
    frame(CLOSE, &body)
}

/// Builds a close frame without a code: the reply to one.
#[must_use]
pub const fn close_without_code() -> Bytes {
    Bytes::from_static(&[CLOSE, 0])
}

/// A frame of [`FrameWriter`], read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The body of a text message.
    Text(Bytes),
    /// The body of a binary message.
    Binary(Bytes),
    /// The first part of a text message's body.
    OpenText(Bytes),
    /// The last part of a message's body.
    Tail(Bytes),
    /// A close frame, a ping or a pong.
    Control,
}

/// Reports whether a run of frames begins with the first fragment of a message.
#[must_use]
pub fn is_open(frames: &[u8]) -> bool {
    frames.first() == Some(&OPEN_TEXT)
}

/// Reports whether a run of frames begins with the last fragment of a message.
#[must_use]
pub fn is_tail(frames: &[u8]) -> bool {
    frames.first() == Some(&TAIL)
}

/// Takes the first frame off a run of frames that were written here; `None` when there is none, or part of one.
pub fn split_first(frames: &mut Bytes) -> Option<Written> {
    let (first, second) = (*frames.first()?, *frames.get(1)?);
    let (head, body) = match second {
        short @ ..=125 => (2, usize::from(short)),
        126 => (4, usize::from(u16::from_be_bytes(*frames.get(2..)?.first_chunk()?))),
        _ => (
            10,
            usize::try_from(u64::from_be_bytes(*frames.get(2..)?.first_chunk()?)).ok()?,
        ),
    };
    if frames.len() - head.min(frames.len()) < body || frames.len() < head {
        return None;
    }
    frames.advance(head);
    let body = frames.split_to(body);
    Some(match first {
        TEXT => Written::Text(body),
        BINARY => Written::Binary(body),
        OPEN_TEXT => Written::OpenText(body),
        TAIL => Written::Tail(body),
        _ => Written::Control,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_frames_are_read_back() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let mut run = [text_frame(&"x".repeat(len)), binary_frame(&vec![7; len]), ping()]
                .concat()
                .into();
            assert_eq!(split_first(&mut run), Some(Written::Text("x".repeat(len).into())));
            assert_eq!(split_first(&mut run), Some(Written::Binary(vec![7; len].into())));
            assert_eq!(split_first(&mut run), Some(Written::Control));
            assert_eq!(split_first(&mut run), None);
            let whole = text_frame(&"x".repeat(len));
            let mut cut = whole.slice(..whole.len() - 1);
            assert_eq!(split_first(&mut cut), None, "{len}");
        }
    }
}
