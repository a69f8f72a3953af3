//! What other nodes have, beside what this one has: for whoever tells nodes of each other.

use tokio::sync::broadcast;

use super::{Attended, MemoryPresence, Origin, RoomId, Share, Stripe, Withdrawal, lock};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::presence::{Activity, Present};
use crate::room::{Room, Tenant};

/// What this node itself has to do with a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Own {
    /// It has connections there, or observers.
    pub is_served: bool,
    /// Somebody is there since, with no break, on whichever node.
    pub occupied_since: Option<Timestamp>,
}

impl MemoryPresence {
    /// Sets what another node has of a user in a room. Answers whether this node, which has connections of the user there
    /// too, has learned something about the user that it has to pass on.
    pub fn set_share(&self, room: &Room, user: &UserId, origin: Origin, share: Share) -> bool {
        let (told_later, learned) = self.stripe(room).set_share(&self.shared, room, user, origin, share);
        if told_later {
            self.work.notify_one();
        }
        learned
    }

    /// Takes off what another node had of a user in a room.
    pub fn take_share(&self, room: &Room, user: &UserId, node: u64, withdrawal: Withdrawal) {
        let now_ms = self.now_ms();
        let mut stripe = self.stripe(room);
        if stripe.take_share(&self.shared, room, user, node, withdrawal, now_ms) {
            self.work.notify_one();
        }
    }

    /// Another node says that somebody has been in the room since then with no break.
    pub fn was_occupied(&self, room: &Room, since: Timestamp) {
        if let Some(attended) = self.stripe(room).rooms.get_mut(room) {
            attended.was_occupied(since);
        }
    }

    /// What this node has of a user in a room.
    #[must_use]
    pub fn own_share(&self, room: &Room, user: &UserId) -> Option<Share> {
        self.read(room, |attended| attended.own_share(user))
    }

    /// What this node has in a room, by user.
    #[must_use]
    pub fn own_shares(&self, room: &Room) -> Vec<(UserId, Share)> {
        self.read(room, |attended| attended.own_shares().collect())
    }

    /// What this node has to do with a room.
    #[must_use]
    pub fn own(&self, room: &Room) -> Own {
        self.read(room, |attended| Own {
            is_served: attended.is_own(),
            occupied_since: attended.occupied_since(),
        })
    }

    /// The rooms this node has a user in, with what it has of it.
    #[must_use]
    pub fn own_rooms_of(&self, tenant: &Tenant, user: &UserId) -> Vec<(Room, Share)> {
        self.find_by(tenant, user, |attended| attended.own_share(user))
    }

    /// What happened by this node's own connections from now on.
    #[must_use]
    pub fn outgoing(&self) -> broadcast::Receiver<Activity> {
        self.shared.outgoing.subscribe()
    }

    /// Tells this node's watchers what happened on another one.
    pub fn announce_here(&self, activity: Activity) {
        // Nobody may be watching.
        self.shared.activity.send(activity).ok();
    }

    /// Whether this node has watchers.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.shared.activity.receiver_count() > 0
    }

    /// [`crate::presence::Presence::rooms_of`], as far as this node knows.
    #[must_use]
    pub fn find(&self, tenant: &Tenant, user: &UserId) -> Vec<(Room, Present)> {
        self.find_by(tenant, user, |attended| attended.shown(user))
    }

    /// The rooms in which the user is only shown because it may be on its way back.
    #[must_use]
    pub fn find_lost(&self, tenant: &Tenant, user: &UserId) -> Vec<(Room, Present)> {
        self.find_by(tenant, user, |attended| attended.shown_lost(user))
    }

    fn find_by<T>(&self, tenant: &Tenant, user: &UserId, read: impl Fn(&Attended) -> Option<T>) -> Vec<(Room, T)> {
        let rooms = self.shared.whereabouts.rooms_of(tenant.as_str(), user);
        let read = |id: RoomId| {
            let stripe = lock(&self.stripes[Stripe::of(id)]);
            // The room may be another one by now, and the user one that shares the hash.
            let room = stripe.name(id).filter(|room| room.tenant() == tenant.as_str())?;
            let found = read(stripe.rooms.get(room)?)?;
            Some((room.clone(), found))
        };
        let mut found: Vec<(Room, T)> = rooms.into_iter().filter_map(read).collect();
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found.dedup_by(|(one, _), (other, _)| one == other);
        found
    }
}
