//! What is still known of rooms that left memory: where they stood.
//!
//! Without it a reader who comes back to a quiet room would be told that it may have missed something, and a publisher
//! who expects a version would have to be refused. A room is remembered by a keyed 64-bit hash; two rooms that share one
//! are both taken to stand at the higher head, which errs towards "may have missed".

use std::collections::HashMap;

use crate::position::Offset;

/// Where a room stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Exactly here; [`Offset::ZERO`] when it never had an event.
    Known(Offset),
    /// Not after this. The room was forgotten, or has never been.
    AtMost(Offset),
}

impl Head {
    /// The newest offset the room can have.
    pub(super) const fn bound(self) -> Offset {
        match self {
            Self::Known(offset) | Self::AtMost(offset) => offset,
        }
    }
}

/// The heads of forgotten rooms, in two generations: when the young one is full, the old one is dropped.
#[derive(Debug)]
pub(super) struct Heads {
    young: HashMap<u64, Offset>,
    old: HashMap<u64, Offset>,
    generation_max: usize,
    /// The highest head ever dropped.
    horizon: Offset,
}

impl Heads {
    pub(super) fn new(rooms_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max: rooms_max.div_ceil(2),
            horizon: Offset::ZERO,
        }
    }

    /// Remembers where a room stood that leaves memory.
    pub(super) fn remember(&mut self, room_hash: u64, head: Offset) {
        if self.generation_max == 0 {
            self.horizon = self.horizon.max(head);
            return;
        }
        if self.young.len() >= self.generation_max {
            let dropped = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.horizon = dropped.into_values().fold(self.horizon, Offset::max);
        }
        let known = self.young.entry(room_hash).or_default();
        *known = head.max(*known);
    }

    /// Where a room that is not in memory stands.
    pub(super) fn of(&self, room_hash: u64) -> Head {
        let newest = self.young.get(&room_hash).max(self.old.get(&room_hash));
        match newest {
            Some(head) => Head::Known(*head),
            None if self.horizon == Offset::ZERO => Head::Known(Offset::ZERO),
            None => Head::AtMost(self.horizon),
        }
    }

    /// The same, for a room that comes back into memory.
    pub(super) fn take(&mut self, room_hash: u64) -> Head {
        let head = self.of(room_hash);
        self.young.remove(&room_hash);
        self.old.remove(&room_hash);
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_was_never_seen_has_no_event_until_some_head_is_dropped() {
        let mut heads = Heads::new(2);
        assert_eq!(heads.of(1), Head::Known(Offset::ZERO));
        for (room, offset) in [(1, 10), (2, 20), (3, 15)] {
            heads.remember(room, Offset(offset));
        }
        assert_eq!(heads.of(9), Head::AtMost(Offset(10)));
        assert_eq!(heads.of(1), Head::AtMost(Offset(10)));
        assert_eq!(heads.of(2), Head::Known(Offset(20)));
        assert_eq!(heads.take(3), Head::Known(Offset(15)));
        assert_eq!(heads.of(3), Head::AtMost(Offset(10)));
    }

    #[test]
    fn without_memory_every_forgotten_head_bounds_all_rooms() {
        let mut heads = Heads::new(0);
        heads.remember(1, Offset(5));
        heads.remember(2, Offset(3));
        assert_eq!(heads.of(1), Head::AtMost(Offset(5)));
    }

    #[test]
    fn the_bound_never_falls() {
        let mut heads = Heads::new(2);
        for (room, offset) in [(1, 30), (2, 10), (3, 11), (4, 12)] {
            heads.remember(room, Offset(offset));
        }
        assert_eq!(heads.of(9), Head::AtMost(Offset(30)));
    }

    #[test]
    fn rooms_that_share_a_hash_stand_at_the_higher_head() {
        let mut heads = Heads::new(10);
        heads.remember(1, Offset(5));
        heads.remember(1, Offset(3));
        assert_eq!(heads.of(1), Head::Known(Offset(5)));
    }
}
