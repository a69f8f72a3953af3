//! The heads of rooms that left memory.
//!
//! Without them a reader that returns to a quiet room would get `Lost`, and a publisher that expects a version would be
//! refused. A room is remembered by a keyed 64-bit hash. Two rooms that share a hash are both taken to have the higher
//! head, which errs towards "may have missed".

use std::collections::HashMap;

use crate::position::Offset;

/// The head of a room, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Exactly this offset; [`Offset::ZERO`] for a room that never had an event.
    Known(Offset),
    /// At most this offset: the room was forgotten, or never existed.
    AtMost(Offset),
}

impl Head {
    /// Returns the newest offset that the room can have.
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
    /// The highest head ever dropped. It bounds every room that is not remembered.
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

    /// Remembers the head of a room that leaves memory.
    // With no generation to keep, a dropped head still raises the horizon: otherwise a forgotten room would look as if
    // it never had an event.
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

    /// Returns the head of a room that is not in memory.
    pub(super) fn of(&self, room_hash: u64) -> Head {
        let newest = self.young.get(&room_hash).max(self.old.get(&room_hash));
        match newest {
            Some(head) => Head::Known(*head),
            None if self.horizon == Offset::ZERO => Head::Known(Offset::ZERO),
            None => Head::AtMost(self.horizon),
        }
    }

    /// Returns the highest head of all rooms that are not in memory.
    pub(super) fn newest(&self) -> Offset {
        let remembered = self.young.values().chain(self.old.values());
        remembered.fold(self.horizon, |newest, head| newest.max(*head))
    }

    /// Returns the head of a room that returns to memory, and forgets it here.
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
