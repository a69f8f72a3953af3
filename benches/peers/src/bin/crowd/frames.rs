//! WebSocket frames, as a client sees them.

pub const TEXT: u8 = 0x1;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// Appends a frame under a mask of zeros: allowed, and nobody is between us and the server.
#[expect(clippy::cast_possible_truncation, reason = "each arm holds only lengths that fit")]
pub fn push(to: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    to.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => to.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            to.push(0xfe);
            to.extend((length as u16).to_be_bytes());
        }
        _ => unreachable!("nothing so long is said here"),
    }
    to.extend([0; 4]);
    to.extend(payload);
}

/// Takes the first whole frame off the front of `bytes`: its opcode and payload. A server does not mask.
pub fn take<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let ([first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        length => (usize::from(length), rest),
    };
    let (payload, after) = rest.split_at_checked(length)?;
    *bytes = after;
    Some((first & 0x0f, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let mut frames = vec![0x81, 1, b'a', 0x89, 126, 0, 200];
        frames.extend([7; 200]);
        assert_eq!(take(&mut &frames[..2]), None);
        assert_eq!(take(&mut &frames[3..206]), None);
        let mut rest = frames.as_slice();
        assert_eq!(take(&mut rest), Some((TEXT, b"a".as_slice())));
        assert_eq!(take(&mut rest), Some((PING, [7; 200].as_slice())));
        assert_eq!(take(&mut rest), None);
    }

    #[test]
    fn what_is_said_is_masked_with_zeros() {
        let mut frame = Vec::new();
        push(&mut frame, PONG, b"a");
        assert_eq!(frame, [0x8a, 0x81, 0, 0, 0, 0, b'a']);
        frame.clear();
        push(&mut frame, TEXT, &[b'x'; 300]);
        assert_eq!(frame[..8], [0x81, 0xfe, 1, 44, 0, 0, 0, 0]);
    }
}
