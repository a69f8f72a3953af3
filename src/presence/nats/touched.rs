//! The dirty set: rooms with local changes that are not replicated yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::identity::UserId;
use crate::presence::Departure;
use crate::room::Room;
use crate::sync::lock;

/// The most users of one room that are remembered by name. Above, the whole room is compared.
const USERS_MAX: usize = 4096;

/// The local changes of a room.
#[derive(Debug)]
pub(super) enum Touch {
    /// These users changed. The value is the manner of leaving, if the user has left.
    Users(BTreeMap<UserId, Departure>),
    /// Too many users changed to list them.
    Many,
}

/// The dirty set. Never larger than the rooms themselves, so it needs no bound of its own.
#[derive(Debug, Default)]
pub(super) struct DirtyRooms(Mutex<BTreeMap<Room, Touch>>);

impl DirtyRooms {
    /// Marks a room as dirty, and a user in it, if one is named.
    pub(super) fn add(&self, room: &Room, user: Option<(&UserId, Departure)>) {
        let mut rooms = self.lock();
        let touch = match rooms.get_mut(room) {
            Some(touch) => touch,
            None => rooms
                .entry(room.clone())
                .or_insert_with(|| Touch::Users(BTreeMap::new())),
        };
        if let (Touch::Users(users), Some((user, departure))) = (&mut *touch, user) {
            users.insert(user.clone(), departure);
            if users.len() > USERS_MAX {
                *touch = Touch::Many;
            }
        }
    }

    pub(super) fn take(&self) -> BTreeMap<Room, Touch> {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn take_room(&self, room: &Room) -> Option<Touch> {
        self.lock().remove(room)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Room, Touch>> {
        lock(&self.0)
    }
}
