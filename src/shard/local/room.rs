//! One room: its members, its joining connections, and its queued items.
//!
//! Every item has a turn number, and a member's slot stores the last turn it received. So members may join and leave, and
//! slots may move, between two chunks of one fan-out, and still each member receives each item exactly once.

use std::collections::VecDeque;
use std::rc::Rc;

use super::batch::FanoutBatch;
use super::{CHUNK, MovedSlot, Recipient, RoomItem};
use crate::position::{Offset, Position};
use crate::room::Room;
use crate::shard::Key;

/// The most members inspected for one chunk: most of them may have received everything already.
const LOOKED_AT_MAX: usize = 4096;

/// The most items held for one joining connection. With more, the join fails, and the client may repeat it.
pub(super) const HELD_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    turn: u32,
}

/// A joining connection, with the items held for it.
#[derive(Debug)]
pub(super) struct Joining {
    key: Key,
    held: Vec<RoomItem>,
    overflowed: bool,
}

impl Joining {
    fn hold(&mut self, item: &RoomItem) {
        if self.held.len() < HELD_MAX {
            self.held.push(item.clone());
        } else {
            self.overflowed = true;
        }
    }

    /// Returns its items on top of everything up to `head`; `None` when more arrived than are held.
    pub(super) fn held_after(self, head: Offset) -> Option<Vec<RoomItem>> {
        if self.overflowed {
            return None;
        }
        let mut held = self.held;
        held.retain(|item| match item {
            RoomItem::Event(delivery) => delivery.event.offset().is_none_or(|offset| offset > head),
            RoomItem::Presence(_) => false,
            RoomItem::Reset(_) => true,
        });
        Some(held)
    }
}

/// A pass over the members: those at `0..cursor` are still to be served.
///
/// Items that arrive during a pass are also for the members still to be served, in the same write (coalescing). The other
/// members receive them in the next pass.
#[derive(Debug)]
struct Pass {
    /// The front of the line.
    batch: Rc<FanoutBatch>,
    /// Number of its items that every member has received when the pass ends.
    due: usize,
    cursor: usize,
}

#[derive(Debug)]
pub(super) struct LocalRoom {
    pub(super) room: Room,
    /// Set while the room waits for its turn among the rooms.
    pub(super) active: bool,
    members: Vec<Slot>,
    joining: Vec<Joining>,
    /// Items that not every member has received. The last one has the turn `turn`.
    line: VecDeque<RoomItem>,
    turn: u32,
    pass: Option<Pass>,
    observing: u32,
    /// The newest head that a member started from. Events up to it may still arrive, late, and are not for that member.
    start_max: Offset,
    /// The room's position for members that have received every queued item.
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

    /// Reports whether it has neither members nor joining connections.
    pub(super) const fn is_idle(&self) -> bool {
        self.members.is_empty() && self.joining.is_empty()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Key> {
        self.members.iter().map(|slot| slot.key)
    }

    /// Returns the number of queued items.
    pub(super) fn queued(&self) -> usize {
        self.line.len()
    }

    /// Begins to hold items for a connection; `false` when it is joining already.
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

    /// Ends the holding of items for a connection.
    pub(super) fn end_join(&mut self, key: Key) -> Option<Joining> {
        let index = self.joining.iter().position(|other| other.key == key)?;
        let taken = self.joining.swap_remove(index);
        if self.joining.is_empty() {
            self.joining = Vec::new();
        }
        Some(taken)
    }

    /// Makes a connection a member that starts from `head`. Returns its slot.
    pub(super) fn admit(&mut self, key: Key, head: Position) -> u32 {
        let slot = u32::try_from(self.members.len()).expect("a shard has fewer than 2^32 connections");
        self.members.push(Slot { key, turn: self.turn });
        self.start_max = self.start_max.max(head.offset);
        self.advance_to(head);
        slot
    }

    /// Takes the queued items the member has not received and marks them delivered. Also returns the member's position
    /// behind them.
    pub(super) fn catch_up(&mut self, slot: u32) -> (Vec<RoomItem>, Option<Position>) {
        let turn = std::mem::replace(&mut self.members[slot as usize].turn, self.turn);
        let due = self.turn.wrapping_sub(turn) as usize;
        let had = self.line.len().saturating_sub(due);
        (self.line.iter().skip(had).cloned().collect(), self.last)
    }

    /// Removes a member. Returns the member whose slot moved into its place.
    pub(super) fn leave(&mut self, slot: u32) -> Option<MovedSlot> {
        self.members.swap_remove(slot as usize);
        let moved = self
            .members
            .get(slot as usize)
            .map(|other| MovedSlot { key: other.key, slot });
        if self.members.is_empty() {
            // No member is left for the queued items; turns continue for joining connections.
            (self.line, self.pass, self.members) = (VecDeque::new(), None, Vec::new());
        } else if self.members.capacity() > 64 && self.members.len() * 4 < self.members.capacity() {
            self.members.shrink_to(self.members.len() * 2);
        }
        moved
    }

    /// Adds or removes an observer of presence. Returns whether it was the first or the last.
    pub(super) const fn observing(&mut self, more: bool) -> bool {
        if more {
            self.observing += 1;
            self.observing == 1
        } else {
            self.observing -= 1;
            self.observing == 0
        }
    }

    /// Queues an item. Returns whether there are members for it.
    pub(super) fn enqueue(&mut self, item: RoomItem) -> bool {
        if !matches!(item, RoomItem::Presence(_)) {
            self.joining.iter_mut().for_each(|joining| joining.hold(&item));
        }
        self.turn = self.turn.wrapping_add(1);
        match &item {
            RoomItem::Event(delivery) => {
                if let Some(link) = delivery.event.link {
                    self.advance_to(link.position);
                }
            }
            RoomItem::Reset(head) => (self.start_max, self.last) = (Offset::ZERO, Some(*head)),
            RoomItem::Presence(_) => {}
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

    /// Selects up to [`CHUNK`] members of the current pass, or of a new one. `None` when nothing is queued.
    pub(super) fn serve_chunk(&mut self, targets: &mut Vec<Recipient>) -> Option<Rc<FanoutBatch>> {
        if self.line.is_empty() {
            return None;
        }
        let mut pass = self.pass.take().unwrap_or_else(|| Pass::over(self.members.len()));
        pass.extend(&self.line, self.start_max);
        let items = pass.batch.items().len();
        let first_turn = self.turn.wrapping_sub(count(self.line.len())).wrapping_add(1);
        let last_turn = first_turn.wrapping_add(count(items)).wrapping_sub(1);
        // A member leaves by swapping the last one into its place: going down, none is skipped.
        let end = pass.cursor.min(self.members.len());
        pass.cursor = end.saturating_sub(LOOKED_AT_MAX);
        for (index, slot) in self.members[..end].iter_mut().enumerate().rev().take(LOOKED_AT_MAX) {
            let from = already_given(slot.turn, first_turn);
            if from < items {
                slot.turn = last_turn;
                targets.push(Recipient { key: slot.key, from });
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

    fn extend(&mut self, line: &VecDeque<RoomItem>, start_max: Offset) {
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

/// Returns the number of items of a batch, which starts at `first`, that a member whose last turn was `turn` has received.
/// Turns wrap around.
const fn already_given(turn: u32, first: u32) -> usize {
    let given = turn.wrapping_sub(first).wrapping_add(1);
    if given > u32::MAX / 2 { 0 } else { given as usize }
}
