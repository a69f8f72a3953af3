//! The cursor of a connection: the position up to which it has received each of its rooms.
//!
//! Most protocols have none: their clients read positions off the events. A cursor is for a protocol whose clients keep one
//! opaque text, and show it when they come back. It lives with the connection's carrier, so it costs other connections nothing.
//! The session keeps it; how it is written is the protocol's matter.

use super::Since;
use crate::digest::Digest;
use crate::position::Position;
use crate::room::Room;

/// The name of a room in a cursor: 48 bits of a digest of tenant and name. Whole names would be sent with every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomTag(pub [u8; Self::BYTES]);

impl RoomTag {
    /// The length of a tag, in bytes.
    pub const BYTES: usize = 6;

    /// Returns the tag of a room.
    #[must_use]
    pub fn of(room: &Room) -> Self {
        let mut digest = Digest::default();
        // The key separates tenant and name unambiguously.
        digest.add(room.key());
        let [tag @ .., _, _] = digest.mixed().to_be_bytes();
        Self(tag)
    }
}

/// The progress in one room.
#[derive(Debug)]
struct Place {
    tag: RoomTag,
    position: Position,
    /// The room, once it was entered; `None` while the position is only what the client claims.
    room: Option<Room>,
}

/// The progress of one connection, by room.
#[derive(Debug, Default)]
pub struct Cursor {
    places: Vec<Place>,
    /// The client has shown a text that no cursor was ever written as.
    is_foreign: bool,
}

impl Cursor {
    /// Creates the cursor of a client that claims these positions.
    #[must_use]
    pub fn resuming(claims: impl IntoIterator<Item = (RoomTag, Position)>) -> Self {
        let place = |(tag, position)| Place {
            tag,
            position,
            room: None,
        };
        Self {
            places: claims.into_iter().map(place).collect(),
            is_foreign: false,
        }
    }

    /// Creates the cursor of a client that claims something unreadable: it recovers no room.
    #[must_use]
    pub const fn foreign() -> Self {
        Self {
            places: Vec::new(),
            is_foreign: true,
        }
    }

    /// Returns the position at which the client says it left a room that it enters now.
    #[must_use]
    pub fn since(&self, room: &Room) -> Option<Since> {
        let tag = RoomTag::of(room);
        match self.places.iter().find(|place| place.tag == tag) {
            Some(place) if place.room.is_none() => Some(Since::At(place.position)),
            None if self.is_foreign => Some(Since::Unreadable),
            Some(_) | None => None,
        }
    }

    /// Sets the position of a room that was entered, or restarts. With `None` nothing is known that a client could go on from:
    /// until it is, the cursor does not name the room.
    pub fn enter(&mut self, room: &Room, position: Option<Position>) {
        let tag = RoomTag::of(room);
        let Some(position) = position else {
            return self.places.retain(|place| place.tag != tag);
        };
        let entered = Place {
            tag,
            position,
            room: Some(room.clone()),
        };
        if let Some(place) = self.places.iter_mut().find(|place| place.tag == tag) {
            *place = entered;
        } else {
            // Not the doubling of a growing vector: most clients are in a room or two.
            self.places.reserve_exact(1);
            self.places.push(entered);
        }
    }

    /// Advances a room that was entered. Any other is left alone: of last values a part is nothing to go on from.
    pub fn advance(&mut self, room: &Room, position: Position) {
        let mut places = self.places.iter_mut();
        if let Some(place) = places.find(|place| place.room.as_ref() == Some(room)) {
            place.position = position;
        }
    }

    /// Removes a room that was left.
    pub fn leave(&mut self, room: &Room) {
        self.places.retain(|place| place.room.as_ref() != Some(room));
    }

    /// Returns the positions: first of the rooms that were entered, in the order in which they were, then the claims that
    /// were not redeemed. A connection that is cut between two joins must not lose the second one's.
    pub fn positions(&self) -> impl Iterator<Item = (RoomTag, Position)> {
        let of = |is_entered: bool| {
            let places = self.places.iter();
            places.filter(move |place| place.room.is_some() == is_entered)
        };
        of(true).chain(of(false)).map(|place| (place.tag, place.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Epoch, Offset};
    use crate::room::Tenant;

    fn room(name: &str) -> Room {
        Room::parse(&Tenant::default(), name).unwrap()
    }

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::from_bits(7),
            offset: Offset(offset),
        }
    }

    fn offsets(cursor: &Cursor) -> Vec<u64> {
        cursor.positions().map(|(_, position)| position.offset.0).collect()
    }

    #[test]
    fn a_cursor_follows_rooms_from_entering_to_leaving() {
        let (a, b, mut cursor) = (room("a"), room("b"), Cursor::default());
        cursor.enter(&a, Some(at(1)));
        cursor.enter(&b, None);
        cursor.advance(&a, at(2));
        cursor.advance(&b, at(9));
        assert_eq!(offsets(&cursor), [2]);
        cursor.enter(&b, Some(at(10)));
        assert_eq!(offsets(&cursor), [2, 10]);
        cursor.leave(&a);
        cursor.leave(&a);
        cursor.advance(&a, at(3));
        assert_eq!(offsets(&cursor), [10]);
        assert_eq!(cursor.since(&b), None, "it is a member");
    }

    /// Each byte here is paid for by every event stream at rest.
    #[test]
    fn a_place_is_small() {
        assert_eq!(size_of::<Place>(), 40);
    }

    #[test]
    fn a_claim_is_kept_until_its_room_is_entered() {
        let (a, b) = (room("a"), room("b"));
        let claims = [&a, &b].map(|room| (RoomTag::of(room), at(5)));
        let mut cursor = Cursor::resuming(claims);
        cursor.advance(&a, at(6));
        cursor.leave(&a);
        assert_eq!(cursor.since(&a), Some(Since::At(at(5))));
        cursor.enter(&b, Some(at(7)));
        assert_eq!(offsets(&cursor), [7, 5]);
        assert_eq!((cursor.since(&b), cursor.since(&room("c"))), (None, None));
        cursor.enter(&a, None);
        assert_eq!((cursor.since(&a), offsets(&cursor)), (None, vec![7]));
    }

    #[test]
    fn a_foreign_cursor_recovers_no_room() {
        let (a, mut cursor) = (room("a"), Cursor::foreign());
        assert_eq!(cursor.since(&a), Some(Since::Unreadable));
        cursor.enter(&a, Some(at(1)));
        assert_eq!((cursor.since(&a), offsets(&cursor)), (None, vec![1]));
    }

    #[test]
    fn a_tag_names_tenant_and_room() {
        let other = Room::parse(&Tenant::parse("other").unwrap(), "a").unwrap();
        let tags = [room("a"), room("b"), other].map(|room| RoomTag::of(&room));
        assert!(tags[0] != tags[1] && tags[0] != tags[2]);
    }
}
