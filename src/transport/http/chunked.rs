//! The chunked transfer coding (RFC 9112 section 7.1): how frames of a shard make up the body of a response.
//!
//! The coding is part of the frame, so it is done once for all who get it, and a body that a shard writes costs what a
//! WebSocket costs.

use std::io::Write as _;

use crate::session::Frame;

/// Ends a body. A body without it was cut off.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// One chunk. Nothing makes none: an empty chunk would end the body.
#[must_use]
pub fn chunk(content: &[u8]) -> Frame {
    if content.is_empty() {
        return Frame::new();
    }
    framed(content, b"")
}

/// The last chunk and the end of the body.
#[must_use]
pub fn last_chunk(content: &[u8]) -> Frame {
    if content.is_empty() {
        return Frame::from_static(LAST);
    }
    framed(content, LAST)
}

fn framed(content: &[u8], end: &[u8]) -> Frame {
    /// Sixteen digits and two line ends.
    const AROUND_MAX: usize = 20;
    let mut frame = Vec::with_capacity(content.len() + AROUND_MAX + end.len());
    write!(frame, "{:x}\r\n", content.len()).expect("a vector takes every byte");
    frame.extend_from_slice(content);
    frame.extend_from_slice(b"\r\n");
    frame.extend_from_slice(end);
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_chunk_ends_the_body() {
        assert_eq!(chunk(b"seventeen letters"), "11\r\nseventeen letters\r\n");
        assert_eq!(chunk(b""), "");
        assert_eq!(last_chunk(b"bye"), "3\r\nbye\r\n0\r\n\r\n");
        assert_eq!(last_chunk(b""), "0\r\n\r\n");
    }
}
