//! One room: its members, those on their way in, and what is in line for them.
//!
//! Every item gets a turn number; a member's slot remembers the last turn it was given, so members may come and go, and
//! slots move, between two chunks of one fan-out, and still each member gets each item exactly once.

use std::collections::VecDeque;
use std::rc::Rc;

use super::{CHUNK, Item, Key, Moved, Target};
use crate::hub::batch::Batch;
use crate::position::{Offset, Position};
use crate::room::Room;

/// The most members looked at for one chunk: most of them may have been given everything already.
const LOOKED_AT_MAX: usize = 4096;

/// The most items that wait for one joining member. More, and the join fails for the client to repeat.
pub(super) const HELD_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    turn: u32,
}

/// A member on its way in: what arrives meanwhile is held for it.
#[derive(Debug)]
pub(super) struct Joining {
    key: Key,
    held: Vec<Item>,
    overflowed: bool,
}

impl Joining {
    fn hold(&mut self, item: &Item) {
        if self.held.len() < HELD_MAX {
            self.held.push(item.clone());
        } else {
            self.overflowed = true;
        }
    }

    /// What it gets on top of everything up to `head`; `None` when more has come than is held.
    pub(super) fn held_after(self, head: Offset) -> Option<Vec<Item>> {
        if self.overflowed {
            return None;
        }
        let mut held = self.held;
        held.retain(|item| match item {
            Item::Event(delivery) => delivery.event.offset().is_none_or(|offset| offset > head),
            Item::Presence(_) => false,
            Item::Reset(_) => true,
        });
        Some(held)
    }
}

/// A pass over the members: those at `0..cursor` are still to be served.
///
/// What comes while it is under way is for the members that are still to be served as well, so that they get it in the same
/// write; the others get it in the next pass.
#[derive(Debug)]
struct Pass {
    /// The front of the line.
    batch: Rc<Batch>,
    /// How many items of it everybody has been given when the pass ends.
    due: usize,
    cursor: usize,
}

#[derive(Debug)]
pub(super) struct LocalRoom {
    pub(super) room: Room,
    /// Whether it waits for its turn among the rooms.
    pub(super) active: bool,
    members: Vec<Slot>,
    joining: Vec<Joining>,
    /// The items that not everybody has been given. The last one has the turn `turn`.
    line: VecDeque<Item>,
    turn: u32,
    pass: Option<Pass>,
    observing: u32,
    /// The newest head a member has started from. Events up to it may still arrive, late, and are not for that member.
    start_max: Offset,
    /// Where the room stands for members that have been given everything in line.
    last: Option<Position>,
}

impl LocalRoom {
    pub(super) const fn new(room: Room) -> Self {
        Self {
            room,
            active: false,
            members: Vec::new(),
            joining: Vec::new(),
            line: VecDeque::new(),
            turn: 0,
            pass: None,
            observing: 0,
            start_max: Offset::ZERO,
            last: None,
        }
    }

    /// Whether nobody is in it or on the way in.
    pub(super) const fn is_idle(&self) -> bool {
        self.members.is_empty() && self.joining.is_empty()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Key> {
        self.members.iter().map(|slot| slot.key)
    }

    /// How many items wait.
    pub(super) fn in_line(&self) -> usize {
        self.line.len()
    }

    /// Starts to hold items for a connection; `false` when it is joining already.
    pub(super) fn begin_join(&mut self, key: Key) -> bool {
        if self.joining.iter().any(|other| other.key == key) {
            return false;
        }
        self.joining.push(Joining {
            key,
            held: Vec::new(),
            overflowed: false,
        });
        true
    }

    /// Holds nothing more for a connection.
    pub(super) fn end_join(&mut self, key: Key) -> Option<Joining> {
        let index = self.joining.iter().position(|other| other.key == key)?;
        let taken = self.joining.swap_remove(index);
        if self.joining.is_empty() {
            self.joining = Vec::new();
        }
        Some(taken)
    }

    /// Makes a connection a member that starts from `head`; answers its slot.
    pub(super) fn admit(&mut self, key: Key, head: Position) -> u32 {
        let slot = u32::try_from(self.members.len()).expect("a shard has fewer than 2^32 connections");
        self.members.push(Slot { key, turn: self.turn });
        self.start_max = self.start_max.max(head.offset);
        self.advance_to(head);
        slot
    }

    /// What is in line for a member and was not handed to it yet; it counts as handed with this. Answers it with where the
    /// member stands then.
    pub(super) fn catch_up(&mut self, slot: u32) -> (Vec<Item>, Option<Position>) {
        let turn = std::mem::replace(&mut self.members[slot as usize].turn, self.turn);
        let due = self.turn.wrapping_sub(turn) as usize;
        let had = self.line.len().saturating_sub(due);
        (self.line.iter().skip(had).cloned().collect(), self.last)
    }

    /// Takes a member out; answers whose slot moved into its place.
    pub(super) fn leave(&mut self, slot: u32) -> Option<Moved> {
        self.members.swap_remove(slot as usize);
        let moved = self
            .members
            .get(slot as usize)
            .map(|other| Moved { key: other.key, slot });
        if self.members.is_empty() {
            // Nobody is left to get what is in line; turns go on for those who are joining.
            (self.line, self.pass, self.members) = (VecDeque::new(), None, Vec::new());
        } else if self.members.capacity() > 64 && self.members.len() * 4 < self.members.capacity() {
            self.members.shrink_to(self.members.len() * 2);
        }
        moved
    }

    /// Counts observers of presence up or down; answers whether the first has come or the last has gone.
    pub(super) const fn observing(&mut self, more: bool) -> bool {
        if more {
            self.observing += 1;
            self.observing == 1
        } else {
            self.observing -= 1;
            self.observing == 0
        }
    }

    /// Puts an item in line; answers whether there are members to get it.
    pub(super) fn enqueue(&mut self, item: Item) -> bool {
        if !matches!(item, Item::Presence(_)) {
            self.joining.iter_mut().for_each(|joining| joining.hold(&item));
        }
        self.turn = self.turn.wrapping_add(1);
        match &item {
            Item::Event(delivery) => {
                if let Some(link) = delivery.event.link {
                    self.advance_to(link.position);
                }
            }
            Item::Reset(head) => (self.start_max, self.last) = (Offset::ZERO, Some(*head)),
            Item::Presence(_) => {}
        }
        if self.members.is_empty() {
            return false;
        }
        self.line.push_back(item);
        true
    }

    fn advance_to(&mut self, position: Position) {
        if self
            .last
            .is_none_or(|last| last.epoch != position.epoch || last.offset < position.offset)
        {
            self.last = Some(position);
        }
    }

    /// Names up to [`CHUNK`] members of the pass under way, or of a new one. `None` when nothing is in line.
    pub(super) fn serve_chunk(&mut self, targets: &mut Vec<Target>) -> Option<Rc<Batch>> {
        if self.line.is_empty() {
            return None;
        }
        let mut pass = self.pass.take().unwrap_or_else(|| Pass::over(self.members.len()));
        pass.extend(&self.line, self.start_max);
        let items = pass.batch.items().len();
        let first_turn = self.turn.wrapping_sub(count(self.line.len())).wrapping_add(1);
        let last_turn = first_turn.wrapping_add(count(items)).wrapping_sub(1);
        // Members leave by swapping the last one into their place: going down, none is passed over.
        let end = pass.cursor.min(self.members.len());
        pass.cursor = end.saturating_sub(LOOKED_AT_MAX);
        for (index, slot) in self.members[..end].iter_mut().enumerate().rev().take(LOOKED_AT_MAX) {
            let from = already_given(slot.turn, first_turn);
            if from < items {
                slot.turn = last_turn;
                targets.push(Target { key: slot.key, from });
            }
            if targets.len() == CHUNK {
                pass.cursor = index;
                break;
            }
        }
        let batch = Rc::clone(&pass.batch);
        if pass.cursor > 0 {
            self.pass = Some(pass);
        } else {
            self.line.drain(..pass.due);
            if self.line.is_empty() {
                self.line = VecDeque::new();
            }
        }
        Some(batch)
    }
}

impl Pass {
    fn over(members: usize) -> Self {
        Self {
            batch: Rc::default(),
            due: 0,
            cursor: members,
        }
    }

    fn extend(&mut self, line: &VecDeque<Item>, start_max: Offset) {
        if let Some(more) = self.batch.extended(line, start_max) {
            if self.due == 0 {
                self.due = more.items().len();
            }
            self.batch = Rc::new(more);
        }
    }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).expect("the bus bounds the events in flight")
}

/// How many items of a batch that starts at `first` a member has had, if its last turn was `turn`. Turns wrap around.
const fn already_given(turn: u32, first: u32) -> usize {
    let given = turn.wrapping_sub(first).wrapping_add(1);
    if given > u32::MAX / 2 { 0 } else { given as usize }
}
