//! The replicated half of the in-process presence: shares of other nodes, and this node's own for them.

use tokio::sync::broadcast;

use super::{MemoryPresence, Origin, RoomId, RoomPresence, Share, Stripe, Withdrawal};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::presence::{Activity, Present};
use crate::room::{Room, Tenant};
use crate::sync::lock;

/// This node's part in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeShare {
    /// Set when this node has connections or observers in the room.
    pub is_served: bool,
    /// Start of the current unbroken occupancy, on whichever node.
    pub occupied_since: Option<Timestamp>,
}

impl MemoryPresence {
    /// Sets another node's share of a user in a room. Returns whether this node, if it has connections of the user there
    /// too, learned something about the user that it must replicate.
    pub fn set_share(&self, room: &Room, user: &UserId, origin: Origin, share: Share) -> bool {
        let (told_later, learned) = self.stripe(room).set_share(&self.shared, room, user, origin, share);
        if told_later {
            self.work.notify_one();
        }
        learned
    }

    /// Removes another node's share of a user in a room.
    pub fn take_share(&self, room: &Room, user: &UserId, node: u64, withdrawal: Withdrawal) {
        let now_ms = self.now_ms();
        let mut stripe = self.stripe(room);
        if stripe.take_share(&self.shared, room, user, node, withdrawal, now_ms) {
            self.work.notify_one();
        }
    }

    /// Adopts another node's start of occupancy, if it is earlier.
    pub fn was_occupied(&self, room: &Room, since: Timestamp) {
        if let Some(attended) = self.stripe(room).rooms.get_mut(room) {
            attended.was_occupied(since);
        }
    }

    /// Returns this node's share of a user in a room.
    #[must_use]
    pub fn own_share(&self, room: &Room, user: &UserId) -> Option<Share> {
        self.read(room, |attended| attended.own_share(user))
    }

    /// Returns this node's shares of a room, by user.
    #[must_use]
    pub fn own_shares(&self, room: &Room) -> Vec<(UserId, Share)> {
        self.read(room, |attended| attended.own_shares().collect())
    }

    /// Returns this node's part in a room.
    #[must_use]
    pub fn own(&self, room: &Room) -> NodeShare {
        self.read(room, |attended| NodeShare {
            is_served: attended.is_own(),
            occupied_since: attended.occupied_since(),
        })
    }

    /// Returns the rooms in which this node has a user, with its share.
    #[must_use]
    pub fn own_rooms_of(&self, tenant: &Tenant, user: &UserId) -> Vec<(Room, Share)> {
        self.find_by(tenant, user, |attended| attended.own_share(user))
    }

    /// Subscribes to later activity of this node's own connections.
    #[must_use]
    pub fn outgoing(&self) -> broadcast::Receiver<Activity> {
        self.shared.outgoing.subscribe()
    }

    /// Reports another node's activity to this node's watchers.
    pub fn announce_here(&self, activity: Activity) {
        // An error means that there is no watcher.
        self.shared.activity.send(activity).ok();
    }

    /// Reports whether this node has watchers.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.shared.activity.receiver_count() > 0
    }

    /// Implements [`crate::presence::Presence::rooms_of`] from this node's state alone.
    #[must_use]
    pub fn find(&self, tenant: &Tenant, user: &UserId) -> Vec<(Room, Present)> {
        self.find_by(tenant, user, |attended| attended.shown(user))
    }

    /// Returns the rooms in which the user is shown only by its grace period.
    #[must_use]
    pub fn find_lost(&self, tenant: &Tenant, user: &UserId) -> Vec<(Room, Present)> {
        self.find_by(tenant, user, |attended| attended.shown_lost(user))
    }

    fn find_by<T>(&self, tenant: &Tenant, user: &UserId, read: impl Fn(&RoomPresence) -> Option<T>) -> Vec<(Room, T)> {
        let rooms = self.shared.whereabouts.rooms_of(tenant.as_str(), user);
        let read = |id: RoomId| {
            let stripe = lock(&self.stripes[Stripe::of(id)]);
            // The id may have been reused for another room, and another user may share the hash.
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
