//! The positions of a connection in its rooms as bytes: what clients are handed as one opaque text.
//!
//! The number of epochs and each of them (8 bytes), then for each room its tag (6 bytes), the number of its epoch, and its
//! offset; numbers are varints.

use prost::encoding::{decode_varint, encode_varint};

use crate::position::{Epoch, Offset, Position};
use crate::session::RoomTag;

/// Appends positions.
pub(super) fn write(positions: impl Iterator<Item = (RoomTag, Position)>, out: &mut Vec<u8>) {
    let (mut epochs, mut entries) = (Vec::new(), Vec::new());
    for (tag, position) in positions {
        // Rooms share an epoch, or a few.
        let epoch = epochs.iter().position(|epoch| *epoch == position.epoch);
        let epoch = epoch.unwrap_or_else(|| {
            epochs.push(position.epoch);
            epochs.len() - 1
        });
        entries.extend_from_slice(&tag.0);
        encode_varint(epoch as u64, &mut entries);
        encode_varint(position.offset.0, &mut entries);
    }
    encode_varint(epochs.len() as u64, out);
    for epoch in epochs {
        out.extend_from_slice(&epoch.bits().to_be_bytes());
    }
    out.extend_from_slice(&entries);
}

/// Reads the positions of at most `rooms_max` rooms, to the end of the bytes; `None` for anything else.
pub(super) fn read(bytes: &[u8], rooms_max: usize) -> Option<Vec<(RoomTag, Position)>> {
    let mut bytes = Bytes(bytes);
    let mut epochs = Vec::new();
    for _ in 0..bytes.number()? {
        epochs.push(Epoch::from_bits(u64::from_be_bytes(bytes.array()?)));
    }
    let mut positions = Vec::new();
    while !bytes.0.is_empty() && positions.len() < rooms_max {
        let tag = RoomTag(bytes.array()?);
        let epoch = *epochs.get(usize::try_from(bytes.number()?).ok()?)?;
        let offset = Offset(bytes.number()?);
        positions.push((tag, Position { epoch, offset }));
    }
    bytes.0.is_empty().then_some(positions)
}

/// Bytes in the course of being read.
pub(super) struct Bytes<'b>(pub &'b [u8]);

impl Bytes<'_> {
    /// Takes so many bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// Takes a varint.
    pub(super) fn number(&mut self) -> Option<u64> {
        decode_varint(&mut self.0).ok()
    }
}
