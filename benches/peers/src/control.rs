//! The control connection: `u32` length of the rest, `u16` length of the room, room, text; big endian.
//!
//! It is the bench's own and trusted: a length that makes no sense ends the connection, not more.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest message taken; a length above it is a mistake of the sender.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Asked for in one read.
const READ_BYTES: usize = 64 << 10;

/// One text for the members of one room.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The room's name.
    pub room: &'a str,
    /// What every member gets, exactly.
    pub text: &'a str,
}

/// Takes the first whole message off the front of `bytes`; nothing if more has to be read first.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] if the lengths contradict each other or something is not UTF-8.
pub fn decode<'a>(bytes: &mut &'a [u8]) -> io::Result<Option<Publish<'a>>> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(invalid("a message is too long"));
    }
    let Some((message, after)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    let (room, text) = message
        .split_first_chunk::<2>()
        .and_then(|(room_length, rest)| rest.split_at_checked(u16::from_be_bytes(*room_length).into()))
        .ok_or_else(|| invalid("a room is longer than its message"))?;
    *bytes = after;
    Ok(Some(Publish {
        room: text_of(room)?,
        text: text_of(text)?,
    }))
}

fn text_of(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| invalid("rooms and texts are UTF-8"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads publishes one by one, for peers on tokio.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that were handed out.
    taken: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads from a control connection.
    pub fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::with_capacity(READ_BYTES),
            taken: 0,
        }
    }

    /// The next room and text; nothing at the end of the connection.
    ///
    /// # Errors
    ///
    /// The kernel's, and those of [`decode`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> io::Result<Option<(String, String)>> {
        loop {
            let mut rest = &self.buffer[self.taken..];
            if let Some(publish) = decode(&mut rest)? {
                let owned = (publish.room.to_owned(), publish.text.to_owned());
                self.taken = self.buffer.len() - rest.len();
                return Ok(Some(owned));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            self.buffer.reserve(READ_BYTES);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// The message that [`decode`] reads back.
///
/// # Panics
///
/// If the room or the text is longer than its length can say.
#[must_use]
pub fn encode(publish: &Publish<'_>) -> Vec<u8> {
    let room_length = u16::try_from(publish.room.len()).expect("a room of at most 64 KiB");
    let length = u32::try_from(2 + publish.room.len() + publish.text.len()).expect("a text of at most 4 GiB");
    let mut message = Vec::with_capacity(4 + 2 + publish.room.len() + publish.text.len());
    message.extend(length.to_be_bytes());
    message.extend(room_length.to_be_bytes());
    message.extend(publish.room.as_bytes());
    message.extend(publish.text.as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_one_by_one_and_never_in_part() {
        let first = encode(&Publish { room: "a", text: "one" });
        let second = encode(&Publish { room: "b", text: "" });
        let both = [first.as_slice(), second.as_slice()].concat();
        for end in 0..both.len() {
            let mut bytes = &both[..end];
            let got = decode(&mut bytes).unwrap();
            assert_eq!(got.is_some(), end >= first.len(), "{end} bytes");
        }
        let mut bytes = both.as_slice();
        assert_eq!(decode(&mut bytes).unwrap(), Some(Publish { room: "a", text: "one" }));
        assert_eq!(decode(&mut bytes).unwrap(), Some(Publish { room: "b", text: "" }));
        assert_eq!(decode(&mut bytes).unwrap(), None);
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused() {
        assert!(decode(&mut [0, 0, 0, 2, 0, 1].as_slice()).is_err());
        assert!(decode(&mut [0, 0, 0, 1, 0].as_slice()).is_err());
        assert!(decode(&mut [255, 255, 255, 255].as_slice()).is_err());
    }
}
