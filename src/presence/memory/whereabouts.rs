//! Where users are and whose connections are: the way back from a user or connection to rooms.
//!
//! Locked after a room's stripe, never before one.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::identity::{ConnectionId, UserId};
use crate::presence::Member;
use crate::room::Room;

const STRIPES: usize = 64;

#[derive(Debug)]
struct Owner {
    user: UserId,
    rooms: u32,
}

#[derive(Debug, Default)]
struct Share {
    /// By a hash of tenant and user, which saves both names. Two users that share one have a common list; whoever reads
    /// it looks into the rooms anyway.
    rooms: HashMap<u64, Vec<Room>>,
    owners: HashMap<ConnectionId, Owner>,
}

/// The index over all rooms.
#[derive(Debug)]
pub(super) struct Whereabouts {
    shares: Box<[Mutex<Share>]>,
    hasher: RandomState,
}

impl Whereabouts {
    pub(super) fn new() -> Self {
        Self {
            shares: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// A user is shown in a room that was not before.
    pub(super) fn joined(&self, room: &Room, user: &UserId) {
        let (hash, mut share) = self.share(&(room.tenant(), user));
        let rooms = share.rooms.entry(hash).or_default();
        // Most users are in one room or two: growing fourfold at once would double the index.
        if rooms.len() < 4 {
            rooms.reserve_exact(1);
        }
        rooms.push(room.clone());
    }

    /// A user is no longer shown in a room.
    pub(super) fn gone(&self, room: &Room, user: &UserId) {
        let (hash, mut share) = self.share(&(room.tenant(), user));
        let Some(rooms) = share.rooms.get_mut(&hash) else {
            return;
        };
        if let Some(index) = rooms.iter().position(|known| known == room) {
            rooms.swap_remove(index);
        }
        if rooms.is_empty() {
            share.rooms.remove(&hash);
        }
    }

    /// The rooms the user may be in, in no order.
    pub(super) fn rooms_of(&self, tenant: &str, user: &UserId) -> Vec<Room> {
        let (hash, share) = self.share(&(tenant, user));
        let rooms = share.rooms.get(&hash).cloned().unwrap_or_default();
        rooms.into_iter().filter(|room| room.tenant() == tenant).collect()
    }

    /// A connection is in one room more.
    pub(super) fn entered(&self, member: &Member) {
        let (_, mut share) = self.share(&member.connection);
        let owner = share.owners.entry(member.connection).or_insert_with(|| Owner {
            user: member.user.clone(),
            rooms: 0,
        });
        owner.rooms += 1;
    }

    /// A connection is in one room less.
    pub(super) fn left(&self, connection: ConnectionId) {
        let (_, mut share) = self.share(&connection);
        let Some(owner) = share.owners.get_mut(&connection) else {
            return;
        };
        owner.rooms -= 1;
        if owner.rooms == 0 {
            share.owners.remove(&connection);
        }
    }

    /// Whose a connection is that is in some room.
    pub(super) fn owner_of(&self, connection: ConnectionId) -> Option<UserId> {
        let (_, share) = self.share(&connection);
        share.owners.get(&connection).map(|owner| owner.user.clone())
    }

    fn share(&self, key: &impl Hash) -> (u64, MutexGuard<'_, Share>) {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % STRIPES as u64).expect("it is less than the number of stripes");
        let share = self.shares[index].lock();
        (hash, share.unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let empty = |share: &Mutex<Share>| {
            let share = share.lock().unwrap();
            share.rooms.is_empty() && share.owners.is_empty()
        };
        self.shares.iter().all(empty)
    }
}
