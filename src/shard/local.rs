//! The rooms of one shard: their members, and the fan-out in chunks. Pure state, no IO.
//!
//! [`room`] delivers a room's queued items to its members. Rooms with queued items take turns (fair queueing), so a large
//! room does not cause head-of-line blocking for small ones.

pub mod batch;
mod room;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use self::batch::FanoutBatch;
use self::room::LocalRoom;
use super::Key;
use crate::bus::Delivery;
use crate::position::Position;
use crate::presence::Change;
use crate::room::Room;

/// A room's slot in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(u32);

impl RoomKey {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An item for the members of a room, in order.
#[derive(Debug, Clone)]
pub enum RoomItem {
    /// An event.
    Event(Arc<Delivery>),
    /// A change of presence, for members that asked for it.
    Presence(Arc<Change>),
    /// The room restarts at this position.
    Reset(Position),
}

/// The most members served before other work gets its turn. Measured: with 64 a small room beside a broadcast waits 4 ms,
/// with 1,024 it waits 20 ms; fewer gain nothing.
pub const CHUNK: usize = 64;

/// One member of the current chunk, with the first item it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// The member.
    pub key: Key,
    /// Index of its first item.
    pub from: usize,
}

/// A chunk: up to [`CHUNK`] members of a room and their items.
#[derive(Debug)]
pub struct FanoutChunk {
    /// The room.
    pub room: RoomKey,
    /// The items.
    pub batch: Rc<FanoutBatch>,
}

/// A connection that has become a member.
#[derive(Debug)]
pub struct AdmittedMember {
    /// The room's slot.
    pub room: RoomKey,
    /// The member's slot in the room.
    pub slot: u32,
    /// Its items on top of everything up to the head it starts from.
    pub held: Vec<RoomItem>,
}

/// A slot that changed its index because another member left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedSlot {
    /// The member.
    pub key: Key,
    /// The new index.
    pub slot: u32,
}

/// Reason why a joining connection does not become a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinFailed {
    /// The join was aborted meanwhile.
    Aborted,
    /// More items arrived meanwhile than are held.
    Overflowed,
}

/// The rooms of one shard.
#[derive(Debug, Default)]
pub struct LocalRooms {
    rooms: Slab<LocalRoom>,
    names: HashMap<Room, RoomKey>,
    active: VecDeque<RoomKey>,
    vacated: Vec<Room>,
}

impl LocalRooms {
    /// Returns the slot of a room that has members, or joining connections, on this shard.
    #[must_use]
    pub fn find(&self, room: &Room) -> Option<RoomKey> {
        self.names.get(room).copied()
    }

    /// Returns the room in a slot.
    #[must_use]
    pub fn room(&self, room: RoomKey) -> &Room {
        &self.rooms[room.index()].room
    }

    /// Returns the number of items queued in a room.
    #[must_use]
    pub fn queued(&self, room: &Room) -> usize {
        self.find(room).map_or(0, |room| self.rooms[room.index()].queued())
    }

    /// Returns the members of a room.
    #[must_use]
    pub fn members(&self, room: RoomKey) -> Vec<Key> {
        self.rooms[room.index()].members().collect()
    }

    /// Reports whether there are no rooms.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Begins to hold a room's items for a connection; `None` when it is joining already.
    pub fn begin_join(&mut self, room: &Room, key: Key) -> Option<RoomKey> {
        let slot = self.find(room).unwrap_or_else(|| self.insert(room));
        self.rooms[slot.index()].begin_join(key).then_some(slot)
    }

    /// Makes a joining connection a member. Returns its slot and its items on top of everything up to `head`.
    ///
    /// # Errors
    /// Every variant of [`JoinFailed`]; the connection is neither joining nor a member.
    pub fn finish_join(&mut self, room: &Room, key: Key, head: Position) -> Result<AdmittedMember, JoinFailed> {
        let room_key = self.find(room).ok_or(JoinFailed::Aborted)?;
        let local = &mut self.rooms[room_key.index()];
        let joining = local.end_join(key).ok_or(JoinFailed::Aborted)?;
        let Some(held) = joining.held_after(head.offset) else {
            self.remove_if_idle(room_key);
            return Err(JoinFailed::Overflowed);
        };
        Ok(AdmittedMember {
            room: room_key,
            slot: local.admit(key, head),
            held,
        })
    }

    /// Takes the queued items the member has not received and marks them delivered. Also returns the member's position
    /// behind them.
    pub fn catch_up(&mut self, room: RoomKey, slot: u32) -> (Vec<RoomItem>, Option<Position>) {
        self.rooms[room.index()].catch_up(slot)
    }

    /// Aborts a join. Returns whether there was one.
    pub fn abort_join(&mut self, room: &Room, key: Key) -> bool {
        let Some(room_key) = self.find(room) else { return false };
        let aborted = self.rooms[room_key.index()].end_join(key).is_some();
        self.remove_if_idle(room_key);
        aborted
    }

    /// Removes a member. Returns the member whose slot moved into its place.
    pub fn leave(&mut self, room: RoomKey, slot: u32) -> Option<MovedSlot> {
        let moved = self.rooms[room.index()].leave(slot);
        self.remove_if_idle(room);
        moved
    }

    /// Takes the rooms left empty on this shard since the last call: their subscriptions may end.
    pub fn vacated(&mut self) -> Vec<Room> {
        std::mem::take(&mut self.vacated)
    }

    /// Adds or removes an observer of a room's presence. Returns whether the shard's observation begins or ends with it.
    pub fn observing(&mut self, room: RoomKey, more: bool) -> bool {
        self.rooms[room.index()].observing(more)
    }

    /// Queues an item for a room's members. Items of rooms without members here are dropped.
    pub fn enqueue(&mut self, room: &Room, item: RoomItem) {
        let Some(room_key) = self.find(room) else { return };
        let local = &mut self.rooms[room_key.index()];
        if local.enqueue(item) && !local.active {
            local.active = true;
            self.active.push_back(room_key);
        }
    }

    /// Reports whether items are queued.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.active.is_empty()
    }

    /// Returns the next chunk and fills `targets` with its members; `None` when nothing is queued.
    pub fn next_chunk(&mut self, targets: &mut Vec<Recipient>) -> Option<FanoutChunk> {
        targets.clear();
        while let Some(room) = self.active.pop_front() {
            let local = &mut self.rooms[room.index()];
            let batch = local.serve_chunk(targets);
            local.active = local.queued() > 0;
            if local.active {
                // Back to the end of the line: one chunk a turn, whatever is left.
                self.active.push_back(room);
            }
            if let Some(batch) = batch {
                return Some(FanoutChunk { room, batch });
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
