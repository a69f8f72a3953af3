//! The index from a user to its rooms.
//!
//! Lock order: after a room's stripe, never before one.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::identity::UserId;

const STRIPES: usize = 64;

/// Identifier of a room among all stripes, for as long as it is attended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoomId(pub u32);

/// Membership of a user in a room. The user is half a hash of tenant and name, which saves both. Users that share the half
/// share their places; readers look into the rooms anyway.
#[derive(Debug)]
struct Place {
    user: u32,
    room: RoomId,
}

/// All places of a part of the users, found by the user's hash.
type Share = HashTable<Place>;

/// The index over all rooms.
#[derive(Debug)]
pub(super) struct UserRoomIndex {
    shares: Box<[Mutex<Share>]>,
    hasher: RandomState,
}

impl UserRoomIndex {
    pub(super) fn new() -> Self {
        Self {
            shares: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Records a user that is shown in a room and was not before.
    pub(super) fn joined(&self, tenant: &str, user: &UserId, room: RoomId) {
        let (user, mut share) = self.share(tenant, user);
        share.insert_unique(spread(user), Place { user, room }, |place| spread(place.user));
    }

    /// Removes a user that is no longer shown in a room.
    pub(super) fn gone(&self, tenant: &str, user: &UserId, room: RoomId) {
        let (user, mut share) = self.share(tenant, user);
        if let Ok(place) = share.find_entry(spread(user), |place| place.user == user && place.room == room) {
            place.remove();
        }
        if share.len() < share.capacity() / 4 {
            let places = share.len() * 2;
            share.shrink_to(places, |place| spread(place.user));
        }
    }

    /// Returns the rooms that the user may be in, unordered.
    pub(super) fn rooms_of(&self, tenant: &str, user: &UserId) -> Vec<RoomId> {
        let (user, share) = self.share(tenant, user);
        let places = share.iter_hash(spread(user));
        places
            .filter(|place| place.user == user)
            .map(|place| place.room)
            .collect()
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
    fn share(&self, tenant: &str, user: &UserId) -> (u32, MutexGuard<'_, Share>) {
        let hash = self.hasher.hash_one((tenant, user));
        // The other half selects the part, so that the half which the table hashes stays evenly distributed.
        let index = usize::try_from(hash >> 32).expect("usize has 64 bits") % STRIPES;
        let share = self.shares[index].lock();
        (hash as u32, share.unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shares.iter().all(|share| share.lock().unwrap().is_empty())
    }
}

/// Spreads a half over 64 bits: a hash table looks at the lowest and at the highest bits.
const fn spread(half: u32) -> u64 {
    (half as u64) << 32 | half as u64
}
