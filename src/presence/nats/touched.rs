//! Where something happened here that others have not been told of yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::identity::UserId;
use crate::presence::Departure;
use crate::room::Room;

/// The most users of one room that are remembered by name; above, all of the room is looked through.
const USERS_MAX: usize = 4096;

/// What happened in a room.
#[derive(Debug)]
pub(super) enum Touch {
    /// To these users. How one left, if it has.
    Users(BTreeMap<UserId, Departure>),
    /// To too many to say.
    Many,
}

/// The rooms where something happened. Never larger than what is there, so it needs no bound but that of a room.
#[derive(Debug, Default)]
pub(super) struct Touched(Mutex<BTreeMap<Room, Touch>>);

impl Touched {
    /// Something happened in a room, and to a user, if one is named.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
