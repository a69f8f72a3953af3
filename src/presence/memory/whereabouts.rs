//! Where users are: the way back from a user to rooms.
//!
//! Locked after a room's stripe, never before one.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::identity::UserId;
use crate::room::Room;

const STRIPES: usize = 64;

/// That a user is in a room. The user is a hash of tenant and name, which saves both. Two users that share one share their
/// places; whoever reads them looks into the rooms anyway.
#[derive(Debug)]
struct Place {
    user: u64,
    room: Room,
}

/// All places of a share of the users, found by the user's hash.
type Share = HashTable<Place>;

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
        let (user, mut share) = self.share(room.tenant(), user);
        let room = room.clone();
        share.insert_unique(user, Place { user, room }, |place| place.user);
    }

    /// A user is no longer shown in a room.
    pub(super) fn gone(&self, room: &Room, user: &UserId) {
        let (user, mut share) = self.share(room.tenant(), user);
        if let Ok(place) = share.find_entry(user, |place| place.user == user && place.room == *room) {
            place.remove();
        }
        if share.len() < share.capacity() / 4 {
            let places = share.len() * 2;
            share.shrink_to(places, |place| place.user);
        }
    }

    /// The rooms the user may be in, in no order.
    pub(super) fn rooms_of(&self, tenant: &str, user: &UserId) -> Vec<Room> {
        let (user, share) = self.share(tenant, user);
        let of_user = |place: &&Place| place.user == user && place.room.tenant() == tenant;
        share
            .iter_hash(user)
            .filter(of_user)
            .map(|place| place.room.clone())
            .collect()
    }

    fn share(&self, tenant: &str, user: &UserId) -> (u64, MutexGuard<'_, Share>) {
        let hash = self.hasher.hash_one((tenant, user));
        // Not the bits by which a table finds its entries.
        let index = usize::try_from(hash >> 32).expect("usize has 64 bits") % STRIPES;
        let share = self.shares[index].lock();
        (hash, share.unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shares.iter().all(|share| share.lock().unwrap().is_empty())
    }
}
