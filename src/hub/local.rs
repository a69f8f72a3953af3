//! The rooms of one shard: their members, and the fan-out in chunks. Pure state, no IO.
//!
//! What is in line for the members of one room is handed out by [`room`]. Rooms with something to hand out take turns, so a
//! large room does not delay small ones.

mod room;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use self::room::LocalRoom;
use super::batch::Batch;
use crate::bus::Delivery;
use crate::position::Position;
use crate::presence::Change;
use crate::room::Room;

/// A connection's slot in its shard.
pub type Key = u32;

/// A room's slot in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
        self.find(room).map_or(0, |room| self.rooms[room.index()].in_line())
    }

    /// The members of a room.
    #[must_use]
    pub fn members(&self, room: RoomKey) -> Vec<Key> {
        self.rooms[room.index()].members().collect()
    }

    /// Whether there are no rooms.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Starts to hold a room's items for a connection; `None` when it is joining already.
    pub fn begin_join(&mut self, room: &Room, key: Key) -> Option<RoomKey> {
        let slot = self.find(room).unwrap_or_else(|| self.insert(room));
        self.rooms[slot.index()].begin_join(key).then_some(slot)
    }

    /// Makes a joining connection a member; answers its slot and what it gets on top of everything up to `head`.
    ///
    /// # Errors
    /// Every variant of [`NotEntered`]; the connection is neither joining nor a member then.
    pub fn finish_join(&mut self, room: &Room, key: Key, head: Position) -> Result<Entered, NotEntered> {
        let room_key = self.find(room).ok_or(NotEntered::Aborted)?;
        let local = &mut self.rooms[room_key.index()];
        let joining = local.end_join(key).ok_or(NotEntered::Aborted)?;
        let Some(held) = joining.held_after(head.offset) else {
            self.remove_if_idle(room_key);
            return Err(NotEntered::Overflowed);
        };
        Ok(Entered {
            room: room_key,
            slot: local.admit(key, head),
            held,
        })
    }

    /// What is in line for a member and was not handed to it yet; it counts as handed with this. Answers it with where the
    /// member stands then.
    pub fn catch_up(&mut self, room: RoomKey, slot: u32) -> (Vec<Item>, Option<Position>) {
        self.rooms[room.index()].catch_up(slot)
    }

    /// Calls a join off; answers whether there was one.
    pub fn abort_join(&mut self, room: &Room, key: Key) -> bool {
        let Some(room_key) = self.find(room) else { return false };
        let aborted = self.rooms[room_key.index()].end_join(key).is_some();
        self.remove_if_idle(room_key);
        aborted
    }

    /// Takes a member out; answers whose slot moved into its place.
    pub fn leave(&mut self, room: RoomKey, slot: u32) -> Option<Moved> {
        let moved = self.rooms[room.index()].leave(slot);
        self.remove_if_idle(room);
        moved
    }

    /// The rooms that nobody of this shard has been in since the last call: their subscriptions may end.
    pub fn vacated(&mut self) -> Vec<Room> {
        std::mem::take(&mut self.vacated)
    }

    /// Counts observers of a room's presence up or down; answers whether the shard now starts or ends observing.
    pub fn observing(&mut self, room: RoomKey, more: bool) -> bool {
        self.rooms[room.index()].observing(more)
    }

    /// Puts an item in line for a room's members. Items of rooms without members here are dropped.
    pub fn enqueue(&mut self, room: &Room, item: Item) {
        let Some(room_key) = self.find(room) else { return };
        let local = &mut self.rooms[room_key.index()];
        if local.enqueue(item) && !local.active {
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
            local.active = local.in_line() > 0;
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

    fn remove_if_idle(&mut self, room: RoomKey) {
        let local = &self.rooms[room.index()];
        if !local.is_idle() {
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

#[cfg(test)]
mod tests;
