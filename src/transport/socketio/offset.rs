//! The offset behind each event, by which a client comes back: the session's cursor as one short text.
//!
//! Base64url of: the version of this format, the mark of the session, the version of its rooms as a varint, and the positions as
//! a [`vector`]. About 20 characters, and 14 for each room.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::encoding::encode_varint;

use crate::digest::Digest;
use crate::session::recovery::{Claim, Pid, Recovery, ShownOffset};
use crate::transport::vector;

/// The first byte. Another number is another format; 1 is that of event streams.
const VERSION: u8 = 2;

/// The most rooms of one offset, which goes with each event. Of a session in more rooms no offset names any, so it is not
/// recovered.
pub(super) const ROOMS_MAX: usize = 32;

/// Appends the offset of a session; nothing where it is not kept.
pub(super) fn write(recovery: &Recovery, out: &mut Vec<u8>) {
    let Some(ticket) = &recovery.ticket else { return };
    let mut bytes = Vec::with_capacity(64);
    bytes.push(VERSION);
    bytes.extend_from_slice(&ticket.mark);
    encode_varint(recovery.version, &mut bytes);
    let count = recovery.cursor.positions().take(ROOMS_MAX + 1).count();
    let named = if count > ROOMS_MAX { 0 } else { count };
    vector::write(recovery.cursor.positions().take(named), &mut bytes);
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = URL_SAFE_NO_PAD.encode_slice(&bytes, &mut out[start..]);
    out.truncate(start + written.expect("base64 takes four bytes for three"));
}

/// Reads an offset; `None` for any other text.
fn parse(shown: &str) -> Option<ShownOffset> {
    let bytes = URL_SAFE_NO_PAD.decode(shown).ok()?;
    let mut bytes = vector::Bytes(bytes.strip_prefix(&[VERSION])?);
    Some(ShownOffset {
        mark: bytes.array()?,
        version: bytes.number()?,
        positions: vector::read(bytes.0, ROOMS_MAX)?,
    })
}

/// Reads the claim of a client; `None` where the secret is none of ours.
pub(super) fn claim(pid: &str, shown: Option<&str>) -> Option<Claim> {
    let shown = shown.unwrap_or_default();
    let mut digest = Digest::default();
    digest.add(shown.as_bytes());
    Some(Claim {
        pid: Pid::parse(pid)?,
        offset: parse(shown),
        digest: digest.mixed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Epoch, Offset, Position};
    use crate::room::{Room, Tenant};
    use crate::session::RoomTag;

    fn room(number: usize) -> Room {
        Room::parse(&Tenant::default(), &format!("r{number}")).unwrap()
    }

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::from_bits(7),
            offset: Offset(offset),
        }
    }

    fn recovery(rooms: usize) -> Recovery {
        let mut recovery = Recovery {
            ticket: Some(Pid::random().into()),
            version: 300,
            ..Recovery::default()
        };
        for number in 0..rooms {
            recovery.cursor.enter(&room(number), Some(at(number as u64)));
        }
        recovery
    }

    fn text(recovery: &Recovery) -> String {
        let mut out = Vec::new();
        write(recovery, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_offset_is_read_back() {
        for rooms in [0, 1, 2, ROOMS_MAX] {
            let recovery = recovery(rooms);
            let claim = claim(&Pid::random().to_string(), Some(&text(&recovery))).unwrap();
            let offset = claim.offset.unwrap();
            assert_eq!((offset.mark, offset.version), (recovery.ticket.unwrap().mark, 300));
            let expected: Vec<_> = (0..rooms).map(|n| (RoomTag::of(&room(n)), at(n as u64))).collect();
            assert_eq!(offset.positions, expected);
        }
        assert_eq!(text(&recovery(1)).len(), 32);
    }

    #[test]
    fn a_session_in_too_many_rooms_names_none() {
        let shown = text(&recovery(ROOMS_MAX + 1));
        assert_eq!(parse(&shown).unwrap().positions, []);
        assert_eq!(text(&Recovery::default()), "");
    }

    #[test]
    fn another_text_is_no_offset_and_another_secret_no_claim() {
        let pid = Pid::random().to_string();
        let other = |shown| claim(&pid, shown).unwrap();
        for shown in [None, Some(""), Some("AQA"), Some("é"), Some("Ag"), Some("AgAAAAAB")] {
            assert_eq!(other(shown).offset, None, "{shown:?}");
        }
        assert_ne!(other(Some("a")).digest, other(Some("b")).digest);
        assert_eq!(claim("x", None), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(shown in ".{0,60}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = parse(&shown);
            let _ = parse(&URL_SAFE_NO_PAD.encode([&[VERSION], &bytes[..]].concat()));
        }
    }
}
