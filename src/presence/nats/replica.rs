//! The replica of the rooms this node follows: its own part of each, its knowledge of other nodes' parts, and the agenda.
//! Pure: time is an argument, and actions are returned.

mod agenda;
pub(super) mod census;
mod hearing;

use std::collections::BTreeMap;
use std::time::Duration;

use self::agenda::Agenda;
use self::census::{Censuses, Doubt};
use super::book::NodeDigest;
use super::other::PeerView;
use super::update::{Body, Changed, DigestAnnouncement, Update};
use crate::digest::Digest;
use crate::identity::UserId;
use crate::presence::Departure;
use crate::presence::memory::{Cause, Origin, Share};
use crate::room::Room;
use crate::units::{jittered_ms, millis};

/// Timing of the replication protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// Longest delay after a change until this node announces its stand once more, in case the update was lost; at least
    /// half of it.
    pub confirm_after: Duration,
    /// Interval of later announcements, lengthened by up to a quarter.
    pub stand_interval: Duration,
    /// Delay until an unanswered request is repeated.
    pub ask_again_after: Duration,
    /// Time without a message about a room after which its node is asked.
    pub silence_max: Duration,
    /// Delay until a newly followed room is asked about once more. It is known then.
    pub settle_after: Duration,
    /// Time for which an unserved room is still followed: lost users may reconnect on another node.
    pub linger: Duration,
    /// Time for which an unknown node, without a heartbeat, is believed.
    pub unknown_max: Duration,
    /// Tombstone time: for so long an ended node is not believed, unless it lives again.
    pub ended_max: Duration,
    /// Delay after a break until everything is announced and asked anew. A node that was stopped first learns which of its
    /// clients are gone.
    pub recheck_after: Duration,
}

/// A step for the caller to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Sets a node's share of a user.
    Set(Room, Origin, UserId, Share),
    /// Removes a node's share of a user.
    Withdraw(Room, u64, UserId, Departure, Cause),
    /// Sends this to all followers of the room.
    Tell(Room, Body),
    /// Sends this to one node.
    TellNode(u64, Room, Body),
    /// Asks a node to announce its stand in all its rooms.
    Recall(u64),
    /// Asks all nodes for their parts of these rooms. Lists for each the nodes whose part is known up to some version.
    Census(u64, Vec<(Room, Vec<u64>)>),
    /// Ends the census of this number for a room: `true` if the room is known completely.
    Confirmed(Room, u64, bool),
    /// Checks whether the room, unserved for long enough, must still be followed.
    Reconsider(Room),
}

/// Liveness of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Lives,
    /// The node has sent a message, but no heartbeat yet.
    Unknown {
        since_ms: u64,
    },
    /// The node has ended: a tombstone. Its late messages are not believed.
    Ended {
        since_ms: u64,
    },
}

#[derive(Debug)]
struct Followed {
    own: NodeDigest,
    others: BTreeMap<u64, PeerView>,
    /// Nodes that may have had more than a roster showed. `None` in a room that was never counted.
    doubts: Option<Vec<Doubt>>,
    stand_at_ms: Option<u64>,
    ask_at_ms: Option<u64>,
    leave_at_ms: Option<u64>,
}

/// The rooms this node follows.
#[derive(Debug)]
pub(super) struct Replica {
    own: u64,
    rhythm: Rhythm,
    /// The last version issued, over all rooms, so that a room that is followed again continues above.
    versions: u64,
    rooms: BTreeMap<Room, Followed>,
    agenda: Agenda,
    lives: BTreeMap<u64, Life>,
    censuses: Censuses,
}

impl Replica {
    pub(super) fn new(own: u64, rhythm: Rhythm) -> Self {
        Self {
            own,
            rhythm,
            versions: 1,
            rooms: BTreeMap::new(),
            agenda: Agenda::default(),
            lives: BTreeMap::new(),
            censuses: Censuses::default(),
        }
    }

    pub(super) const fn own(&self) -> u64 {
        self.own
    }

    pub(super) fn follows(&self, room: &Room) -> bool {
        self.rooms.contains_key(room)
    }

    /// Begins to follow a room. The first action asks its followers.
    pub(super) fn follow(&mut self, room: &Room, now_ms: u64) -> Vec<Action> {
        let followed = Followed {
            own: NodeDigest::default(),
            others: BTreeMap::new(),
            doubts: None,
            stand_at_ms: None,
            ask_at_ms: Some(now_ms + millis(self.rhythm.settle_after)),
            leave_at_ms: None,
        };
        self.rooms.insert(room.clone(), followed);
        self.schedule(room);
        vec![Action::Tell(room.clone(), Body::Ask(Vec::new()))]
    }

    /// Records whether this node has connections or observers in a room it follows.
    pub(super) fn serve(&mut self, room: &Room, is_served: bool, now_ms: u64) {
        let linger_ms = millis(self.rhythm.linger);
        if let Some(followed) = self.rooms.get_mut(room) {
            followed.leave_at_ms = match followed.leave_at_ms {
                _ if is_served => None,
                None => Some(now_ms + linger_ms),
                already => already,
            };
            self.schedule(room);
        }
    }

    /// Extends the following of a room, as if its last member had left now.
    pub(super) fn linger(&mut self, room: &Room, now_ms: u64) {
        if let Some(followed) = self.rooms.get_mut(room) {
            followed.leave_at_ms = Some(now_ms + millis(self.rhythm.linger));
            self.schedule(room);
        }
    }

    /// Ends the following of a room. Other nodes' parts of it are dropped.
    pub(super) fn unfollow(&mut self, room: &Room) -> Vec<Action> {
        self.agenda.remove(room);
        self.censuses.forget(room);
        let followed = self.rooms.remove(room);
        let others = followed.into_iter().flat_map(|followed| followed.others);
        let gone = |(node, other): (u64, PeerView)| withdrawals(room, node, &other.book, Departure::Left, Cause::Told);
        others.flat_map(gone).collect()
    }

    /// Returns this node's users that are not among these.
    pub(super) fn own_missing(&self, room: &Room, there: &[(UserId, Share)]) -> Vec<UserId> {
        let Some(followed) = self.rooms.get(room) else {
            return Vec::new();
        };
        let is_missing = |user: &&UserId| there.binary_search_by(|(known, _)| known.cmp(user)).is_err();
        followed.own.users().filter(is_missing).cloned().collect()
    }

    /// Records this node's new state. Returns the update; `None` when nothing has changed.
    pub(super) fn own_update(&mut self, room: &Room, changes: Vec<Changed>, now_ms: u64) -> Option<Update> {
        let followed = self.rooms.get_mut(room)?;
        let own = &mut followed.own;
        let begins = own.is_empty();
        let changes: Vec<Changed> = changes
            .into_iter()
            .filter(|one| own.set(&one.user, one.now.as_ref().ok()))
            .collect();
        if changes.is_empty() {
            return None;
        }
        self.versions += 1;
        let previous = std::mem::replace(&mut own.version, self.versions);
        let confirm_at_ms = now_ms + self.jitter(room, millis(self.rhythm.confirm_after), now_ms);
        let followed = self.rooms.get_mut(room)?;
        followed.stand_at_ms = Some(confirm_at_ms);
        self.schedule(room);
        Some(Update {
            version: self.versions,
            previous,
            changes,
            occupied_since: None,
            begins,
        })
    }

    /// Returns this node's stand in a room. In a room that it does not follow it has nothing, at whatever version.
    pub(super) fn own_stand(&self, room: &Room) -> DigestAnnouncement {
        let own = self.rooms.get(room).map(|followed| followed.own.stand(self.own));
        own.filter(|stand| stand.version > 0).unwrap_or(DigestAnnouncement {
            incarnation: self.own,
            version: self.versions,
            users: 0,
            digest: 0,
        })
    }

    /// Records that a node lives. `begins`: it has just started.
    pub(super) fn came(&mut self, node: u64, begins: bool, now_ms: u64) -> Option<Action> {
        let before = self.lives.insert(node, Life::Lives);
        let has_ended = matches!(before, Some(Life::Ended { .. }));
        match before {
            Some(Life::Lives) => {}
            Some(Life::Unknown { .. }) | None if begins => self.doubt_new(node, now_ms),
            _ => self.doubt_unheard(node, now_ms),
        }
        // Its parts were dropped here, and it does not know that.
        has_ended.then_some(Action::Recall(node))
    }

    /// Records that a node has ended, or was given up: its users are lost.
    pub(super) fn went(&mut self, node: u64, now_ms: u64) -> Vec<Action> {
        self.lives.insert(node, Life::Ended { since_ms: now_ms });
        let mut actions = Vec::new();
        for (room, followed) in &mut self.rooms {
            if let Some(other) = followed.others.remove(&node) {
                actions.extend(withdrawals(room, node, &other.book, Departure::Lost, Cause::Ended));
            }
        }
        self.forget_census_of(node, now_ms, &mut actions);
        actions
    }

    /// Schedules a request to all followers of a room, soon.
    pub(super) fn ask_anew(&mut self, room: &Room, now_ms: u64) {
        if let Some(followed) = self.rooms.get_mut(room) {
            followed.ask_at_ms = Some(now_ms);
            self.schedule(room);
        }
    }

    /// Schedules an announcement of this node's stand in each room, on request.
    pub(super) fn stand_everywhere(&mut self, now_ms: u64) {
        self.everywhere(now_ms, |followed, at_ms| {
            followed.stand_at_ms = (!followed.own.is_empty()).then_some(at_ms);
        });
    }

    /// Schedules all requests and announcements anew: messages may have been lost in both directions.
    pub(super) fn recheck(&mut self, now_ms: u64) {
        self.everywhere(now_ms, |followed, at_ms| {
            followed.ask_at_ms = Some(at_ms);
            followed.stand_at_ms = Some(at_ms);
        });
    }

    fn everywhere(&mut self, now_ms: u64, plan: impl Fn(&mut Followed, u64)) {
        let mut rooms: Vec<Room> = self.rooms.keys().cloned().collect();
        rooms.sort_unstable();
        let from_ms = now_ms + millis(self.rhythm.recheck_after);
        // Two rooms a millisecond, so that the burst does not flood NATS.
        for (index, room) in rooms.iter().enumerate() {
            if let Some(followed) = self.rooms.get_mut(room) {
                plan(followed, from_ms + index as u64 / 2);
            }
            self.schedule(room);
        }
    }

    /// Returns the time of the next step.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let times = [self.agenda.next_ms(), self.censuses.next_ms()];
        times.into_iter().flatten().min()
    }

    /// Returns the steps that are due. At most some hundred rooms at a time.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Action> {
        let mut actions = self.end_unknown(now_ms);
        self.due_censuses(now_ms, &mut actions);
        for room in self.agenda.due(now_ms) {
            self.due_in(&room, now_ms, &mut actions);
            self.schedule(&room);
        }
        actions
    }

    fn end_unknown(&mut self, now_ms: u64) -> Vec<Action> {
        let unknown_max_ms = millis(self.rhythm.unknown_max);
        let too_long = |(node, life): (&u64, &Life)| match life {
            Life::Unknown { since_ms } if now_ms >= since_ms + unknown_max_ms => Some(*node),
            _ => None,
        };
        let unknown: Vec<u64> = self.lives.iter().filter_map(too_long).collect();
        let ended_max_ms = millis(self.rhythm.ended_max);
        self.lives
            .retain(|_, life| !matches!(life, Life::Ended { since_ms } if now_ms >= *since_ms + ended_max_ms));
        unknown.into_iter().flat_map(|node| self.went(node, now_ms)).collect()
    }

    fn due_in(&mut self, room: &Room, now_ms: u64, actions: &mut Vec<Action>) {
        let own_stand = self.own_stand(room);
        let interval_ms = millis(self.rhythm.stand_interval);
        let next_stand_ms = now_ms + interval_ms * 3 / 4 + self.jitter(room, interval_ms / 2, now_ms);
        let rhythm = self.rhythm;
        let Some(followed) = self.rooms.get_mut(room) else {
            return;
        };
        if followed.leave_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            followed.leave_at_ms = None;
            actions.push(Action::Reconsider(room.clone()));
        }
        if followed.ask_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            followed.ask_at_ms = None;
            let known = followed.others.iter().map(|(node, other)| other.book.stand(*node));
            let known = Body::Ask(known.collect());
            actions.push(Action::Tell(room.clone(), known));
        }
        if followed.stand_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            // An empty part is announced only once.
            followed.stand_at_ms = (!followed.own.is_empty()).then_some(next_stand_ms);
            actions.push(Action::Tell(room.clone(), Body::Stand(own_stand)));
        }
        for (node, other) in &mut followed.others {
            if other.ask_at_ms(&rhythm).is_some_and(|at_ms| at_ms <= now_ms) {
                other.ask_at_ms = Some(now_ms + millis(rhythm.ask_again_after));
                actions.push(ask(room, *node, other));
            }
        }
    }

    fn schedule(&mut self, room: &Room) {
        let Some(followed) = self.rooms.get(room) else { return };
        let own = [followed.stand_at_ms, followed.ask_at_ms, followed.leave_at_ms];
        let others = followed.others.values().map(|other| other.ask_at_ms(&self.rhythm));
        let at_ms = own.into_iter().chain(others).flatten().min();
        self.agenda.set(room, at_ms);
    }

    /// Returns between half of a time and all of it. Deterministic per room and time, so that simulations replay.
    fn jitter(&self, room: &Room, ms: u64, now_ms: u64) -> u64 {
        let mut digest = Digest::seeded(self.own ^ now_ms);
        digest.add(room.key());
        jittered_ms(ms, digest.value() >> 32)
    }
}

impl PeerView {
    /// Returns the time at which the node is asked, unless a message arrives before.
    fn ask_at_ms(&self, rhythm: &Rhythm) -> Option<u64> {
        let is_silent = || (!self.book.is_empty()).then(|| self.confirmed_ms + millis(rhythm.silence_max));
        self.ask_at_ms.or_else(is_silent)
    }
}

fn ask(room: &Room, node: u64, other: &PeerView) -> Action {
    Action::TellNode(node, room.clone(), Body::Ask(vec![other.book.stand(node)]))
}

fn withdrawals(room: &Room, node: u64, book: &NodeDigest, departure: Departure, cause: Cause) -> Vec<Action> {
    let withdraw = |user: &UserId| Action::Withdraw(room.clone(), node, user.clone(), departure, cause);
    book.users().map(withdraw).collect()
}
