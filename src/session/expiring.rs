//! Memberships that end before the token does, because an authorizer said so. An entry for each of these alone: it goes with
//! its membership, so a client that has left leaves no timer behind.

use std::collections::{BTreeSet, HashMap};

use super::link::Link;
use super::sessions::Sessions;
use super::{Message, RoomChange};
use crate::hub::local::{Key, RoomKey};
use crate::identity::Expiry;
use crate::notice::Notice;
use crate::room::Room;

/// Memberships by when they end.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    ends: HashMap<(Key, RoomKey), Expiry>,
    in_order: BTreeSet<(Expiry, Key, RoomKey)>,
}

impl Expiring {
    fn set(&mut self, key: Key, room: RoomKey, expires: Option<Expiry>) {
        self.remove(key, room);
        if let Some(expires) = expires {
            self.ends.insert((key, room), expires);
            self.in_order.insert((expires, key, room));
        }
    }

    /// The membership has ended.
    pub(super) fn remove(&mut self, key: Key, room: RoomKey) {
        if let Some(expires) = self.ends.remove(&(key, room)) {
            self.in_order.remove(&(expires, key, room));
        }
    }

    fn due(&self) -> Option<(Key, RoomKey)> {
        let (expires, key, room) = self.in_order.first()?;
        expires.left().is_zero().then_some((*key, *room))
    }
}

impl<L: Link> Sessions<L> {
    /// Lets a membership end then; `None`: with the session.
    pub(super) fn keep_until(&mut self, key: Key, room: &Room, expires: Option<Expiry>) {
        if let Some(room) = self.local.find(room) {
            self.expiring.set(key, room, expires);
        }
    }

    /// Ends the memberships whose time is over. The client may join again, which asks anew.
    pub(super) fn end_expired(&mut self) {
        while let Some((key, room_key)) = self.expiring.due() {
            self.expiring.remove(key, room_key);
            let room = self.local.room(room_key).clone();
            if self.leave_room(key, &room) {
                let (change, notice) = (RoomChange::Expired, Notice::default());
                self.push(key, &Message::RoomLeft { room, change, notice });
            }
        }
    }
}
