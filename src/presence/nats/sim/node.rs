//! One simulated node: the real presence, replication and roster of nodes over a made-up network, and what its observers
//! were shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::time::Instant;

use super::super::RHYTHM;
use super::super::site::{Asked, Out, Reconciler};
use super::super::touched::DirtyRooms;
use super::super::wire::{self, Reader, Said};
use super::network::{Packet, Subject};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::nats::nodes::{NodeChange, roster};
use crate::presence::memory::{Config, MemoryPresence};
use crate::presence::{Change, Departure, Detail, Member, Observer, Presence as _, Roster};
use crate::proto::node_v1::{Heartbeat, PresenceMessage};
use crate::room::Room;

/// So small that updates of a few users come in parts.
const PART_BYTES: usize = 120;

/// What is sent, to one node or to all.
pub(super) type Sent = (Subject, Option<usize>, Vec<bytes::Bytes>);

#[derive(Default)]
struct Recorder(Mutex<Vec<Arc<Change>>>);

impl Observer for Recorder {
    fn id(&self) -> u16 {
        0
    }

    fn observe(&self, change: Arc<Change>) -> BoxFuture<'_, ()> {
        self.0.lock().unwrap().push(change);
        Box::pin(std::future::ready(()))
    }
}

/// What one observer of a room has made of what it was shown.
struct Shown {
    recorder: Arc<Recorder>,
    version: u64,
    users: BTreeMap<UserId, u32>,
    came: BTreeMap<UserId, u32>,
    /// The users that were there when it asked, and have been since.
    there: BTreeSet<UserId>,
}

/// An observer that waits for a census of its room.
#[derive(Default)]
struct Awaited {
    /// The users that were there when it asked, and have been since.
    there: BTreeSet<UserId>,
    /// Those that have come since.
    came: BTreeSet<UserId>,
}

pub(super) struct Node {
    pub index: usize,
    pub incarnation: u64,
    pub memory: Arc<MemoryPresence>,
    touched: Arc<DirtyRooms>,
    pub site: Reconciler,
    reader: Reader,
    pub members: BTreeMap<(u8, u8, u8), ConnectionId>,
    shown: BTreeMap<Room, Shown>,
    /// By census.
    awaited: BTreeMap<(u64, Room), Awaited>,
    /// Whether what a census confirmed has to be all there is.
    is_strict: bool,
    pub subscribed: BTreeSet<Room>,
    roster: roster::Roster,
    is_hearing: bool,
    pub deaths_seen: u32,
}

impl Node {
    pub(super) fn new(index: usize, incarnation: u64, config: Config, is_strict: bool) -> Self {
        let memory = Arc::new(MemoryPresence::new(config));
        let touched = Arc::new(DirtyRooms::default());
        Self {
            index,
            incarnation,
            site: Reconciler::new(Arc::clone(&memory), Arc::clone(&touched), incarnation, RHYTHM),
            memory,
            touched,
            reader: Reader::default(),
            members: BTreeMap::new(),
            shown: BTreeMap::new(),
            awaited: BTreeMap::new(),
            is_strict,
            subscribed: BTreeSet::new(),
            roster: roster::Roster::new(incarnation, Instant::now()),
            is_hearing: true,
            deaths_seen: 0,
        }
    }

    pub(super) fn enter(&mut self, room: &Room, at: (u8, u8, u8), state: Option<Json>) {
        let member = member(at, *self.members.entry(at).or_insert_with(ConnectionId::random));
        self.memory.enter(room, &member, state).unwrap();
        self.touched.add(room, Some((&member.user, Departure::Lost)));
    }

    pub(super) fn leave(&mut self, room: &Room, at: (u8, u8, u8), departure: Departure) {
        if let Some(connection) = self.members.remove(&at) {
            let member = member(at, connection);
            self.memory.leave(room, &member, departure);
            self.touched.add(room, Some((&member.user, departure)));
        }
    }

    /// Observes a room as soon as it is known; these users are there now.
    pub(super) fn ask_to_observe(&mut self, room: &Room, there: BTreeSet<UserId>, now_ms: u64) -> Vec<Sent> {
        if self.shown.contains_key(room) {
            return Vec::new();
        }
        let rooms = std::slice::from_ref(room);
        let (number, outs) = self.site.confirm(rooms, Duration::from_millis(225), now_ms);
        let awaited = Awaited {
            there,
            ..Awaited::default()
        };
        self.awaited.insert((number, room.clone()), awaited);
        self.send(outs, None)
    }

    /// Forgets of a room's observers who was there and is no longer.
    pub(super) fn note_who_is_there(&mut self, room: &Room, truth: &BTreeMap<UserId, u32>) {
        let awaited = self.awaited.iter_mut().filter(|((_, other), _)| other == room);
        let shown = self.shown.get_mut(room).map(|shown| &mut shown.there);
        for there in awaited.map(|(_, awaited)| &mut awaited.there).chain(shown) {
            there.retain(|user| truth.contains_key(user));
        }
    }

    /// A user comes to a room, perhaps by a further connection.
    pub(super) fn note_coming(&mut self, room: &Room, user: &UserId) {
        if let Some(shown) = self.shown.get_mut(room)
            && !shown.users.contains_key(user)
        {
            shown.there.remove(user);
        }
        let awaited = self.awaited.iter_mut().filter(|((_, other), _)| other == room);
        for (_, awaited) in awaited {
            awaited.came.insert(user.clone());
        }
    }

    fn observe(&mut self, room: &Room, awaited: Awaited, is_complete: bool) {
        let Awaited { mut there, came } = awaited;
        let recorder = Arc::new(Recorder::default());
        let observer = Arc::clone(&recorder) as Arc<dyn Observer>;
        let Roster { version, members, .. } = self.memory.observe(room, observer, Detail::Members);
        self.touched.add(room, None);
        let users: BTreeMap<_, _> = members
            .unwrap()
            .into_iter()
            .map(|one| (one.user, one.connections))
            .collect();
        for user in there.iter().filter(|_| is_complete && self.is_strict) {
            assert!(
                users.contains_key(user),
                "{user:?} is missing in a roster that is complete"
            );
        }
        there.retain(|user| users.contains_key(user) || !came.contains(user));
        let came = users.keys().map(|user| (user.clone(), 1)).collect();
        let shown = Shown {
            recorder,
            version,
            users,
            came,
            there,
        };
        self.shown.insert(room.clone(), shown);
    }

    pub(super) fn unobserve(&mut self, room: &Room) {
        if self.shown.remove(room).is_some() {
            self.memory.unobserve(room, 0);
            self.touched.add(room, None);
        }
    }

    /// Reads what the observers were told, and insists that it is a difference.
    pub(super) async fn show(&mut self) {
        self.memory.flush().await;
        for shown in self.shown.values_mut() {
            for change in std::mem::take(&mut *shown.recorder.0.lock().unwrap()) {
                if !change.known.contains(&shown.version) {
                    continue;
                }
                assert!(change.version > shown.version);
                shown.version = change.version;
                for user in &change.left {
                    assert!(shown.users.remove(user).is_some(), "{user:?} left and was not there");
                    shown.there.remove(user);
                }
                for one in &change.updated {
                    assert!(shown.users.insert(one.user.clone(), one.connections).is_some());
                }
                for one in &change.present {
                    assert!(shown.users.insert(one.user.clone(), one.connections).is_none());
                }
                for one in &change.joined {
                    assert!(
                        !shown.there.contains(&one.user),
                        "{:?} was there and is told as joined",
                        one.user
                    );
                    assert!(shown.users.insert(one.user.clone(), one.connections).is_none());
                    *shown.came.entry(one.user.clone()).or_default() += 1;
                }
            }
        }
    }

    /// How often each user was shown to come, by room.
    pub(super) fn came(&self) -> impl Iterator<Item = (&Room, &UserId, u32)> {
        let rooms = self.shown.iter();
        rooms.flat_map(|(room, shown)| shown.came.iter().map(move |(user, times)| (room, user, *times)))
    }

    /// What the room's observers here see.
    pub(super) fn seen(&self, room: &Room) -> Option<&BTreeMap<UserId, u32>> {
        self.shown.get(room).map(|shown| &shown.users)
    }

    /// What it says once a second.
    pub(super) fn heartbeat(&mut self) -> Sent {
        let heartbeat = Heartbeat {
            incarnation: self.incarnation,
            sequence: self.roster.next_sequence(),
            ..Heartbeat::default()
        };
        (Subject::Heartbeat, None, vec![heartbeat.encode_to_vec().into()])
    }

    pub(super) fn receive(&mut self, packet: Packet, now_ms: u64) -> Vec<Sent> {
        let from = packet.from;
        if packet.subject == Subject::Heartbeat {
            return self.hear(packet.bytes, now_ms);
        }
        let mut message = PresenceMessage::decode(packet.bytes).unwrap();
        match &message.body {
            Some(Said::Census(_)) if message.incarnation == self.incarnation => return Vec::new(),
            Some(Said::Census(census)) => {
                let rooms = wire::read_census(census, self.incarnation);
                let outs = self.site.counted(census.number, rooms, now_ms);
                return self.send(outs, Some(from));
            }
            Some(Said::Account(account)) => {
                let stands = wire::read_account(account);
                let outs = self.site.account(message.incarnation, account.number, stands, now_ms);
                return self.send(outs, None);
            }
            _ => {}
        }
        let (room, asked) = match packet.subject {
            Subject::Room(room) if !self.subscribed.contains(&room) => return Vec::new(),
            Subject::Room(room) => (room, Asked::Everybody),
            _ => {
                let Some(room) = wire::room_of(&message) else {
                    self.site.recalled(now_ms);
                    return Vec::new();
                };
                (room, Asked::Us)
            }
        };
        let said = message.body.take().unwrap();
        let Some(body) = self.reader.read(message.incarnation, &room, said) else {
            return Vec::new();
        };
        let outs = self.site.receive(message.incarnation, &room, body, asked, now_ms);
        self.send(outs, Some(from))
    }

    fn hear(&mut self, bytes: bytes::Bytes, now_ms: u64) -> Vec<Sent> {
        let heartbeat = Heartbeat::decode(bytes).unwrap();
        let change = self.roster.hear(&heartbeat, Instant::now());
        self.look_whether_it_hears(now_ms);
        match change {
            Some(NodeChange::Came(node)) => {
                let begins = self.roster.has_heard_begin(node.incarnation);
                let outs = self.site.came(node.incarnation, begins, now_ms);
                self.send(outs, None)
            }
            Some(NodeChange::Went(_)) => unreachable!("nobody says goodbye"),
            None => Vec::new(),
        }
    }

    /// As `crate::nats::nodes` tells it, and the driver obeys.
    fn look_whether_it_hears(&mut self, now_ms: u64) {
        let hears = self.roster.hears(Instant::now());
        let heard = std::mem::replace(&mut self.is_hearing, hears);
        if hears && !heard {
            self.site.recheck(now_ms);
        }
    }

    /// What the node does by itself.
    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Sent> {
        let now = Instant::now();
        let mut outs = Vec::new();
        for node in self.roster.expire(now) {
            self.deaths_seen += 1;
            let ago = self.roster.silent_for(node.incarnation, now).unwrap_or_default();
            outs.extend(self.site.went(node.incarnation, ago, now_ms));
        }
        self.look_whether_it_hears(now_ms);
        outs.extend(self.site.flush(now_ms));
        outs.extend(self.site.due(now_ms));
        self.send(outs, None)
    }

    fn send(&mut self, outs: Vec<Out>, to: Option<usize>) -> Vec<Sent> {
        let own = self.incarnation;
        let write = |room: Option<&Room>, body| wire::write_body(own, room, body, PART_BYTES);
        let mut sent = Vec::new();
        for out in outs {
            match out {
                Out::Follow(room) => {
                    self.subscribed.insert(room);
                }
                Out::Unfollow(room) => {
                    self.subscribed.remove(&room);
                }
                Out::Tell(room, body) => {
                    let bytes = write(None, body);
                    sent.push((Subject::Room(room), None, bytes));
                }
                Out::TellNode(node, room, body) => {
                    let to = super::world::index(node);
                    sent.push((Subject::Node, Some(to), write(Some(&room), body)));
                }
                Out::Answer(room, body) => sent.push((Subject::Inbox, to, write(Some(&room), body))),
                Out::Recall(node) => {
                    let said = wire::Said::Recall(crate::proto::node_v1::PresenceRecall {});
                    let bytes = wire::write(own, "", "", said);
                    sent.push((Subject::Node, Some(super::world::index(node)), vec![bytes]));
                }
                Out::Census(number, rooms) => {
                    let bytes = wire::write(own, "", "", wire::write_census(number, &rooms));
                    sent.push((Subject::Node, None, vec![bytes]));
                }
                Out::Account(number, stands) => {
                    let bytes = wire::write(own, "", "", wire::write_account(number, &stands));
                    sent.push((Subject::Inbox, to, vec![bytes]));
                }
                Out::Confirmed(room, number, is_complete) => {
                    if let Some(awaited) = self.awaited.remove(&(number, room.clone()))
                        && !self.shown.contains_key(&room)
                    {
                        self.observe(&room, awaited, is_complete);
                    }
                }
            }
        }
        sent
    }
}

fn member((_, user, _): (u8, u8, u8), connection: ConnectionId) -> Member {
    Member {
        connection,
        user: user_id(user),
    }
}

pub(super) fn user_id(user: u8) -> UserId {
    UserId::parse(&format!("u{user}")).unwrap()
}
