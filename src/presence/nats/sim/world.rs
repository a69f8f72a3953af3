//! Nodes, clients and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::advance;

use super::network::{Network, Packet, Weather};
use super::node::{Node, Sent, user_id};
use crate::identity::UserId;
use crate::json::Json;
use crate::nats::nodes::HEARTBEAT_INTERVAL;
use crate::presence::memory::Config;
use crate::presence::{Departure, Presence as _};
use crate::room::{Room, Tenant};

const ROOMS: u8 = 3;
const USERS: u8 = 6;
const TABS: u8 = 2;
const TICK_MS: u64 = 25;
const HEARTBEAT_MS: u64 = HEARTBEAT_INTERVAL.as_secs() * 1000;

/// Longer than any repair takes: a node that has been silent about a room is asked after 60 s.
const QUIET_MS: u64 = 90_000;

/// Nodes are numbered by their start; the number is the incarnation.
pub(super) const fn incarnation(index: usize) -> u64 {
    index as u64 + 100
}

pub(super) fn index(incarnation: u64) -> usize {
    usize::try_from(incarnation - 100).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    Stopped { until_ms: u64 },
    CutOff { until_ms: u64 },
    Crashed,
}

pub(super) struct World {
    rng: StdRng,
    now_ms: u64,
    config: Config,
    nodes: Vec<(Node, Fate)>,
    network: Network,
    /// What waits for a node that is stopped.
    waiting: Vec<Packet>,
    /// Whether nodes fall silent in this run.
    is_rough: bool,
    /// Where users have been, however short: how often each came to a room on a node.
    comings: BTreeMap<(u8, UserId), u32>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let is_rough = rng.random_ratio(3, 4);
        // Where comings are counted, nobody may be without news for as long as the grace: the repairs would all have to be
        // lost.
        let lost_percent = rng.random_range(0..30) / if is_rough { 1 } else { 2 };
        let weather = Weather {
            lost_percent,
            doubled_percent: rng.random_range(0..30),
            delay_ms_max: *[2, 50, 400].get(rng.random_range(0..3)).unwrap(),
        };
        let grace_ms = if is_rough {
            *[0, 2000, 5000].get(rng.random_range(0..3)).unwrap()
        } else {
            60_000
        };
        let config = Config {
            leave_grace: Duration::from_millis(grace_ms),
            ..Config::default()
        };
        let nodes = rng.random_range(2..=4);
        Self {
            rng,
            now_ms: 0,
            config,
            nodes: (0..nodes)
                .map(|index| (Node::new(index, incarnation(index), config, !is_rough), Fate::Well))
                .collect(),
            network: Network::new(weather),
            waiting: Vec::new(),
            is_rough,
            comings: BTreeMap::new(),
        }
    }

    pub(super) async fn live(mut self) {
        let ticks = self.rng.random_range(100..1200);
        for at in 0..self.nodes.len() {
            let heartbeat = self.nodes[at].0.heartbeat();
            self.send(at, [heartbeat]);
        }
        // The nodes of the beginning know each other.
        self.tick(500).await;
        for _ in 0..ticks {
            self.happen();
            self.note_who_is_there();
            self.tick(TICK_MS).await;
        }
        self.network.weather = Weather::FAIR;
        for (_, fate) in &mut self.nodes {
            if *fate != Fate::Crashed {
                *fate = Fate::Well;
            }
        }
        let quiet_until_ms = self.now_ms + QUIET_MS;
        while self.now_ms < quiet_until_ms {
            self.tick(TICK_MS * 4).await;
        }
        self.check().await;
    }

    fn room(number: u8) -> Room {
        Room::parse(&Tenant::default(), &format!("r{number}")).unwrap()
    }

    /// A client or the weather does something.
    fn happen(&mut self) {
        let at = self.rng.random_range(0..self.nodes.len());
        let (room, user) = (self.rng.random_range(0..ROOMS), self.rng.random_range(0..USERS));
        let tab = self.rng.random_range(0..TABS);
        let dice = self.rng.random_range(0..1000);
        let now_ms = self.now_ms;
        let there: BTreeSet<UserId> = self.truth(room).into_keys().collect();
        let (node, fate) = &mut self.nodes[at];
        if *fate == Fate::Crashed || matches!(fate, Fate::Stopped { .. }) {
            return;
        }
        match dice {
            0..150 => self.enter(at, (room, user, tab)),
            150..250 => {
                // Who left on purpose and comes back has come twice, so these only leave for good in rough runs.
                let left = self.is_rough && dice < 200;
                let departure = if left { Departure::Left } else { Departure::Lost };
                node.leave(&Self::room(room), (room, user, tab), departure);
            }
            250..280 => {
                let sent = node.ask_to_observe(&Self::room(room), there, now_ms);
                self.send(at, sent);
            }
            280..290 => node.unobserve(&Self::room(room)),
            290..295 if self.is_rough => *fate = Fate::Crashed,
            295..300 if self.is_rough => {
                let until_ms = now_ms + self.rng.random_range(500..12_000);
                *fate = Fate::Stopped { until_ms };
            }
            300..305 if self.is_rough => {
                let until_ms = now_ms + self.rng.random_range(500..12_000);
                *fate = Fate::CutOff { until_ms };
            }
            305..309 if self.is_rough && self.nodes.len() < 7 => {
                let index = self.nodes.len();
                let mut node = Node::new(index, incarnation(index), self.config, false);
                // It says that it lives before it serves anybody.
                let heartbeat = node.heartbeat();
                self.nodes.push((node, Fate::Well));
                self.send(index, [heartbeat]);
            }
            _ => {}
        }
    }

    fn enter(&mut self, at: usize, place: (u8, u8, u8)) {
        let state = match self.rng.random_range(0..6) {
            0 => Some(Json::parse(format!("\"{}\"", "s".repeat(self.rng.random_range(0..60)))).unwrap()),
            _ => None,
        };
        let here = |node: &Node| {
            node.members
                .keys()
                .any(|(room, user, _)| (*room, *user) == (place.0, place.1))
        };
        if !self
            .nodes
            .iter()
            .any(|(node, fate)| *fate != Fate::Crashed && here(node))
        {
            *self.comings.entry((place.0, user_id(place.1))).or_default() += 1;
        }
        self.nodes[at].0.enter(&Self::room(place.0), place, state);
        // To observers that do not know of its other connections it comes with this one.
        let room = Self::room(place.0);
        for (node, _) in &mut self.nodes {
            node.note_coming(&room, &user_id(place.1));
        }
    }

    async fn tick(&mut self, ms: u64) {
        advance(Duration::from_millis(ms)).await;
        self.now_ms += ms;
        let now_ms = self.now_ms;
        for (_, fate) in &mut self.nodes {
            if let Fate::Stopped { until_ms } | Fate::CutOff { until_ms } = fate
                && *until_ms <= now_ms
            {
                *fate = Fate::Well;
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        for packet in waiting.into_iter().chain(self.network.arrived(now_ms)) {
            self.deliver(packet);
        }
        for at in 0..self.nodes.len() {
            let (node, fate) = &mut self.nodes[at];
            if matches!(fate, Fate::Crashed | Fate::Stopped { .. }) {
                continue;
            }
            let sent = node.tick(now_ms);
            let is_due = now_ms / HEARTBEAT_MS != (now_ms - ms) / HEARTBEAT_MS;
            let heartbeat = is_due.then(|| node.heartbeat());
            node.show().await;
            self.send(at, sent.into_iter().chain(heartbeat));
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let (node, fate) = &mut self.nodes[packet.to];
        match fate {
            Fate::Crashed | Fate::CutOff { .. } => {}
            Fate::Stopped { .. } => self.waiting.push(packet),
            Fate::Well => {
                let to = packet.to;
                let sent = node.receive(packet, self.now_ms);
                self.send(to, sent);
            }
        }
    }

    fn send(&mut self, from: usize, sent: impl IntoIterator<Item = Sent>) {
        if matches!(self.nodes[from].1, Fate::CutOff { .. }) {
            return;
        }
        for (subject, to, messages) in sent {
            let to = to.map_or(0..self.nodes.len(), |to| to..to + 1);
            for (to, bytes) in to.flat_map(|to| messages.iter().map(move |bytes| (to, bytes.clone()))) {
                let subject = subject.clone();
                let packet = Packet {
                    from,
                    to,
                    subject,
                    bytes,
                };
                self.network.send(&packet, self.now_ms, &mut self.rng);
            }
        }
    }

    fn note_who_is_there(&mut self) {
        for number in 0..ROOMS {
            let (room, truth) = (Self::room(number), self.truth(number));
            for (node, _) in &mut self.nodes {
                node.note_who_is_there(&room, &truth);
            }
        }
    }

    /// What the living have in a room: connections by user.
    fn truth(&self, room: u8) -> BTreeMap<UserId, u32> {
        let mut truth = BTreeMap::new();
        let living = self.nodes.iter().filter(|(_, fate)| *fate != Fate::Crashed);
        let members = living.flat_map(|(node, _)| node.members.keys());
        for (_, user, _) in members.filter(|(place, ..)| *place == room) {
            *truth.entry(user_id(*user)).or_default() += 1;
        }
        truth
    }

    async fn check(&self) {
        for number in 0..ROOMS {
            let (room, truth) = (Self::room(number), self.truth(number));
            let mut pages = BTreeSet::new();
            for (node, _) in self.nodes.iter().filter(|(_, fate)| *fate != Fate::Crashed) {
                let page = node.memory.page(&room, None, usize::MAX).await;
                let shown: BTreeMap<_, _> = page
                    .members
                    .iter()
                    .map(|one| (one.user.clone(), one.connections))
                    .collect();
                if !node.memory.own(&room).is_served {
                    assert!(!node.site.replica().follows(&room) && !node.subscribed.contains(&room));
                    assert!(shown.is_empty(), "{room:?} is kept without need: {shown:?}");
                    continue;
                }
                assert_eq!(shown, truth, "{room:?} on node {}", node.index);
                assert_eq!(page.counts.connections, truth.values().sum::<u32>());
                assert_eq!(node.seen(&room).unwrap_or(&truth), &truth);
                pages.insert(format!("{:?}", page.members));
            }
            assert!(pages.len() <= 1, "nodes differ in {room:?}: {pages:?}");
        }
        self.check_comings();
    }

    /// While no node fell silent, nobody was shown to come more often than it did.
    fn check_comings(&self) {
        if self.is_rough {
            return;
        }
        for (node, _) in &self.nodes {
            assert_eq!(node.deaths_seen, 0);
            for (room, user, times) in node.came() {
                let number = room.name()[1..].parse().unwrap();
                let comings = self.comings.get(&(number, user.clone())).copied().unwrap_or_default();
                assert!(
                    times <= comings,
                    "{user:?} came {comings} times and was shown to {times} times"
                );
            }
        }
    }
}
