//! One simulated node: the real presence, replication and roster of nodes over a made-up network, and what its observers
//! were shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use prost::Message as _;
use tokio::time::Instant;

use super::super::RHYTHM;
use super::super::site::{Asked, Out, Site};
use super::super::touched::Touched;
use super::super::wire::{self, Reader};
use super::network::{Packet, Subject};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::nats::nodes::{NodeChange, roster};
use crate::presence::memory::{Config, MemoryPresence};
use crate::presence::{Change, Departure, Member, Observer, Presence as _, Roster};
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
}

pub(super) struct Node {
    pub index: usize,
    pub incarnation: u64,
    pub memory: Arc<MemoryPresence>,
    touched: Arc<Touched>,
    pub site: Site,
    reader: Reader,
    pub members: BTreeMap<(u8, u8, u8), ConnectionId>,
    shown: BTreeMap<Room, Shown>,
    pub subscribed: BTreeSet<Room>,
    roster: roster::Roster,
    is_hearing: bool,
    pub deaths_seen: u32,
}

impl Node {
    pub(super) fn new(index: usize, incarnation: u64, config: Config) -> Self {
        let memory = Arc::new(MemoryPresence::new(config));
        let touched = Arc::new(Touched::default());
        Self {
            index,
            incarnation,
            site: Site::new(Arc::clone(&memory), Arc::clone(&touched), incarnation, RHYTHM),
            memory,
            touched,
            reader: Reader::default(),
            members: BTreeMap::new(),
            shown: BTreeMap::new(),
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

    pub(super) fn observe(&mut self, room: &Room) {
        if self.shown.contains_key(room) {
            return;
        }
        let recorder = Arc::new(Recorder::default());
        let Roster { version, members, .. } = self.memory.observe(room, Arc::clone(&recorder) as Arc<dyn Observer>);
        self.touched.add(room, None);
        let users: BTreeMap<_, _> = members
            .unwrap()
            .into_iter()
            .map(|one| (one.user, one.connections))
            .collect();
        let came = users.keys().map(|user| (user.clone(), 1)).collect();
        let shown = Shown {
            recorder,
            version,
            users,
            came,
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
                assert!(change.version > shown.version);
                shown.version = change.version;
                for user in &change.left {
                    assert!(shown.users.remove(user).is_some(), "{user:?} left and was not there");
                }
                for one in &change.updated {
                    assert!(shown.users.insert(one.user.clone(), one.connections).is_some());
                }
                for one in &change.joined {
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
                let outs = self.site.came(node.incarnation);
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
        for node in self.roster.expire(now) {
            self.deaths_seen += 1;
            let ago = self.roster.silent_for(node.incarnation, now).unwrap_or_default();
            self.site.went(node.incarnation, ago, now_ms);
        }
        self.look_whether_it_hears(now_ms);
        let mut outs = self.site.flush(now_ms);
        outs.extend(self.site.due(now_ms));
        self.send(outs, None)
    }

    fn send(&mut self, outs: Vec<Out>, to: Option<usize>) -> Vec<Sent> {
        let write = |room: Option<&Room>, body| wire::write_body(self.incarnation, room, body, PART_BYTES);
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
                    let bytes = wire::write(self.incarnation, "", "", said);
                    sent.push((Subject::Node, Some(super::world::index(node)), vec![bytes]));
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
