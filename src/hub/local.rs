//! The rooms of one shard: their members, and the fan-out in chunks.
//!
//! Pure state, no IO. Every item of a room gets a turn number; a member's slot remembers the last turn it was given, so
//! members may come and go, and slots move, between two chunks of one fan-out, and still each member gets each item
//! exactly once. Rooms with something to hand out take turns, so a large room does not delay small ones.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::batch::Batch;
use crate::bus::Delivery;
use crate::position::{Offset, Position};
use crate::presence::Change;
use crate::room::Room;

/// A connection's slot in its shard.
pub type Key = u32;

/// A room's slot in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomKey(u32);

impl RoomKey {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Something handed to the members of a room, in order.
#[derive(Debug, Clone)]
pub enum Item {
    /// An event.
    Event(Arc<Delivery>),
    /// A change of presence, for members that asked for it.
    Presence(Arc<Change>),
    /// The room goes on afresh at this position.
    Reset(Position),
}

/// The most members served before other work gets its turn. Measured: with 64 a small room beside a broadcast waits
/// 4 ms, with 1,024 it waits 20 ms; fewer gain nothing.
pub const CHUNK: usize = 64;

/// The most members looked at for one chunk: most of them may have been given everything already.
const LOOKED_AT_MAX: usize = 4096;

/// The most items that wait for one joining member. More, and the join fails for the client to repeat.
const HELD_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Key,
    turn: u32,
}

/// A member on its way in: what arrives meanwhile is held for it.
#[derive(Debug)]
struct Joining {
    key: Key,
    held: Vec<Item>,
    overflowed: bool,
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
struct LocalRoom {
    room: Room,
    members: Vec<Slot>,
    joining: Vec<Joining>,
    /// The items that not everybody has been given. The last one has the turn `turn`.
    line: VecDeque<Item>,
    turn: u32,
    pass: Option<Pass>,
    active: bool,
    observing: u32,
    /// The newest head a member has started from. Events up to it may still arrive, late, and are not for that member.
    start_max: Offset,
    /// Where the room stands for members that have been given everything in line.
    last: Option<Position>,
}

/// One member of the current chunk: which items of the batch it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The member.
    pub key: Key,
    /// It gets the items from this index on.
    pub from: usize,
}

/// A chunk: up to [`CHUNK`] members of a room and what they get.
#[derive(Debug)]
pub struct Chunk {
    /// The room.
    pub room: RoomKey,
    /// The items.
    pub batch: Rc<Batch>,
}

/// A connection that has become a member.
#[derive(Debug)]
pub struct Entered {
    /// The room's slot.
    pub room: RoomKey,
    /// The member's slot in the room.
    pub slot: u32,
    /// What it gets on top of everything up to the head it starts from.
    pub held: Vec<Item>,
}

/// A slot that changed its index because another one left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Whose slot.
    pub key: Key,
    /// The new index.
    pub slot: u32,
}

/// Why a joining member cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEntered {
    /// The join was called off meanwhile.
    Aborted,
    /// More arrived meanwhile than is held.
    Overflowed,
}

/// The rooms of one shard.
#[derive(Debug, Default)]
pub struct Local {
    rooms: Slab<LocalRoom>,
    names: HashMap<Room, RoomKey>,
    active: VecDeque<RoomKey>,
    vacated: Vec<Room>,
}

impl Local {
    /// The slot of a room this shard has members of, or is joining members to.
    #[must_use]
    pub fn find(&self, room: &Room) -> Option<RoomKey> {
        self.names.get(room).copied()
    }

    /// The room in a slot.
    #[must_use]
    pub fn room(&self, room: RoomKey) -> &Room {
        &self.rooms[room.index()].room
    }

    /// How many items wait in a room.
    #[must_use]
    pub fn in_line(&self, room: &Room) -> usize {
        self.find(room).map_or(0, |room| self.rooms[room.index()].line.len())
    }

    /// The members of a room.
    #[must_use]
    pub fn members(&self, room: RoomKey) -> Vec<Key> {
        self.rooms[room.index()].members.iter().map(|slot| slot.key).collect()
    }

    /// Whether there are no rooms.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Starts to hold a room's items for a connection; `None` when it is joining already.
    pub fn begin_join(&mut self, room: &Room, key: Key) -> Option<RoomKey> {
        let slot = self.find(room).unwrap_or_else(|| self.insert(room));
        let joining = &mut self.rooms[slot.index()].joining;
        if joining.iter().any(|other| other.key == key) {
            return None;
        }
        joining.push(Joining {
            key,
            held: Vec::new(),
            overflowed: false,
        });
        Some(slot)
    }

    /// Makes a joining connection a member; answers its slot and what it gets on top of everything up to `head`.
    ///
    /// # Errors
    /// Every variant of [`NotEntered`]; the connection is neither joining nor a member then.
    pub fn finish_join(&mut self, room: &Room, key: Key, head: Position) -> Result<Entered, NotEntered> {
        let room_key = self.find(room).ok_or(NotEntered::Aborted)?;
        let joining = self.take_joining(room_key, key).ok_or(NotEntered::Aborted)?;
        if joining.overflowed {
            self.remove_if_idle(room_key);
            return Err(NotEntered::Overflowed);
        }
        let mut held = joining.held;
        held.retain(|item| match item {
            Item::Event(delivery) => delivery.event.offset().is_none_or(|offset| offset > head.offset),
            Item::Presence(_) => false,
            Item::Reset(_) => true,
        });
        let local = &mut self.rooms[room_key.index()];
        let slot = u32::try_from(local.members.len()).expect("a shard has fewer than 2^32 connections");
        local.members.push(Slot { key, turn: local.turn });
        local.start_max = local.start_max.max(head.offset);
        local.advance_to(head);
        Ok(Entered {
            room: room_key,
            slot,
            held,
        })
    }

    /// What is in line for a member and was not handed to it yet; it counts as handed with this. Answers it with where the
    /// member stands then.
    pub fn catch_up(&mut self, room: RoomKey, slot: u32) -> (Vec<Item>, Option<Position>) {
        let local = &mut self.rooms[room.index()];
        let (turn, newest) = (local.members[slot as usize].turn, local.turn);
        local.members[slot as usize].turn = newest;
        let due = newest.wrapping_sub(turn) as usize;
        let had = local.line.len().saturating_sub(due);
        (local.line.iter().skip(had).cloned().collect(), local.last)
    }

    /// Calls a join off; answers whether there was one.
    pub fn abort_join(&mut self, room: &Room, key: Key) -> bool {
        let Some(room_key) = self.find(room) else { return false };
        let aborted = self.take_joining(room_key, key).is_some();
        self.remove_if_idle(room_key);
        aborted
    }

    /// Takes a member out; answers whose slot moved into its place.
    pub fn leave(&mut self, room: RoomKey, slot: u32) -> Option<Moved> {
        let local = &mut self.rooms[room.index()];
        local.members.swap_remove(slot as usize);
        let moved = local
            .members
            .get(slot as usize)
            .map(|other| Moved { key: other.key, slot });
        if local.members.is_empty() {
            // Nobody is left to get what is in line; turns go on for those who are joining.
            (local.line, local.pass, local.members) = (VecDeque::new(), None, Vec::new());
        } else if local.members.capacity() > 64 && local.members.len() * 4 < local.members.capacity() {
            local.members.shrink_to(local.members.len() * 2);
        }
        self.remove_if_idle(room);
        moved
    }

    /// The rooms that nobody of this shard has been in since the last call: their subscriptions may end.
    pub fn vacated(&mut self) -> Vec<Room> {
        std::mem::take(&mut self.vacated)
    }

    /// Counts observers of a room's presence up or down; answers whether the shard now starts or ends observing.
    pub fn observing(&mut self, room: RoomKey, more: bool) -> bool {
        let observing = &mut self.rooms[room.index()].observing;
        if more {
            *observing += 1;
            *observing == 1
        } else {
            *observing -= 1;
            *observing == 0
        }
    }

    /// Puts an item in line for a room's members. Items of rooms without members here are dropped.
    pub fn enqueue(&mut self, room: &Room, item: Item) {
        let Some(room_key) = self.find(room) else { return };
        let local = &mut self.rooms[room_key.index()];
        let held = !matches!(item, Item::Presence(_));
        for joining in local.joining.iter_mut().filter(|_| held) {
            if joining.held.len() < HELD_MAX {
                joining.held.push(item.clone());
            } else {
                joining.overflowed = true;
            }
        }
        local.turn = local.turn.wrapping_add(1);
        match &item {
            Item::Event(delivery) => {
                if let Some(link) = delivery.event.link {
                    local.advance_to(link.position);
                }
            }
            Item::Reset(head) => (local.start_max, local.last) = (Offset::ZERO, Some(*head)),
            Item::Presence(_) => {}
        }
        if local.members.is_empty() {
            return;
        }
        local.line.push_back(item);
        if !local.active {
            local.active = true;
            self.active.push_back(room_key);
        }
    }

    /// Whether there is something to hand out.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.active.is_empty()
    }

    /// The next chunk. Fills `targets` with its members; `None` when there is nothing to hand out.
    pub fn next_chunk(&mut self, targets: &mut Vec<Target>) -> Option<Chunk> {
        targets.clear();
        while let Some(room) = self.active.pop_front() {
            let local = &mut self.rooms[room.index()];
            let batch = local.serve_chunk(targets);
            local.active = !local.line.is_empty();
            if local.active {
                self.active.push_back(room);
            }
            if let Some(batch) = batch {
                return Some(Chunk { room, batch });
            }
        }
        None
    }

    fn insert(&mut self, room: &Room) -> RoomKey {
        let key = RoomKey(u32::try_from(self.rooms.vacant_key()).expect("a shard has fewer than 2^32 rooms"));
        self.rooms.insert(LocalRoom::new(room.clone()));
        self.names.insert(room.clone(), key);
        key
    }

    fn take_joining(&mut self, room: RoomKey, key: Key) -> Option<Joining> {
        let joining = &mut self.rooms[room.index()].joining;
        let index = joining.iter().position(|other| other.key == key)?;
        let taken = joining.swap_remove(index);
        if joining.is_empty() {
            *joining = Vec::new();
        }
        Some(taken)
    }

    fn remove_if_idle(&mut self, room: RoomKey) {
        let local = &self.rooms[room.index()];
        if !local.members.is_empty() || !local.joining.is_empty() {
            return;
        }
        if local.active {
            self.active.retain(|other| *other != room);
        }
        let local = self.rooms.remove(room.index());
        self.names.remove(&local.room);
        if self.names.capacity() > 1024 && self.names.len() * 4 < self.names.capacity() {
            self.names.shrink_to(self.names.len() * 2);
            self.rooms.shrink_to_fit();
        }
        self.vacated.push(local.room);
    }
}

impl LocalRoom {
    const fn new(room: Room) -> Self {
        Self {
            room,
            members: Vec::new(),
            joining: Vec::new(),
            line: VecDeque::new(),
            turn: 0,
            pass: None,
            active: false,
            observing: 0,
            start_max: Offset::ZERO,
            last: None,
        }
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
    fn serve_chunk(&mut self, targets: &mut Vec<Target>) -> Option<Rc<Batch>> {
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

#[cfg(test)]
mod tests;
