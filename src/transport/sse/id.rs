//! The `id` of an event: the connection's cursor as one short text, which a browser shows again as `Last-Event-ID`.
//!
//! Base64url of: the version, and the positions as a [`vector`]. About 12 characters, and 14 for each room.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::session::Cursor;
use crate::transport::vector;

/// The first byte. Another number is another format.
const VERSION: u8 = 1;

/// The most rooms of one id: it has to fit into a header. The positions of further rooms are not kept.
const ROOMS_MAX: usize = 256;

/// The first character of an id after which a client is not to come back. No cursor has it: it is not of base64url.
const END: char = '!';

/// The id of the last event of a stream that is not to be opened again.
pub(super) const END_ID: &str = "!";

/// The position from which a client goes on.
#[derive(Debug)]
pub(super) enum LastEventId {
    /// From the cursor that it shows, or from the start.
    From(Cursor),
    /// It was told to end.
    End,
}

/// Parses what a client shows; nothing and an empty text are a client that begins.
pub(super) fn parse(shown: &str) -> LastEventId {
    if shown.starts_with(END) {
        return LastEventId::End;
    }
    if shown.is_empty() {
        return LastEventId::From(Cursor::default());
    }
    LastEventId::From(cursor(shown).unwrap_or_else(Cursor::foreign))
}

fn cursor(shown: &str) -> Option<Cursor> {
    let bytes = URL_SAFE_NO_PAD.decode(shown).ok()?;
    let positions = vector::read(bytes.strip_prefix(&[VERSION])?, ROOMS_MAX)?;
    Some(Cursor::resuming(positions))
}

/// Writes a cursor.
pub(super) fn text(cursor: &Cursor) -> String {
    let mut bytes = vec![VERSION];
    vector::write(cursor.positions().take(ROOMS_MAX), &mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::{Epoch, Offset, Position};
    use crate::room::{Room, Tenant};
    use crate::session::Since;

    fn room(name: &str) -> Room {
        Room::parse(&Tenant::default(), name).unwrap()
    }

    fn at(epoch: u64, offset: u64) -> Position {
        Position {
            epoch: Epoch::from_bits(epoch),
            offset: Offset(offset),
        }
    }

    fn read(shown: &str) -> Cursor {
        match parse(shown) {
            LastEventId::From(cursor) => cursor,
            LastEventId::End => panic!("{shown} is an end"),
        }
    }

    #[test]
    fn one_room_takes_few_characters() {
        let mut cursor = Cursor::default();
        assert_eq!(text(&cursor), "AQA");
        for (number, length) in [(1, 26), (2, 38), (10, 134)] {
            cursor.enter(&room(&number.to_string()), Some(at(1, 9999)));
            while cursor.positions().count() < number {
                let further = format!("further {}", cursor.positions().count());
                cursor.enter(&room(&further), Some(at(1, 9999)));
            }
            assert_eq!(text(&cursor).len(), length, "{number} rooms");
        }
    }

    #[test]
    fn what_no_gateway_has_written_is_foreign() {
        let mut cursor = Cursor::default();
        cursor.enter(&room("a"), Some(at(3, u64::MAX)));
        let good = text(&cursor);
        assert_eq!(read(&good).since(&room("a")), Some(Since::At(at(3, u64::MAX))));
        let cut = &good[..good.len() - 1];
        let longer = format!("{good}A");
        // Among them are one without its epoch, and one of another version.
        for shown in [cut, &longer, "17", "AQAAAAAAAAAAAAA", "*", "é", "Ag", "a b"] {
            assert_eq!(read(shown).since(&room("a")), Some(Since::Unreadable), "{shown}");
        }
        assert_eq!(read("").since(&room("a")), None);
        assert!(matches!(parse("!forbidden"), LastEventId::End));
    }

    #[test]
    fn rooms_beyond_the_bound_are_left_out() {
        let mut cursor = Cursor::default();
        for number in 0..300 {
            cursor.enter(&room(&number.to_string()), Some(at(1, number)));
        }
        assert_eq!(read(&text(&cursor)).positions().count(), ROOMS_MAX);
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_back(rooms in proptest::collection::hash_map(".{1,20}", (0u64..3, any::<u64>()), 0..20)) {
            let mut cursor = Cursor::default();
            let named = |name: &String| Room::parse(&Tenant::default(), name);
            for (name, (epoch, offset)) in &rooms {
                if let Ok(room) = named(name) {
                    cursor.enter(&room, Some(at(*epoch, *offset)));
                }
            }
            let again = read(&text(&cursor));
            for (name, (epoch, offset)) in &rooms {
                if let Ok(room) = named(name) {
                    prop_assert_eq!(again.since(&room), Some(Since::At(at(*epoch, *offset))));
                }
            }
        }

        #[test]
        fn any_text_is_read(shown in ".{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&shown);
            let _ = parse(&URL_SAFE_NO_PAD.encode([&[VERSION], &bytes[..]].concat()));
        }
    }
}
