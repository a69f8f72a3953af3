//! What is on its way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::room::Room;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Room(Room),
    Node,
    Inbox,
    Heartbeat,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet {
    pub from: usize,
    pub to: usize,
    pub subject: Subject,
    pub bytes: Bytes,
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub lost_percent: u32,
    pub doubled_percent: u32,
    pub delay_ms_max: u64,
}

impl Weather {
    pub(super) const FAIR: Self = Self {
        lost_percent: 0,
        doubled_percent: 0,
        delay_ms_max: 2,
    };
}

#[derive(Debug)]
pub(super) struct Network {
    pub weather: Weather,
    under_way: BinaryHeap<Reverse<(u64, u64, Packet)>>,
    sequence: u64,
}

impl Network {
    pub(super) fn new(weather: Weather) -> Self {
        Self {
            weather,
            under_way: BinaryHeap::new(),
            sequence: 0,
        }
    }

    pub(super) fn send(&mut self, packet: &Packet, now_ms: u64, rng: &mut StdRng) {
        let weather = self.weather;
        // Heartbeats are repeated by themselves; to lose many makes every node die all the time.
        let is_heartbeat = packet.subject == Subject::Heartbeat;
        if !is_heartbeat && rng.random_ratio(weather.lost_percent, 100) {
            return;
        }
        let copies = 1 + u32::from(rng.random_ratio(weather.doubled_percent, 100));
        for _ in 0..copies {
            let at_ms = now_ms + rng.random_range(0..=weather.delay_ms_max);
            self.sequence += 1;
            self.under_way.push(Reverse((at_ms, self.sequence, packet.clone())));
        }
    }

    pub(super) fn arrived(&mut self, now_ms: u64) -> Vec<Packet> {
        let mut arrived = Vec::new();
        while let Some(Reverse((at_ms, ..))) = self.under_way.peek()
            && *at_ms <= now_ms
        {
            arrived.extend(self.under_way.pop().map(|Reverse((_, _, packet))| packet));
        }
        arrived
    }
}
