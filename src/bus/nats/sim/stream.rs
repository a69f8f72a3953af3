//! The stream of the simulation: its published events, those that are left, and the actions of an operator.

use std::collections::{BTreeMap, BTreeSet};

use crate::bus::nats::proof::Removed;

const RETAINED_MAX: usize = 12;
/// The most events that the other rooms keep together.
const OTHERS_MAX: usize = 30;

/// The room's events that a server holds.
pub(super) type Room = BTreeSet<u64>;

#[derive(Debug)]
pub(super) struct Stream {
    pub last: u64,
    /// The stored sequences, with the ticks at which they were stored.
    stored: BTreeMap<u64, u64>,
    pub room: Room,
    others: Room,
    retained_max: usize,
    /// Every event the room ever had, with its tick.
    pub ledger: Vec<(u64, u64)>,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            last: 0,
            stored: BTreeMap::new(),
            room: Room::new(),
            others: Room::new(),
            retained_max: RETAINED_MAX,
            ledger: Vec::new(),
        }
    }

    pub(super) fn head(&self) -> Option<u64> {
        self.room.last().copied()
    }

    /// Publishes an event. Returns its sequence and that of the room's previous event.
    pub(super) fn publish(&mut self, at: u64, ours: bool) -> (u64, u64) {
        let prev = self.head().unwrap_or(0);
        self.last += 1;
        self.stored.insert(self.last, at);
        if ours {
            self.ledger.push((self.last, at));
            self.room.insert(self.last);
            self.purge(self.retained_max);
        } else {
            self.others.insert(self.last);
            if self.others.len() > OTHERS_MAX {
                remove_oldest(&mut self.others, &mut self.stored);
            }
        }
        (self.last, prev)
    }

    /// Keeps the newest `keep` events of the room.
    pub(super) fn purge(&mut self, keep: usize) {
        while self.room.len() > keep {
            remove_oldest(&mut self.room, &mut self.stored);
        }
    }

    /// Sets the room's bound from now on; `None` restores the usual one.
    pub(super) fn limit(&mut self, retained_max: Option<usize>) {
        self.retained_max = retained_max.unwrap_or(RETAINED_MAX);
        self.purge(self.retained_max);
    }

    pub(super) fn expire(&mut self, now: u64) {
        while let Some(oldest) = self.stored.first_entry()
            && oldest.get() + super::AGE_MAX <= now
        {
            let (seq, _) = oldest.remove_entry();
            self.room.remove(&seq);
            self.others.remove(&seq);
        }
    }

    pub(super) fn removed(&self) -> Removed {
        let first = self.stored.keys().next().copied().unwrap_or(self.last + 1);
        let between: Vec<u64> = (first..=self.last)
            .filter(|seq| !self.stored.contains_key(seq))
            .collect();
        let count = between.len().try_into().unwrap();
        Removed::new(first, self.last, between, count)
    }
}

fn remove_oldest(room: &mut Room, stored: &mut BTreeMap<u64, u64>) {
    if let Some(oldest) = room.pop_first() {
        stored.remove(&oldest);
    }
}
