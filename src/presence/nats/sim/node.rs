//! One simulated node: the real presence and replication over a made-up network, and what its observers were shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use prost::Message as _;

use super::super::RHYTHM;
use super::super::site::{Asked, Out, Site};
use super::super::touched::Touched;
use super::super::wire::{self, Reader};
use super::network::{Packet, Subject};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::presence::memory::{Config, MemoryPresence};
use crate::presence::{Change, Departure, Member, Observer, Presence as _, Roster};
use crate::proto::node_v1::PresenceMessage;
use crate::room::Room;

/// So small that updates of a few users come in parts.
const PART_BYTES: usize = 120;

/// As `crate::nats::nodes` has it.
const SILENCE_MAX_MS: u64 = 3500;
const ECHO_MAX_MS: u64 = 3000;

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
    /// When each other node was last heard, and whether it is held to live.
    heard: BTreeMap<usize, (u64, bool)>,
    echo_ms: u64,
    hearing_since_ms: u64,
    pub deaths_seen: u32,
}

impl Node {
    pub(super) fn new(index: usize, incarnation: u64, config: Config, now_ms: u64) -> Self {
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
            heard: BTreeMap::new(),
            echo_ms: now_ms,
            hearing_since_ms: now_ms,
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

    pub(super) fn hears(&self, now_ms: u64) -> bool {
        now_ms - self.echo_ms < ECHO_MAX_MS
    }

    pub(super) fn receive(&mut self, packet: Packet, now_ms: u64) -> Vec<Sent> {
        let from = packet.from;
        if packet.subject == Subject::Heartbeat {
            return self.hear(from, &packet.bytes, now_ms);
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

    fn hear(&mut self, from: usize, bytes: &[u8], now_ms: u64) -> Vec<Sent> {
        if from == self.index {
            if !self.hears(now_ms) {
                self.hearing_since_ms = now_ms;
                self.site.recheck(now_ms);
            }
            self.echo_ms = now_ms;
            return Vec::new();
        }
        let incarnation = u64::from_le_bytes(bytes.try_into().unwrap());
        let lived = self.heard.insert(from, (now_ms, true)).is_some_and(|(_, lives)| lives);
        let outs = if lived { Vec::new() } else { self.site.came(incarnation) };
        self.send(outs, None)
    }

    /// What the node does by itself.
    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Sent> {
        if self.hears(now_ms) {
            for (node, (heard_ms, lives)) in &mut self.heard {
                let silent_ms = now_ms - (*heard_ms).max(self.hearing_since_ms);
                if *lives && silent_ms >= SILENCE_MAX_MS {
                    *lives = false;
                    self.deaths_seen += 1;
                    let ago = std::time::Duration::from_millis(now_ms - *heard_ms);
                    self.site.went(super::world::incarnation(*node), ago, now_ms);
                }
            }
        }
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
