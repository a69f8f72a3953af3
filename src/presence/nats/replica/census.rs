//! Censuses: quorum reads over all living nodes, after which this node knows rooms completely. And doubts: nodes whose
//! earlier state of a room stays unknown until they reply.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Action, Followed, Life, Replica};
use crate::presence::nats::update::DigestAnnouncement;
use crate::room::Room;
use crate::units::millis;

/// Interval at which rooms whose census left doubts are counted again.
const RECOUNT_INTERVAL_MS: u64 = 1000;

/// Deadline of a recount: that of a census.
const RECOUNT_WITHIN: Duration = Duration::from_millis(225);

/// The most rooms of one census: so many names fit into a message.
pub(in crate::presence::nats) const CENSUS_ROOMS_MAX: usize = 256;

/// Delay until a version that an account announces, but that is missing here, is asked for. Usually it is in flight.
pub(super) const ON_ITS_WAY_MS: u64 = 50;

/// The longest time between a node's first served client and its first heartbeat.
const BEGIN_LATE_MS: u64 = 1000;

/// A node that may have had more in a room than a roster showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt {
    node: u64,
    /// The first census whose reply ends the doubt.
    census: u64,
    /// The version at which it ends; `None` until the census has a reply.
    version: Option<u64>,
}

/// A census that not all nodes have replied to.
#[derive(Debug)]
struct Census {
    number: u64,
    /// Rooms that are not confirmed yet.
    rooms: BTreeSet<Room>,
    awaited: BTreeSet<u64>,
    /// Set when a living node is not awaited.
    is_partial: bool,
    until_ms: u64,
}

/// The censuses of a node.
#[derive(Debug, Default)]
pub(super) struct Censuses {
    issued: u64,
    open: Vec<Census>,
    /// Living nodes that left a census unanswered. They are not awaited until they are heard again.
    silent: BTreeSet<u64>,
    /// Dirty set: rooms to be counted again.
    doubtful: BTreeSet<Room>,
    recount_at_ms: u64,
    /// Rooms counted lately, with the time. Oldest first.
    recent: VecDeque<(u64, Room)>,
}

impl Censuses {
    pub(super) fn next_ms(&self) -> Option<u64> {
        let open = self.open.iter().map(|census| census.until_ms);
        open.chain((!self.doubtful.is_empty()).then_some(self.recount_at_ms))
            .min()
    }

    fn doubt_again(&mut self, room: Room, now_ms: u64) {
        if self.doubtful.is_empty() {
            self.recount_at_ms = now_ms + RECOUNT_INTERVAL_MS;
        }
        self.doubtful.insert(room);
    }

    pub(super) fn forget(&mut self, room: &Room) {
        self.doubtful.remove(room);
    }

    fn forget_old_counts(&mut self, now_ms: u64) {
        let old = self.recent.partition_point(|(at_ms, _)| at_ms + BEGIN_LATE_MS < now_ms);
        self.recent.drain(..old);
    }
}

impl Followed {
    /// Reports whether a node may have had more in the room than is known. True for any node before the first count.
    pub(super) fn doubts(&self, node: u64) -> bool {
        let Some(doubts) = &self.doubts else { return true };
        doubts.iter().any(|doubt| doubt.node == node)
    }

    fn doubt(&mut self, node: u64, census: u64) {
        let doubts = self.doubts.get_or_insert_default();
        doubts.retain(|doubt| doubt.node != node);
        doubts.push(Doubt {
            node,
            census,
            version: None,
        });
    }

    /// Ends the doubts of a node that has replied and is known up to its reply.
    pub(super) fn resolve(&mut self, node: u64) {
        let version = self.others.get(&node).map_or(0, |other| other.book.version);
        if let Some(doubts) = &mut self.doubts {
            let is_over = |doubt: &Doubt| doubt.version.is_some_and(|needed| needed <= version);
            doubts.retain(|doubt| doubt.node != node || !is_over(doubt));
        }
    }

    /// Records a node's reply to a census, at this version.
    fn answered(&mut self, node: u64, census: u64, version: u64) {
        for doubt in self.doubts.iter_mut().flatten() {
            if doubt.node == node && doubt.census <= census {
                doubt.version = Some(version);
            }
        }
        self.resolve(node);
    }

    /// Reports whether an announced version of one of these nodes is missing.
    fn is_missing(&self, is_meant: impl Fn(&u64) -> bool) -> bool {
        let meant = self.others.iter().filter(|(node, _)| is_meant(node));
        meant.into_iter().any(|(_, other)| other.is_missing())
    }
}

impl Replica {
    /// Asks all living nodes for their parts of followed rooms. Each room is confirmed when all have replied, or after
    /// `within`. Also returns the census's number.
    pub(in crate::presence::nats) fn census(
        &mut self,
        rooms: &[Room],
        within: Duration,
        now_ms: u64,
    ) -> (u64, Vec<Action>) {
        self.censuses.issued += 1;
        let number = self.censuses.issued;
        let lives = |(node, life): (&u64, &Life)| (*life == Life::Lives).then_some(*node);
        let live: BTreeSet<u64> = self.lives.iter().filter_map(lives).collect();
        let silent: Vec<u64> = live.intersection(&self.censuses.silent).copied().collect();
        let mut asked = Vec::with_capacity(rooms.len());
        self.censuses.forget_old_counts(now_ms);
        for room in rooms {
            let Some(followed) = self.rooms.get_mut(room) else {
                continue;
            };
            self.censuses.recent.push_back((now_ms, room.clone()));
            let is_first = followed.doubts.is_none();
            let doubted: Vec<u64> = if is_first {
                live.iter().copied().collect()
            } else {
                silent.clone()
            };
            followed.doubts.get_or_insert_default();
            for node in doubted {
                followed.doubt(node, number);
            }
            let known = followed.others.iter().filter(|(_, other)| other.book.version > 0);
            asked.push((room.clone(), known.map(|(node, _)| *node).collect()));
        }
        let mut actions = Vec::new();
        if !live.is_empty() {
            actions.push(Action::Census(number, asked));
        }
        self.censuses.open.push(Census {
            number,
            rooms: rooms.iter().cloned().collect(),
            is_partial: !silent.is_empty(),
            awaited: live.into_iter().filter(|node| !silent.contains(node)).collect(),
            until_ms: now_ms + millis(within),
        });
        // At once where no node is awaited.
        self.confirm(None, now_ms, &mut actions);
        (number, actions)
    }

    /// Merges a node's reply to a census: its stands in rooms.
    pub(in crate::presence::nats) fn account(
        &mut self,
        node: u64,
        number: u64,
        stands: Vec<(Room, DigestAnnouncement)>,
        now_ms: u64,
    ) -> Vec<Action> {
        if matches!(self.lives.get(&node), Some(Life::Ended { .. })) {
            return Vec::new();
        }
        self.censuses.silent.remove(&node);
        let mut versions = BTreeMap::new();
        let mut actions = Vec::new();
        for (room, stand) in stands.into_iter().filter(|(_, stand)| stand.incarnation == node) {
            actions.extend(self.hear_stand(&room, stand, true, now_ms));
            let is_known = self
                .rooms
                .get(&room)
                .is_some_and(|followed| followed.others.contains_key(&node));
            versions.insert(room, if is_known { stand.version } else { 0 });
        }
        if let Some(census) = self.censuses.open.iter_mut().find(|census| census.number == number) {
            census.awaited.remove(&node);
            // Unnamed rooms are empty.
            for room in &census.rooms {
                versions.entry(room.clone()).or_insert(0);
            }
        }
        for (room, version) in versions {
            if let Some(followed) = self.rooms.get_mut(&room) {
                followed.answered(node, number, version);
            }
        }
        self.confirm(None, now_ms, &mut actions);
        actions
    }

    /// Confirms rooms, or only one, of censuses that have all replies and of which nothing is missing.
    pub(super) fn confirm(&mut self, only: Option<&Room>, now_ms: u64, actions: &mut Vec<Action>) {
        let Censuses { open, silent, .. } = &mut self.censuses;
        let mut left_doubts = Vec::new();
        for census in open.iter_mut().filter(|census| census.awaited.is_empty()) {
            let is_meant = |room: &&Room| only.is_none_or(|only| only == *room);
            let is_known = |room: &&Room| {
                let followed = self.rooms.get(*room);
                followed.is_none_or(|followed| !followed.is_missing(|node| !silent.contains(node)))
            };
            let known: Vec<Room> = census.rooms.iter().filter(is_meant).filter(is_known).cloned().collect();
            for room in known {
                census.rooms.remove(&room);
                if census.is_partial {
                    left_doubts.push(room.clone());
                }
                actions.push(Action::Confirmed(room, census.number, !census.is_partial));
            }
        }
        open.retain(|census| !census.rooms.is_empty());
        for room in left_doubts {
            self.censuses.doubt_again(room, now_ms);
        }
    }

    /// Ends censuses whose deadline has passed, and recounts rooms with doubts.
    pub(super) fn due_censuses(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let is_over = |census: &mut Census| census.until_ms <= now_ms;
        let over: Vec<Census> = self.censuses.open.extract_if(.., is_over).collect();
        for census in over {
            self.censuses.silent.extend(&census.awaited);
            for room in census.rooms {
                if let Some(followed) = self.rooms.get_mut(&room) {
                    let missing = followed.others.iter().filter(|(_, other)| other.is_missing());
                    let missing: Vec<u64> = missing.map(|(node, _)| *node).collect();
                    for node in census.awaited.iter().chain(&missing) {
                        followed.doubt(*node, census.number);
                    }
                    self.censuses.doubt_again(room.clone(), now_ms);
                }
                actions.push(Action::Confirmed(room, census.number, false));
            }
        }
        if !self.censuses.doubtful.is_empty() && self.censuses.recount_at_ms <= now_ms {
            self.censuses.recount_at_ms = now_ms + RECOUNT_INTERVAL_MS;
            let rooms = self.take_doubtful();
            if !rooms.is_empty() {
                let (_, counted) = self.census(&rooms, RECOUNT_WITHIN, now_ms);
                // No caller waits for a recount.
                actions.extend(
                    counted
                        .into_iter()
                        .filter(|action| !matches!(action, Action::Confirmed(..))),
                );
            }
        }
    }

    fn take_doubtful(&mut self) -> Vec<Room> {
        let mut rooms = Vec::new();
        while rooms.len() < CENSUS_ROOMS_MAX
            && let Some(room) = self.censuses.doubtful.pop_first()
        {
            let followed = self.rooms.get(&room);
            if followed.is_some_and(|followed| followed.doubts.as_ref().is_some_and(|doubts| !doubts.is_empty())) {
                rooms.push(room);
            }
        }
        rooms
    }

    /// Doubts a node that was unknown or given up and lives: its earlier state is unknown, and no census awaited it.
    pub(super) fn doubt_unheard(&mut self, node: u64, now_ms: u64) {
        let counted = self.rooms.iter().filter(|(_, followed)| followed.doubts.is_some());
        let counted: Vec<Room> = counted.map(|(room, _)| room.clone()).collect();
        self.doubt_in(counted, node, now_ms);
    }

    /// Doubts a node that has just started, in rooms counted lately: its first heartbeat was in flight. In rooms counted
    /// before it had nothing.
    pub(super) fn doubt_new(&mut self, node: u64, now_ms: u64) {
        self.censuses.forget_old_counts(now_ms);
        let counted = self.censuses.recent.iter().map(|(_, room)| room.clone());
        let counted: BTreeSet<Room> = counted.collect();
        self.doubt_in(counted, node, now_ms);
    }

    fn doubt_in(&mut self, counted: impl IntoIterator<Item = Room>, node: u64, now_ms: u64) {
        let next = self.censuses.issued + 1;
        for room in counted {
            // The room may have been left since.
            if let Some(followed) = self.rooms.get_mut(&room) {
                followed.doubt(node, next);
                self.censuses.doubt_again(room, now_ms);
            }
        }
    }

    /// Drops an ended node from all censuses and doubts: it has nothing.
    pub(super) fn forget_census_of(&mut self, node: u64, now_ms: u64, actions: &mut Vec<Action>) {
        self.censuses.silent.remove(&node);
        for census in &mut self.censuses.open {
            census.awaited.remove(&node);
        }
        for followed in self.rooms.values_mut() {
            if let Some(doubts) = &mut followed.doubts {
                doubts.retain(|doubt| doubt.node != node);
            }
        }
        self.confirm(None, now_ms, actions);
    }
}
