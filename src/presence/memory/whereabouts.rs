//! The index from a user to its rooms.
//!
//! Lock order: after a room's stripe, never before one.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::half_index::{HalfIndex, half};
use crate::identity::UserId;

const STRIPES: usize = 64;

/// Identifier of a room among all stripes, for as long as it is attended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoomId(pub u32);

/// The rooms of a part of the users. A user is half a hash of tenant and name, which saves both.
type Share = HalfIndex<RoomId>;

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
        share.insert(user, room);
    }

    /// Removes a user that is no longer shown in a room.
    pub(super) fn gone(&self, tenant: &str, user: &UserId, room: RoomId) {
        let (user, mut share) = self.share(tenant, user);
        share.remove(user, room);
    }

    /// Returns the rooms that the user may be in, unordered.
    pub(super) fn rooms_of(&self, tenant: &str, user: &UserId) -> Vec<RoomId> {
        let (user, share) = self.share(tenant, user);
        share.find(user).collect()
    }

    fn share(&self, tenant: &str, user: &UserId) -> (u32, MutexGuard<'_, Share>) {
        let hash = self.hasher.hash_one((tenant, user));
        // The other half selects the part, so that the half which the table hashes stays evenly distributed.
        let index = usize::try_from(hash >> 32).expect("usize has 64 bits") % STRIPES;
        let share = self.shares[index].lock();
        (half(hash), share.unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shares.iter().all(|share| share.lock().unwrap().is_empty())
    }
}
