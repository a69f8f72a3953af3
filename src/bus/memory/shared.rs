//! State shared by all stripes: the clock, the sequence of offsets, and the counters behind the bounds over all rooms.

use std::collections::hash_map::RandomState;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::clock::Clock;
use super::config::Config;
use super::heads::Head;
use super::keys::Fingerprints;
use crate::position::{Epoch, Offset, Position};

/// State shared by all stripes.
#[derive(Debug)]
pub(super) struct MemoryBusInner {
    pub config: Config,
    pub epoch: Epoch,
    pub clock: Clock,
    pub fingerprints: Fingerprints,
    pub hasher: RandomState,
    /// The newest offset of any room. Read and raised only under the lock of the room's stripe. So an offset read there
    /// is at or after everything in the room and before everything that follows.
    pub sequence: AtomicU64,
    /// Rooms in memory.
    pub rooms: AtomicUsize,
    /// Bytes of all logs.
    pub weight: AtomicUsize,
}

impl MemoryBusInner {
    pub(super) fn newest(&self) -> Offset {
        Offset(self.sequence.load(Ordering::Relaxed))
    }

    /// Returns the position to report for a head. A forgotten room gets the newest offset of all: none of its events
    /// lies after that, and later ones will.
    pub(super) fn stands_at(&self, head: Head) -> Position {
        let offset = match head {
            Head::Known(offset) => offset,
            Head::AtMost(_) => self.newest(),
        };
        let epoch = self.epoch;
        Position { epoch, offset }
    }

    /// Reports whether a publisher that expects `expected` has seen the whole room. Either it is exactly the head, or,
    /// where none is known, it lies at or after every event the room can have had.
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
