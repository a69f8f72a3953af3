//! A stripe: a part of the rooms behind one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use slab::Slab;
use tokio::sync::broadcast;

use super::config::Config;
use super::room::{Entered, GraceEnd, Left, RoomPresence};
use super::share::{Origin, Share};
use super::whereabouts::{RoomId, UserRoomIndex};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::json::Json;
use crate::presence::{Activity, Change, Departure, Detail, Member, Observer, Roster};
use crate::room::Room;
use crate::units::millis;

/// Number of stripes: more than threads that join at once. Each has its own queues, so not many more.
pub(super) const STRIPES: u32 = 64;

/// State that all stripes share.
#[derive(Debug)]
pub(super) struct PresenceStripes {
    pub config: Config,
    pub versions: AtomicU64,
    pub whereabouts: UserRoomIndex,
    pub activity: broadcast::Sender<Activity>,
    /// Activity of this node, for other nodes.
    pub outgoing: broadcast::Sender<Activity>,
}

/// Origin of a join or leave, which decides the watchers that are notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A connection of this node.
    Here,
    /// Another node reported it; that node notifies its own watchers.
    Told,
    /// Another node has ended; no other component notifies this node's watchers.
    Ended,
}

impl PresenceStripes {
    pub fn announce(&self, cause: Cause, activity: impl Fn() -> Activity) {
        let told = |to: &broadcast::Sender<Activity>| {
            if to.receiver_count() > 0 {
                // The last receiver may have been dropped since.
                to.send(activity()).ok();
            }
        };
        if cause != Cause::Told {
            told(&self.activity);
        }
        if cause == Cause::Here {
            told(&self.outgoing);
        }
    }

    fn joined(&self, cause: Cause, room: &Room, id: RoomId, user: &UserId, occupied: bool) {
        self.whereabouts.joined(room.tenant(), user, id);
        if occupied {
            self.announce(cause, || Activity::Occupied(room.clone()));
        }
        self.announce(cause, || Activity::Joined(room.clone(), user.clone()));
    }

    fn gone(&self, cause: Cause, room: &Room, id: RoomId, user: &UserId, vacated: bool) {
        self.whereabouts.gone(room.tenant(), user, id);
        self.announce(cause, || Activity::Left(room.clone(), user.clone()));
        if vacated {
            self.announce(cause, || Activity::Vacated(room.clone()));
        }
    }

    fn grace_ms(&self) -> u64 {
        millis(self.config.leave_grace)
    }
}

/// Grace period of a user whose last connection in a room was lost.
#[derive(Debug)]
struct Grace {
    lost_ms: u64,
    cause: Cause,
    room: Room,
    user: UserId,
}

/// Removal of another node's share of a user, with its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    /// The manner in which the connections left.
    pub departure: Departure,
    /// The origin of the removal.
    pub cause: Cause,
    /// Its age.
    pub ago: Duration,
}

/// A change and its observers.
pub(super) type ObservedChange = (Arc<Change>, Vec<Arc<dyn Observer>>);

/// A part of the rooms.
#[derive(Debug)]
pub(super) struct Stripe {
    pub rooms: HashMap<Room, RoomPresence>,
    /// Room names by the room's slot in this stripe.
    names: Slab<Room>,
    number: u32,
    /// Grace periods, oldest first; all are equally long. One for each lost last connection.
    graces: VecDeque<Grace>,
    /// Dirty set: observed rooms in which something may have changed.
    queued: Vec<Room>,
}

impl Stripe {
    /// Creates the empty stripe with this number, of [`STRIPES`].
    pub(super) fn new(number: u32) -> Self {
        Self {
            rooms: HashMap::new(),
            names: Slab::new(),
            number,
            graces: VecDeque::new(),
            queued: Vec::new(),
        }
    }

    /// Returns the number of a room's stripe.
    pub(super) const fn of(id: RoomId) -> usize {
        (id.0 % STRIPES) as usize
    }

    /// Returns the name of a room that is attended in this stripe.
    pub(super) fn name(&self, id: RoomId) -> Option<&Room> {
        self.names.get(Self::slot(id))
    }

    const fn slot(id: RoomId) -> usize {
        (id.0 / STRIPES) as usize
    }

    fn attended(&mut self, room: &Room) -> &mut RoomPresence {
        let (names, number) = (&mut self.names, self.number);
        self.rooms.entry(room.clone()).or_insert_with(|| {
            let slot =
                u32::try_from(names.insert(room.clone())).expect("a node attends fewer than 2^26 rooms a stripe");
            RoomPresence::new(RoomId(slot * STRIPES + number))
        })
    }

    /// Enters a connection. Returns whether there is something to deliver later.
    pub(super) fn enter(
        &mut self,
        shared: &PresenceStripes,
        room: &Room,
        member: &Member,
        state: Option<Json>,
    ) -> bool {
        let attended = self.attended(room);
        let id = attended.id;
        if let Entered::Joined { occupied } = attended.enter(member, state, Timestamp::now()) {
            shared.joined(Cause::Here, room, id, &member.user, occupied);
        }
        self.queue(room)
    }

    /// Sets another node's share of a user. Returns whether there is something to deliver later, and whether this node
    /// learned something that it must replicate.
    pub(super) fn set_share(
        &mut self,
        shared: &PresenceStripes,
        room: &Room,
        user: &UserId,
        origin: Origin,
        share: Share,
    ) -> (bool, bool) {
        let attended = self.attended(room);
        let id = attended.id;
        let (entered, learned) = attended.set_share(user, origin, share);
        if let Entered::Joined { occupied } = entered {
            shared.joined(Cause::Told, room, id, user, occupied);
        }
        (self.queue(room), learned)
    }

    /// Removes another node's share of a user. Returns whether there is something to deliver or to end later.
    pub(super) fn take_share(
        &mut self,
        shared: &PresenceStripes,
        room: &Room,
        user: &UserId,
        node: u64,
        withdrawal: Withdrawal,
        now_ms: u64,
    ) -> bool {
        let Some(attended) = self.rooms.get_mut(room) else {
            return false;
        };
        let ago_ms = millis(withdrawal.ago);
        let grace = withdrawal.departure == Departure::Lost && shared.grace_ms() > 0;
        let lost_ms = now_ms.saturating_sub(ago_ms);
        let left = attended.take_share(user, node, grace, lost_ms);
        self.after_leave(shared, room, user, left, withdrawal.cause, lost_ms)
    }

    /// Removes a connection. Returns whether there is something to deliver or to end later.
    pub(super) fn leave(
        &mut self,
        shared: &PresenceStripes,
        room: &Room,
        member: &Member,
        departure: Departure,
        now_ms: u64,
    ) -> bool {
        let Some(attended) = self.rooms.get_mut(room) else {
            return false;
        };
        let grace = departure == Departure::Lost && shared.grace_ms() > 0;
        let left = attended.leave(member, grace, now_ms);
        self.after_leave(shared, room, &member.user, left, Cause::Here, now_ms)
    }

    fn after_leave(
        &mut self,
        shared: &PresenceStripes,
        room: &Room,
        user: &UserId,
        left: Left,
        cause: Cause,
        lost_ms: u64,
    ) -> bool {
        if left == Left::Unknown {
            return false;
        }
        if left == Left::Lost {
            self.begin_grace(Grace {
                lost_ms,
                cause,
                room: room.clone(),
                user: user.clone(),
            });
        }
        if let Left::Gone { room: id, vacated } = left {
            shared.gone(cause, room, id, user, vacated);
        }
        let told_later = self.queue(room);
        self.forget_unused(room);
        told_later || left == Left::Lost
    }

    /// Enqueues a grace period in order of its start. Usually the newest; a failed node may have been silent for a while.
    fn begin_grace(&mut self, grace: Grace) {
        let place = self.graces.partition_point(|other| other.lost_ms <= grace.lost_ms);
        self.graces.insert(place, grace);
    }

    pub(super) fn observe(
        &mut self,
        shared: &PresenceStripes,
        room: &Room,
        observer: Arc<dyn Observer>,
        detail: Detail,
    ) -> Roster {
        let attended = self.attended(room);
        attended.observe(observer, detail, &shared.config, &shared.versions)
    }

    pub(super) fn unobserve(&mut self, room: &Room, observer_id: u16) {
        if let Some(attended) = self.rooms.get_mut(room) {
            attended.unobserve(observer_id);
            self.forget_unused(room);
        }
    }

    /// Ends grace periods and collects the changes that are due. Returns whether something is left for later.
    pub(super) fn flush(&mut self, shared: &PresenceStripes, now_ms: u64, told: &mut Vec<ObservedChange>) -> bool {
        self.end_graces(shared, now_ms);
        let mut later = Vec::new();
        for room in std::mem::take(&mut self.queued) {
            let Some(attended) = self.rooms.get_mut(&room) else {
                continue;
            };
            let telling = attended.tell(&room, now_ms, &shared.config, &shared.versions);
            let Some(watched) = &mut attended.watched else {
                continue;
            };
            watched.queued = telling.is_later;
            told.extend(telling.changes.into_iter().map(|change| {
                let observers = watched.observers(change.detail);
                (Arc::new(change), observers)
            }));
            if telling.is_later {
                later.push(room);
            }
        }
        self.queued = later;
        !self.queued.is_empty() || !self.graces.is_empty()
    }

    fn end_graces(&mut self, shared: &PresenceStripes, now_ms: u64) {
        while let Some(oldest) = self.graces.front()
            && now_ms.saturating_sub(oldest.lost_ms) >= shared.grace_ms()
        {
            let Some(grace) = self.graces.pop_front() else {
                return;
            };
            let Some(attended) = self.rooms.get_mut(&grace.room) else {
                continue;
            };
            if let GraceEnd::Gone { vacated } = attended.give_up(&grace.user, grace.lost_ms) {
                shared.gone(grace.cause, &grace.room, attended.id, &grace.user, vacated);
                self.queue(&grace.room);
                self.forget_unused(&grace.room);
            }
        }
        // Shrink below a quarter, to twice the rest: a burst of leaves must not keep its memory, nor flap.
        if self.graces.len() < self.graces.capacity() / 4 {
            self.graces.shrink_to(self.graces.len() * 2);
        }
    }

    /// Marks an observed room dirty. Returns whether it is observed.
    fn queue(&mut self, room: &Room) -> bool {
        let attended = self.rooms.get_mut(room);
        let Some(watched) = attended.and_then(|attended| attended.watched.as_mut()) else {
            return false;
        };
        if !std::mem::replace(&mut watched.queued, true) {
            self.queued.push(room.clone());
        }
        true
    }

    fn forget_unused(&mut self, room: &Room) {
        if self.rooms.get(room).is_some_and(RoomPresence::is_unused) {
            if let Some(attended) = self.rooms.remove(room) {
                self.names.remove(Self::slot(attended.id));
            }
            // A slab never shrinks by itself.
            if self.names.is_empty() {
                self.names = Slab::new();
            }
            if self.rooms.len() < self.rooms.capacity() / 4 {
                self.rooms.shrink_to(self.rooms.len() * 2);
            }
        }
    }
}
