//! One room's presence as a pure state machine: users that enter, leave, are lost and given up. Time is an argument.

use super::attendance::Attendance;
use super::share::{Origin, Share};
use super::users::Users;
use super::watched::Watched;
use super::whereabouts::RoomId;
use crate::event::{Except, Timestamp};
use crate::identity::UserId;
use crate::json::Json;
use crate::presence::{Counts, Member, Present, RosterPage};

/// Outcome of an enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// The user was not shown before.
    Joined {
        /// Set when the room was empty before.
        occupied: bool,
    },
    /// A further connection of a user, or the first reconnect of a lost user.
    Connected,
    /// The connection was already there.
    Renewed,
}

/// Outcome of a grace period that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GraceEnd {
    /// The user has reconnected since, or left.
    Stays,
    /// The user is gone.
    Gone {
        /// The room is empty now.
        vacated: bool,
    },
}

/// Outcome of a leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The connection was not there.
    Unknown,
    /// The user has other connections.
    Disconnected,
    /// It was the user's last connection; the grace period begins.
    Lost,
    /// It was the user's last connection.
    Gone {
        /// The room.
        room: RoomId,
        /// Set when the room is empty now.
        vacated: bool,
    },
}

/// Presence of a room that has members or observers.
#[derive(Debug)]
pub(super) struct RoomPresence {
    pub(super) id: RoomId,
    pub(super) users: Users,
    /// Open connections of this node.
    connections: u32,
    /// Connections of other nodes.
    away: u32,
    /// Users whose last connection was lost.
    lost: u32,
    /// Start of the current unbroken occupancy.
    occupied_since: Timestamp,
    /// The observers. Most rooms have none and pay one word for it.
    pub(super) watched: Option<Box<Watched>>,
}

impl RoomPresence {
    pub(super) const fn new(id: RoomId) -> Self {
        Self {
            id,
            users: Users::new(),
            connections: 0,
            away: 0,
            lost: 0,
            occupied_since: Timestamp(0),
            watched: None,
        }
    }

    /// Reports whether the room has neither users nor observers.
    pub(super) fn is_unused(&self) -> bool {
        self.users.is_empty() && self.watched.is_none()
    }

    /// Counts the shown users; a lost user counts with one connection.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            users: u32::try_from(self.users.len()).unwrap_or(u32::MAX),
            connections: self.connections + self.away + self.lost,
        }
    }

    /// Reports whether this node has connections or observers in the room.
    pub(super) const fn is_own(&self) -> bool {
        self.connections > 0 || self.watched.is_some()
    }

    /// Returns this node's share of a user.
    pub(super) fn own_share(&self, user: &UserId) -> Option<Share> {
        self.users.find(user)?.own_share()
    }

    /// Returns this node's shares of the room, by user.
    pub(super) fn own_shares(&self) -> impl Iterator<Item = (UserId, Share)> + '_ {
        let shares = self
            .users
            .iter()
            .map(|(user, attendance)| (user, attendance.own_share()));
        shares.filter_map(|(user, share)| Some((user.clone(), share?)))
    }

    pub(super) fn occupied_since(&self) -> Option<Timestamp> {
        (!self.users.is_empty()).then_some(self.occupied_since)
    }

    /// Adopts an earlier start of occupancy that another node reports.
    pub(super) fn was_occupied(&mut self, since: Timestamp) {
        self.occupied_since = self.occupied_since.min(since);
    }

    pub(super) fn enter(&mut self, member: &Member, state: Option<Json>, now: Timestamp) -> Entered {
        // Before anything changes: observers receive differences to the state kept here.
        self.before_change(&member.user, true);
        let occupied = self.users.is_empty();
        let Some(attendance) = self.users.find(&member.user) else {
            let mut attendance = Attendance::of(member.connection, now);
            attendance.set_state(member.connection, state, now);
            self.users.insert(member.user.clone(), attendance);
            self.connections += 1;
            if occupied {
                self.occupied_since = now;
            }
            return Entered::Joined { occupied };
        };
        if attendance.has(member.connection) {
            self.users.set_state(member, state, now);
            return Entered::Renewed;
        }
        self.lost -= u32::from(attendance.lost_at_ms().is_some());
        self.connections += 1;
        self.users.connect(&member.user, member.connection);
        if state.is_some() {
            self.users.set_state(member, state, now);
        }
        Entered::Connected
    }

    /// Removes a connection. With `grace` the user is still shown if this was its last one.
    pub(super) fn leave(&mut self, member: &Member, grace: bool, now_ms: u64) -> Left {
        let Some(attendance) = self.users.find(&member.user) else {
            return Left::Unknown;
        };
        if !attendance.has(member.connection) {
            return Left::Unknown;
        }
        self.before_change(&member.user, true);
        self.connections -= 1;
        self.users.disconnect(&member.user, member.connection, now_ms);
        self.after_disconnect(&member.user, grace)
    }

    /// Sets another node's share of a user, see [`Origin`]. Also returns whether this node learned something that it must
    /// replicate, see [`Attendance::set_share`].
    pub(super) fn set_share(&mut self, user: &UserId, origin: Origin, share: Share) -> (Entered, bool) {
        let node = origin.node;
        self.before_change(user, origin.is_news);
        let occupied = self.users.is_empty();
        let (connections, since) = (share.connections, share.since);
        if occupied || since < self.occupied_since {
            self.occupied_since = since;
        }
        let Some(attendance) = self.users.find(user) else {
            self.away += connections;
            self.users.insert(user.clone(), Attendance::away(node, share));
            return (Entered::Joined { occupied }, false);
        };
        let before = attendance.count_of(node);
        self.lost -= u32::from(attendance.lost_at_ms().is_some());
        self.away = self.away - before.unwrap_or_default() + connections;
        let learned = self.users.set_share(user, node, share);
        let entered = before.map_or(Entered::Connected, |_| Entered::Renewed);
        (entered, learned)
    }

    /// Removes another node's share of a user. `grace` as in [`Self::leave`]; it counts from `lost_ms`.
    pub(super) fn take_share(&mut self, user: &UserId, node: u64, grace: bool, lost_ms: u64) -> Left {
        let Some(connections) = self.users.find(user).and_then(|attendance| attendance.count_of(node)) else {
            return Left::Unknown;
        };
        self.before_change(user, true);
        self.away -= connections;
        self.users.take_share(user, node, lost_ms);
        self.after_disconnect(user, grace)
    }

    fn after_disconnect(&mut self, user: &UserId, grace: bool) -> Left {
        let attendance = self.users.find(user);
        if attendance.is_some_and(|attendance| attendance.lost_at_ms().is_none()) {
            return Left::Disconnected;
        }
        if grace {
            self.lost += 1;
            return Left::Lost;
        }
        self.users.remove(user);
        Left::Gone {
            room: self.id,
            vacated: self.users.is_empty(),
        }
    }

    /// Ends the grace period that began at `lost_ms`, unless the user has reconnected since.
    pub(super) fn give_up(&mut self, user: &UserId, lost_ms: u64) -> GraceEnd {
        // Another start means a later grace period, which has an entry of its own in the queue.
        let lost_at_ms = self.users.find(user).and_then(Attendance::lost_at_ms);
        if lost_at_ms != Some(lost_ms) {
            return GraceEnd::Stays;
        }
        self.before_change(user, true);
        self.lost -= 1;
        self.users.remove(user);
        GraceEnd::Gone {
            vacated: self.users.is_empty(),
        }
    }

    /// Keeps the user as the observers know it, before it changes. With `is_news`, a user that is not known here was not
    /// in the room.
    fn before_change(&mut self, user: &UserId, is_news: bool) {
        let users = &self.users;
        if let Some(watched) = &mut self.watched {
            watched.keep(user, is_news, || {
                users.find(user).map(|attendance| attendance.shown(user))
            });
        }
    }

    pub(super) fn shown(&self, user: &UserId) -> Option<Present> {
        self.users.find(user).map(|attendance| attendance.shown(user))
    }

    /// Returns the user as shown, if it is in its grace period.
    pub(super) fn shown_lost(&self, user: &UserId) -> Option<Present> {
        let attendance = self.users.find(user)?;
        attendance.lost_at_ms().map(|_| attendance.shown(user))
    }

    pub(super) fn page(&self, after: Option<&UserId>, size: usize) -> RosterPage {
        let mut rest = self.users.after(after);
        let shown = |(user, attendance): (&UserId, &Attendance)| attendance.shown(user);
        let members: Vec<Present> = rest.by_ref().take(size).map(shown).collect();
        let more = rest.next().is_some();
        let next_after = members.last().filter(|_| more).map(|last| last.user.clone());
        RosterPage {
            counts: self.counts(),
            members,
            next_after,
            partial: false,
        }
    }

    /// Counts this node's open connections that `except` does not leave out.
    pub(super) fn reached(&self, except: &Except) -> u32 {
        let by_user = || distinct(except.users()).filter_map(|user| self.users.find(user));
        let left_out: u32 = by_user().map(Attendance::own_count).sum();
        let is_counted = |connection| by_user().any(|attendance| attendance.has(connection));
        let by_connection = distinct(except.connections())
            .filter(|connection| self.users.has(**connection) && !is_counted(**connection));
        let alone = u32::try_from(by_connection.count()).unwrap_or(u32::MAX);
        self.connections.saturating_sub(left_out + alone)
    }
}

/// Returns the items of a short list, each once.
fn distinct<T: PartialEq>(items: &[T]) -> impl Iterator<Item = &T> {
    let first = |(index, item): &(usize, &T)| !items[..*index].contains(*item);
    items.iter().enumerate().filter(first).map(|(_, item)| item)
}
