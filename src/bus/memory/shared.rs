//! What all stripes share: the clock, the one sequence of offsets, and what the bounds over all rooms are counted with.

use std::collections::hash_map::RandomState;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::clock::Clock;
use super::config::Config;
use super::heads::Head;
use super::keys::Fingerprints;
use crate::position::{Epoch, Offset, Position};

/// What all stripes share.
#[derive(Debug)]
pub(super) struct Shared {
    pub config: Config,
    pub epoch: Epoch,
    pub clock: Clock,
    pub fingerprints: Fingerprints,
    pub hasher: RandomState,
    /// The newest offset of any room. Taken and read under the lock of the room's stripe only, so that an offset read
    /// there is at or after everything in the room and before everything that follows.
    pub sequence: AtomicU64,
    /// Rooms in memory.
    pub rooms: AtomicUsize,
    /// Bytes of all logs.
    pub weight: AtomicUsize,
}

impl Shared {
    pub(super) fn newest(&self) -> Offset {
        Offset(self.sequence.load(Ordering::Relaxed))
    }

    /// Where a room is said to stand. One that was forgotten gets the newest offset of all: nothing of it comes after
    /// that, and what follows does.
    pub(super) fn stands_at(&self, head: Head) -> Position {
        let offset = match head {
            Head::Known(offset) => offset,
            Head::AtMost(_) => self.newest(),
        };
        let epoch = self.epoch;
        Position { epoch, offset }
    }

    /// Whether a publisher that expects the room at `expected` has seen all of it: exactly its head, or, where none is
    /// known, a position that comes after whatever there was.
    pub(super) fn is_current(&self, head: Head, expected: Offset) -> bool {
        match head {
            Head::Known(offset) => expected == offset,
            Head::AtMost(bound) => (bound..=self.newest()).contains(&expected),
        }
    }

    pub(super) fn reweigh(&self, before: usize, after: usize) {
        let change = after.wrapping_sub(before);
        if change != 0 {
            self.weight.fetch_add(change, Ordering::Relaxed);
        }
    }
}
