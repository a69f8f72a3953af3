//! Memberships that end before the token does, because an authorizer said so. An entry for each of these alone: it goes with
//! its membership, so a client that has left leaves no timer behind.

use std::collections::{BTreeSet, HashMap};

use crate::identity::Expiry;
use crate::shard::clients::Key;
use crate::shard::local::RoomKey;

/// Memberships by when they end.
#[derive(Debug, Default)]
pub(super) struct ExpiringMemberships {
    ends: HashMap<(Key, RoomKey), Expiry>,
    in_order: BTreeSet<(Expiry, Key, RoomKey)>,
}

impl ExpiringMemberships {
    /// Sets the end of a membership; `None`: it ends with the session.
    pub fn set(&mut self, key: Key, room: RoomKey, expires: Option<Expiry>) {
        self.remove(key, room);
        if let Some(expires) = expires {
            self.ends.insert((key, room), expires);
            self.in_order.insert((expires, key, room));
        }
    }

    /// Forgets a membership that has ended.
    pub fn remove(&mut self, key: Key, room: RoomKey) {
        // Most gateways have no such membership: spares each join and leave a hash.
        if self.ends.is_empty() {
            return;
        }
        if let Some(expires) = self.ends.remove(&(key, room)) {
            self.in_order.remove(&(expires, key, room));
        }
    }

    /// Takes a membership that has expired.
    pub fn take_due(&mut self) -> Option<(Key, RoomKey)> {
        let (expires, key, room) = *self.in_order.first()?;
        expires.left().is_zero().then(|| {
            self.remove(key, room);
            (key, room)
        })
    }
}
