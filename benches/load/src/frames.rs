//! Framing without IO. Reads a server's WebSocket frames (RFC 6455 section 5), blocks of an event stream and HTTP responses;
//! writes the frames of a client's commands.
//!
//! The opposite of what the gateway has: nothing is checked that a load generator need not know, and a connection keeps
//! bytes only of a frame that came in part.

/// The longest frame a server may send here.
const FRAME_BYTES_MAX: u64 = 4 << 20;

/// Any key will do: on a loopback there are no proxies to protect.
const MASK: [u8; 4] = [0x52, 0x6f, 0x6f, 0x6d];

/// In place of a length: it follows, in 2 or in 8 bytes.
const LENGTH_16: u8 = 0x7e;
const LENGTH_64: u8 = 0x7f;

/// The rest of a message that came in two frames.
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// The way a server marks where a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Frames of a WebSocket.
    WebSocket,
    /// Blocks of an event stream, each ended by an empty line.
    Blocks,
    /// Responses of HTTP with a `Content-Length`.
    Responses,
}

/// A whole frame of a server. A block is text without its end; a response is text with its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
}

/// The server does not speak the protocol as it is used here: unmasked frames, whole messages, no extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// The received part of an incomplete frame. Takes memory only then.
#[derive(Debug, Default)]
pub(super) struct Remainder(Vec<u8>);

impl Remainder {
    /// Takes bytes as they came and hands out each frame that they complete, until one breaks it off with an error.
    pub(super) fn feed<E: From<Broken>>(
        &mut self,
        framing: Framing,
        input: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut joined = std::mem::take(&mut self.0);
        let mut bytes = input;
        if !joined.is_empty() {
            joined.extend_from_slice(input);
            bytes = &joined;
        }
        while let Some((frame, length)) = framing.first(bytes)? {
            each(frame)?;
            bytes = &bytes[length..];
        }
        if !bytes.is_empty() {
            self.0 = bytes.to_vec();
        }
        Ok(())
    }
}

impl Framing {
    /// The frame at the beginning, and how long it is; none while it is not whole.
    fn first(self, bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Broken> {
        let text = |payload| Frame { opcode: TEXT, payload };
        match self {
            Self::WebSocket => first(bytes),
            Self::Blocks => Ok(find(bytes, b"\n\n").map(|end| (text(&bytes[..end]), end + 2))),
            Self::Responses => {
                let Some(body) = find(bytes, HEAD_END).map(|end| end + HEAD_END.len()) else {
                    return Ok(None);
                };
                let end = body + content_length(&bytes[..body]).ok_or(Broken)?;
                Ok(bytes.get(..end).map(|response| (text(response), end)))
            }
        }
    }
}

/// Ends the head of a response.
pub(super) const HEAD_END: &[u8] = b"\r\n\r\n";

pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = str::from_utf8(head).ok()?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    length.trim().parse().ok()
}

fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Broken> {
    let &[flags, length, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    // A message may come in two frames; no extension is in use.
    if flags & 0x70 != 0 || length & 0x80 != 0 {
        return Err(Broken);
    }
    let (length, head) = match length {
        LENGTH_16 => match rest.first_chunk() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 4),
            None => return Ok(None),
        },
        LENGTH_64 => match rest.first_chunk() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 10),
            None => return Ok(None),
        },
        length => (u64::from(length), 2),
    };
    if length > FRAME_BYTES_MAX {
        return Err(Broken);
    }
    let end = head + usize::try_from(length).map_err(|_| Broken)?;
    let payload = bytes.get(head..end);
    let opcode = flags & 0x0f;
    Ok(payload.map(|payload| (Frame { opcode, payload }, end)))
}

/// A frame of a client: whole and masked.
pub(super) fn write(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | LENGTH_16);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | LENGTH_64);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// As a server writes it.
    fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let masked = write(opcode, payload);
        let head = masked.len() - payload.len() - MASK.len();
        let mut frame = masked[..head].to_vec();
        frame[1] &= 0x7f;
        frame.extend(payload);
        frame
    }

    fn read(remainder: &mut Remainder, input: &[u8], into: &mut Vec<(u8, Vec<u8>)>) -> Result<(), Broken> {
        remainder.feed(Framing::WebSocket, input, |frame| {
            into.push((frame.opcode, frame.payload.to_vec()));
            Ok(())
        })
    }

    #[test]
    fn lengths_of_each_size_are_read() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; length];
            let mut read_back = Vec::new();
            let mut remainder = Remainder::default();
            read(&mut remainder, &unmasked(TEXT, &payload), &mut read_back).unwrap();
            assert_eq!(read_back, [(TEXT, payload)]);
            assert!(remainder.0.is_empty());
        }
    }

    #[test]
    fn what_no_server_of_ours_sends_is_broken() {
        for bytes in [&[0xc1, 0][..], &[0x81, 0x80], &[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(first(bytes), Err(Broken), "{bytes:?}");
        }
    }

    #[test]
    fn blocks_and_responses_are_told_apart_wherever_reads_are_cut() {
        let blocks = b"retry: 1\n\n:\n\n".as_slice();
        let responses =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".as_slice();
        for (framing, bytes, expected) in [
            (Framing::Blocks, blocks, vec![&blocks[..8], b":"]),
            (Framing::Responses, responses, vec![&responses[..40], &responses[40..]]),
        ] {
            for cut in 0..bytes.len() {
                let (mut remainder, mut read) = (Remainder::default(), Vec::new());
                for part in [&bytes[..cut], &bytes[cut..]] {
                    let fed = remainder.feed(framing, part, |frame| {
                        read.push(frame.payload.to_vec());
                        Ok::<_, Broken>(())
                    });
                    fed.unwrap();
                }
                assert_eq!(read, expected, "{framing:?} cut at {cut}");
            }
        }
        assert_eq!(Framing::Responses.first(b"HTTP/1.1 200 OK\r\n\r\n"), Err(Broken));
    }

    #[test]
    fn a_client_frame_is_masked() {
        assert_eq!(write(TEXT, &[0; 4]), [&[0x81, 0x84], &MASK[..], &MASK[..]].concat());
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_wherever_reads_are_cut(
            sent in vec((1_u8..=10, vec(any::<u8>(), 0..300)), 0..20),
            cuts in vec(1_usize..200, 1..50),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|(opcode, payload)| unmasked(*opcode, payload)).collect();
            let (mut remainder, mut received, mut rest) = (Remainder::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (input, later) = rest.split_at((*cut).min(rest.len()));
                read(&mut remainder, input, &mut received).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(remainder.0.is_empty());
        }

        #[test]
        fn no_bytes_at_all_make_it_panic(reads in vec(vec(any::<u8>(), 0..64), 0..8)) {
            let (mut remainder, mut received) = (Remainder::default(), Vec::new());
            for input in reads {
                if read(&mut remainder, &input, &mut received).is_err() {
                    break;
                }
            }
        }
    }
}
