//! One node's reconciler: local changes become messages to other nodes, and their messages become shown state. Pure:
//! messages are returned, and time is an argument.

use std::sync::Arc;
use std::time::Duration;

use super::replica::{Action, Replica, Rhythm};
use super::touched::{DirtyRooms, Touch};
use super::update::{Body, Changed, DigestAnnouncement, Update};
use crate::presence::Departure;
use crate::presence::memory::{Cause, MemoryPresence, Withdrawal};
use crate::room::Room;

/// A message to send, or a step to take, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    /// Subscribes to the room, before later messages are sent.
    Follow(Room),
    /// Ends the subscription.
    Unfollow(Room),
    /// To all followers of the room.
    Tell(Room, Body),
    /// To one node.
    TellNode(u64, Room, Body),
    /// To the sender of the received message.
    Answer(Room, Body),
    /// Asks one node to announce its stands.
    Recall(u64),
    /// A census, to all nodes.
    Census(u64, Vec<(Room, Vec<u64>)>),
    /// To the sender of a census, behind all parts: this node's stands.
    Account(u64, Vec<(Room, DigestAnnouncement)>),
    /// Ends a census for a room: `true` if the room is known completely.
    Confirmed(Room, u64, bool),
}

/// The addressee of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// All followers of the room: a node with nothing stays silent.
    Everybody,
    /// This node alone.
    Us,
}

/// One node's reconciler.
#[derive(Debug)]
pub(super) struct Reconciler {
    memory: Arc<MemoryPresence>,
    touched: Arc<DirtyRooms>,
    replica: Replica,
}

impl Reconciler {
    pub(super) fn new(memory: Arc<MemoryPresence>, touched: Arc<DirtyRooms>, own: u64, rhythm: Rhythm) -> Self {
        Self {
            memory,
            touched,
            replica: Replica::new(own, rhythm),
        }
    }

    pub(super) const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Returns the updates for local changes since the last flush.
    pub(super) fn flush(&mut self, now_ms: u64) -> Vec<Out> {
        let mut outs = Vec::new();
        for (room, touch) in self.touched.take() {
            self.flush_room(&room, &touch, now_ms, &mut outs);
        }
        outs
    }

    /// Starts a census of these rooms; each is confirmed within this time. Also returns the number of the census.
    pub(super) fn confirm(&mut self, rooms: &[Room], within: Duration, now_ms: u64) -> (u64, Vec<Out>) {
        let mut outs = Vec::new();
        for room in rooms {
            if let Some(touch) = self.touched.take_room(room) {
                self.flush_room(room, &touch, now_ms, &mut outs);
            }
            if !self.replica.follows(room) {
                outs.push(Out::Follow(room.clone()));
                // No request to its followers: the census asks them.
                self.replica.follow(room, now_ms);
                self.tell_all(room, now_ms, &mut outs);
            }
            if !self.memory.own(room).is_served {
                self.replica.linger(room, now_ms);
            }
        }
        let (number, actions) = self.replica.census(rooms, within, now_ms);
        self.run(actions, Duration::ZERO, now_ms, &mut outs);
        (number, outs)
    }

    /// Replies to a census: this node's part of each room, unless known there, and its stands.
    pub(super) fn counted(&mut self, number: u64, rooms: Vec<(Room, bool)>, now_ms: u64) -> Vec<Out> {
        let (mut outs, mut stands) = (Vec::new(), Vec::new());
        // Flush first: the stand must cover every change before it.
        for (room, is_known) in rooms {
            if let Some(touch) = self.touched.take_room(&room) {
                self.flush_room(&room, &touch, now_ms, &mut outs);
            }
            if !is_known && self.replica.own_stand(&room).users > 0 {
                let changes = self.tell_all(&room, now_ms, &mut outs);
                let whole = self.whole(&room, changes);
                outs.push(Out::Answer(room.clone(), Body::Update(whole)));
            }
            let stand = self.replica.own_stand(&room);
            if is_known || stand.users > 0 {
                stands.push((room, stand));
            }
        }
        outs.push(Out::Account(number, stands));
        outs
    }

    /// Returns this node's whole part of a room, as an update that builds on nothing.
    fn whole(&self, room: &Room, changes: Vec<Changed>) -> Update {
        Update {
            version: self.replica.own_stand(room).version,
            previous: 0,
            changes: if self.replica.follows(room) {
                changes
            } else {
                Vec::new()
            },
            occupied_since: self.memory.own(room).occupied_since,
            begins: false,
        }
    }

    /// Merges a node's reply to a census.
    pub(super) fn account(
        &mut self,
        node: u64,
        number: u64,
        stands: Vec<(Room, DigestAnnouncement)>,
        now_ms: u64,
    ) -> Vec<Out> {
        let actions = self.replica.account(node, number, stands, now_ms);
        let mut outs = Vec::new();
        self.run(actions, Duration::ZERO, now_ms, &mut outs);
        outs
    }

    fn flush_room(&mut self, room: &Room, touch: &Touch, now_ms: u64, outs: &mut Vec<Out>) {
        let is_served = self.memory.own(room).is_served;
        let is_new = is_served && !self.replica.follows(room);
        if is_new {
            outs.push(Out::Follow(room.clone()));
            let asking = self.replica.follow(room, now_ms);
            self.run(asking, Duration::ZERO, now_ms, outs);
        }
        if !self.replica.follows(room) {
            return;
        }
        self.replica.serve(room, is_served, now_ms);
        match touch {
            Touch::Users(users) => {
                let changed = users.iter().map(|(user, departure)| Changed {
                    now: self.memory.own_share(room, user).ok_or(*departure),
                    user: user.clone(),
                });
                let changed = changed.collect();
                self.tell_own(room, changed, now_ms, outs);
            }
            Touch::Many => {}
        }
        if is_new || matches!(touch, Touch::Many) {
            self.tell_all(room, now_ms, outs);
        }
    }

    fn tell_own(&mut self, room: &Room, changed: Vec<Changed>, now_ms: u64, outs: &mut Vec<Out>) {
        if let Some(update) = self.replica.own_update(room, changed, now_ms) {
            outs.push(Out::Tell(room.clone(), Body::Update(update)));
        }
    }

    /// Sends the difference between the local state and what was replicated. Returns the local state.
    fn tell_all(&mut self, room: &Room, now_ms: u64, outs: &mut Vec<Out>) -> Vec<Changed> {
        let mut here = self.memory.own_shares(room);
        // The same order in every run, so that a simulation can be replayed by its seed.
        here.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let missing = self.replica.own_missing(room, &here).into_iter();
        let gone = missing.map(|user| Changed {
            user,
            now: Err(Departure::Lost),
        });
        let here: Vec<Changed> = here
            .into_iter()
            .map(|(user, share)| Changed { user, now: Ok(share) })
            .collect();
        self.tell_own(room, here.iter().cloned().chain(gone).collect(), now_ms, outs);
        here
    }

    /// Merges a node's message about a room.
    pub(super) fn receive(&mut self, node: u64, room: &Room, body: Body, asked: Asked, now_ms: u64) -> Vec<Out> {
        let mut outs = Vec::new();
        if node == self.replica.own() {
            return outs;
        }
        match body {
            Body::Update(update) => {
                let occupied_since = update.occupied_since;
                let actions = self.replica.update(room, node, update, now_ms);
                self.run(actions, Duration::ZERO, now_ms, &mut outs);
                if let Some(since) = occupied_since {
                    self.memory.was_occupied(room, since);
                }
            }
            Body::Stand(stand) => {
                let actions = self.replica.stand(room, stand, now_ms);
                self.run(actions, Duration::ZERO, now_ms, &mut outs);
            }
            Body::Ask(known) => self.answer(room, &known, asked, now_ms, &mut outs),
        }
        outs
    }

    fn answer(&mut self, room: &Room, known: &[DigestAnnouncement], asked: Asked, now_ms: u64, outs: &mut Vec<Out>) {
        if let Some(touch) = self.touched.take_room(room) {
            self.flush_room(room, &touch, now_ms, outs);
        }
        let changes = self.tell_all(room, now_ms, outs);
        let stand = self.replica.own_stand(room);
        let known_of_us = known.iter().find(|known| known.incarnation == stand.incarnation);
        let body = match known_of_us {
            Some(known) if *known == stand => Body::Stand(stand),
            None if asked == Asked::Everybody && stand.users == 0 => return,
            _ => Body::Update(self.whole(room, changes)),
        };
        outs.push(Out::Answer(room.clone(), body));
    }

    /// Records that a node lives. `begins`: it has just started.
    pub(super) fn came(&mut self, node: u64, begins: bool, now_ms: u64) -> Vec<Out> {
        let recall = self.replica.came(node, begins, now_ms);
        recall.map(|_| Out::Recall(node)).into_iter().collect()
    }

    /// Records that a node has ended or was given up, and was last heard so long ago.
    pub(super) fn went(&mut self, node: u64, ago: Duration, now_ms: u64) -> Vec<Out> {
        let actions = self.replica.went(node, now_ms);
        let mut outs = Vec::new();
        self.run(actions, ago, now_ms, &mut outs);
        outs
    }

    /// Asks a room's followers: its subscription took effect only now.
    pub(super) fn ask_anew(&mut self, room: &Room, now_ms: u64) {
        self.replica.ask_anew(room, now_ms);
    }

    /// Schedules announcements of this node's stands, on another node's request.
    pub(super) fn recalled(&mut self, now_ms: u64) {
        self.replica.stand_everywhere(now_ms);
    }

    /// Schedules all requests and announcements anew: messages may have been lost in both directions.
    pub(super) fn recheck(&mut self, now_ms: u64) {
        self.replica.recheck(now_ms);
    }

    /// Returns the messages that are due.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Out> {
        let actions = self.replica.due(now_ms);
        let mut outs = Vec::new();
        self.run(actions, Duration::ZERO, now_ms, &mut outs);
        outs
    }

    fn run(&mut self, actions: Vec<Action>, ago: Duration, now_ms: u64, outs: &mut Vec<Out>) {
        for action in actions {
            match action {
                Action::Set(room, origin, user, share) => {
                    if self.memory.set_share(&room, &user, origin, share)
                        && let Some(own) = self.memory.own_share(&room, &user)
                    {
                        self.tell_own(&room, vec![Changed { user, now: Ok(own) }], now_ms, outs);
                    }
                }
                Action::Withdraw(room, node, user, departure, cause) => {
                    let ago = if cause == Cause::Ended { ago } else { Duration::ZERO };
                    let withdrawal = Withdrawal { departure, cause, ago };
                    self.memory.take_share(&room, &user, node, withdrawal);
                }
                Action::Tell(room, body) => outs.push(Out::Tell(room, body)),
                Action::TellNode(node, room, body) => outs.push(Out::TellNode(node, room, body)),
                Action::Recall(node) => outs.push(Out::Recall(node)),
                Action::Census(number, rooms) => outs.push(Out::Census(number, rooms)),
                Action::Confirmed(room, number, is_complete) => {
                    outs.push(Out::Confirmed(room, number, is_complete));
                }
                Action::Reconsider(room) => self.reconsider(room, now_ms, outs),
            }
        }
    }

    fn reconsider(&mut self, room: Room, now_ms: u64, outs: &mut Vec<Out>) {
        if self.memory.own(&room).is_served {
            return;
        }
        let gone = self.replica.unfollow(&room);
        self.run(gone, Duration::ZERO, now_ms, outs);
        outs.push(Out::Unfollow(room));
    }
}
