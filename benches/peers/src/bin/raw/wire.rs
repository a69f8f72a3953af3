//! The little of HTTP/1.1 and RFC 6455 that the limit needs: an upgrade answered, frames made, control frames found.

use std::borrow::Cow;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Bytes of a client's unfinished request or frame that are kept; more ends the connection.
pub const UNFINISHED_BYTES_MAX: usize = 64 << 10;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// The client broke the protocol; its connection ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// An upgrade request: the rooms it names, the answer it wants, and its length.
#[derive(Debug)]
pub struct Upgrade<'a> {
    pub rooms: Vec<Cow<'a, str>>,
    pub response: String,
    pub length: usize,
}

/// Reads an upgrade request; nothing if it is not whole yet.
pub fn upgrade(bytes: &[u8]) -> Result<Option<Upgrade<'_>>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() <= UNFINISHED_BYTES_MAX => return Ok(None),
        _ => return Err(Broken),
    };
    let query = request
        .path
        .and_then(|path| path.split_once('?'))
        .map_or("", |(_, query)| query);
    let rooms = form_urlencoded::parse(query.as_bytes())
        .filter_map(|(name, room)| (name == "room").then_some(room))
        .collect();
    let key = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"))
        .ok_or(Broken)?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n",
        derive_accept_key(key.value)
    );
    Ok(Some(Upgrade {
        rooms,
        response,
        length,
    }))
}

/// Appends a text frame, as all members get it: a server does not mask.
#[expect(clippy::cast_possible_truncation, reason = "each arm holds only lengths that fit")]
pub fn push_text(frames: &mut Vec<u8>, text: &str) {
    frames.reserve(10 + text.len());
    frames.push(TEXT);
    match text.len() {
        length @ 0..126 => frames.push(length as u8),
        length @ 126..=0xffff => {
            frames.push(126);
            frames.extend((length as u16).to_be_bytes());
        }
        length => {
            frames.push(127);
            frames.extend((length as u64).to_be_bytes());
        }
    }
    frames.extend(text.as_bytes());
}

/// What a client's frame asks of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    Pong(Vec<u8>),
    Close(Vec<u8>),
}

/// Takes the first whole frame off the front of `bytes`; nothing if more has to be read first.
pub fn frame(bytes: &mut &[u8]) -> Result<Option<Asked>, Broken> {
    let Some(([first, second], rest)) = bytes.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let (length, rest) = match second & 0x7f {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u16::from_be_bytes(*length).into(), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    let is_masked = second & 0x80 != 0;
    let length = usize::try_from(length).map_err(|_| Broken)?;
    if !is_masked || length > UNFINISHED_BYTES_MAX {
        return Err(Broken);
    }
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let Some((payload, after)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    *bytes = after;
    Ok(Some(match first & 0x0f {
        0x8 => Asked::Close(answer(CLOSE, *mask, payload)?),
        0x9 => Asked::Pong(answer(PONG, *mask, payload)?),
        _ => Asked::Nothing,
    }))
}

/// A control frame with the payload of the one it answers.
fn answer(first: u8, mask: [u8; 4], payload: &[u8]) -> Result<Vec<u8>, Broken> {
    let length = u8::try_from(payload.len())
        .ok()
        .filter(|length| *length < 126)
        .ok_or(Broken)?;
    let mut frame = vec![first, length];
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_names_its_rooms_and_gets_the_key_of_the_rfc() {
        let request =
            b"GET /?room=a%3A1&x=y&room=b HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nrest";
        for end in 0..request.len() - 4 {
            assert!(upgrade(&request[..end]).unwrap().is_none(), "{end} bytes");
        }
        let got = upgrade(request).unwrap().unwrap();
        assert_eq!(got.rooms, ["a:1", "b"]);
        assert!(got.response.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(got.length, request.len() - 4);
    }

    #[test]
    fn what_is_no_upgrade_is_refused() {
        assert!(upgrade(b"GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(upgrade(b"\x00\x01").is_err());
    }

    #[test]
    fn a_length_takes_the_shortest_form() {
        for (length, header) in [
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut frames = Vec::new();
            push_text(&mut frames, &"x".repeat(length));
            assert_eq!(frames[..header.len()], header);
            assert_eq!(frames.len(), header.len() + length);
        }
    }

    #[test]
    fn frames_are_taken_whole_and_answered() {
        let frames = [
            0x89,
            0x81,
            1,
            2,
            3,
            4,
            b'x' ^ 1,
            0x81,
            0x80,
            0,
            0,
            0,
            0,
            0x88,
            0x80,
            0,
            0,
            0,
            0,
        ];
        for end in 0..7 {
            assert_eq!(frame(&mut &frames[..end]), Ok(None), "{end} bytes");
        }
        let mut rest = frames.as_slice();
        assert_eq!(frame(&mut rest), Ok(Some(Asked::Pong(vec![0x8a, 1, b'x']))));
        assert_eq!(frame(&mut rest), Ok(Some(Asked::Nothing)));
        assert_eq!(frame(&mut rest), Ok(Some(Asked::Close(vec![0x88, 0]))));
        assert_eq!(frame(&mut rest), Ok(None));
        assert_eq!(frame(&mut [0x81, 0, 0, 0, 0, 0].as_slice()), Err(Broken));
    }
}
