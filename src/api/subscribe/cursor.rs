//! Cursors: the positions of a subscription as one text, opaque to the caller, valid on every node, and only for the
//! tenant and the rooms or pattern that issued it.
//!
//! Most places share few epochs, and offsets are small numbers. So an epoch is written once, and each place as two numbers
//! of a variable length: its epoch with the mark of a gap, and its offset.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::encoding::{decode_varint, encode_varint};

use crate::api::status::{Invalid, Refusal};
use crate::bus::parts::{Place, RoomSet};
use crate::position::{Epoch, Offset, Position};
use crate::room::Room;

/// The first byte of a cursor. Changes with its layout.
const VERSION: u8 = 1;

/// Bytes of the scope's digest in a cursor.
const SCOPE_BYTES: usize = 8;

/// The largest offset, as of every position of the contract.
const OFFSET_MAX: u64 = (1 << 53) - 1;

/// The tenant and the rooms of a subscription, as far as a cursor names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    digest: [u8; SCOPE_BYTES],
    /// The number of places; `None` where the bus decides it.
    places: Option<usize>,
}

impl Scope {
    /// Digests rooms, in this order.
    pub(super) fn of_rooms(rooms: &[Room]) -> Self {
        let keys = rooms.iter().map(Room::key);
        Self::of(b"rooms", keys, Some(rooms.len()))
    }

    /// Digests a set of rooms.
    pub(super) fn of_set(rooms: &RoomSet) -> Self {
        let fields = [rooms.tenant.as_str(), rooms.pattern.as_str()].into_iter();
        Self::of(b"pattern", fields.map(str::as_bytes), None)
    }

    fn of<'a>(kind: &'a [u8], fields: impl Iterator<Item = &'a [u8]>, places: Option<usize>) -> Self {
        let mut context = Context::new(&SHA256);
        for field in std::iter::once(kind).chain(fields) {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            context.update(&(field.len() as u64).to_le_bytes());
            context.update(field);
        }
        let mut digest = [0; SCOPE_BYTES];
        digest.copy_from_slice(&context.finish().as_ref()[..SCOPE_BYTES]);
        Self { digest, places }
    }

    /// Writes the cursor of these places.
    pub(super) fn cursor(&self, all: &[Place]) -> String {
        let mut epochs: Vec<Epoch> = Vec::new();
        let mut places = Vec::with_capacity(all.len() * 6);
        for Place { position, gapped } in all {
            // The last one first: neighbours mostly share theirs.
            let known = epochs.iter().rposition(|known| *known == position.epoch);
            let index = known.unwrap_or_else(|| {
                epochs.push(position.epoch);
                epochs.len() - 1
            });
            encode_varint((index as u64) << 1 | u64::from(*gapped), &mut places);
            encode_varint(position.offset.0, &mut places);
        }
        let mut bytes = Vec::with_capacity(1 + SCOPE_BYTES + 2 + epochs.len() * 8 + places.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.digest);
        encode_varint(epochs.len() as u64, &mut bytes);
        for epoch in epochs {
            bytes.extend_from_slice(&epoch.bits().to_be_bytes());
        }
        bytes.extend_from_slice(&places);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor; `None` for an empty one.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a text that no subscription to this scope has issued.
    pub(super) fn read(&self, cursor: &str) -> Result<Option<Vec<Place>>, Refusal> {
        if cursor.is_empty() {
            return Ok(None);
        }
        let refused = |why: &str| Refusal::invalid(Invalid::Cursor, "cursor", why);
        let bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap_or_default();
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return Err(refused("is not one that a subscription has issued"));
        };
        let Some(rest) = rest.strip_prefix(&self.digest[..]) else {
            return Err(refused("is of another tenant, or of other rooms"));
        };
        let places = self.places(rest);
        places
            .map(Some)
            .ok_or_else(|| refused("is not one that a subscription has issued"))
    }

    fn places(&self, mut bytes: &[u8]) -> Option<Vec<Place>> {
        let count = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        let (table, mut rest) = bytes.split_at_checked(count.checked_mul(8)?)?;
        let table = table.as_chunks().0.iter();
        let epochs: Vec<Epoch> = table.map(|bits| Epoch::from_bits(u64::from_be_bytes(*bits))).collect();
        let mut places = Vec::new();
        while !rest.is_empty() {
            let index = decode_varint(&mut rest).ok()?;
            let offset = decode_varint(&mut rest).ok().filter(|offset| *offset <= OFFSET_MAX)?;
            let position = Position {
                epoch: *epochs.get(usize::try_from(index >> 1).ok()?)?,
                offset: Offset(offset),
            };
            places.push(Place {
                position,
                gapped: index & 1 == 1,
            });
        }
        let expected = self.places.unwrap_or(places.len());
        (places.len() == expected && !places.is_empty()).then_some(places)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::room::Tenant;

    fn rooms(tenant: &str, names: &[&str]) -> Vec<Room> {
        let tenant = Tenant::parse(tenant).unwrap();
        names.iter().map(|name| Room::parse(&tenant, name).unwrap()).collect()
    }

    fn place(epoch: u64, offset: u64) -> Place {
        Place::at(Position {
            epoch: Epoch::from_bits(epoch),
            offset: Offset(offset),
        })
    }

    #[test]
    fn a_cursor_is_good_for_its_own_scope_only() {
        let scope = Scope::of_rooms(&rooms("a", &["x", "y"]));
        let cursor = scope.cursor(&[place(7, 1), place(7, 300)]);
        assert_eq!(scope.read(&cursor), Ok(Some(vec![place(7, 1), place(7, 300)])));
        assert_eq!(scope.read(""), Ok(None));
        for other in [
            rooms("b", &["x", "y"]),
            rooms("a", &["x"]),
            rooms("a", &["x", "z"]),
            rooms("a", &["xy"]),
        ] {
            let refusal = Scope::of_rooms(&other).read(&cursor).unwrap_err();
            assert_eq!(refusal.reason(), "INVALID_CURSOR");
            assert!(refusal.message().contains("of another tenant"), "{refusal:?}");
        }
    }

    #[test]
    fn a_cursor_that_was_cut_or_extended_is_refused() {
        let scope = Scope::of_rooms(&rooms("a", &["x", "y"]));
        let cursor = scope.cursor(&[place(7, 1), place(8, 1 << 40)]);
        let bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        for end in 0..bytes.len() {
            assert!(
                scope.read(&URL_SAFE_NO_PAD.encode(&bytes[..end])).is_err() == (end > 0),
                "{end}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(scope.read(&URL_SAFE_NO_PAD.encode(longer)).is_err());
        assert!(scope.read(&format!("{cursor}=")).is_err());
        let too_far = scope.cursor(&[place(7, 1), place(7, 1 << 53)]);
        assert!(scope.read(&too_far).is_err());
    }

    #[test]
    fn rooms_of_one_epoch_take_few_bytes_each() {
        let names: Vec<String> = (0..1000).map(|number| format!("room:{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let scope = Scope::of_rooms(&rooms("a", &names));
        let places: Vec<Place> = (0..1000).map(|number| place(7, 1_000_000 + number)).collect();
        let cursor = scope.cursor(&places);
        assert!(cursor.len() < 6000, "{}", cursor.len());
    }

    proptest! {
        #[test]
        fn places_are_read_back(places in proptest::collection::vec((0_u64..4, 0_u64..(1 << 53), any::<bool>()), 1..40)) {
            let named = Scope { digest: [3; SCOPE_BYTES], places: Some(places.len()) };
            let places = places.into_iter();
            let places: Vec<Place> = places
                .map(|(epoch, offset, gapped)| Place { gapped, ..place(epoch, offset) })
                .collect();
            let cursor = named.cursor(&places);
            let any = Scope { places: None, ..named };
            prop_assert_eq!(any.read(&cursor), named.read(&cursor));
            prop_assert_eq!(named.read(&cursor), Ok(Some(places)));
        }

        #[test]
        fn no_text_makes_reading_a_cursor_panic(cursor in "\\PC{0,64}", bytes in any::<Vec<u8>>()) {
            let scope = Scope { digest: [3; SCOPE_BYTES], places: Some(3) };
            let _ = scope.read(&cursor);
            let _ = scope.read(&URL_SAFE_NO_PAD.encode([&[VERSION][..], &[3; SCOPE_BYTES], &bytes].concat()));
        }
    }
}
