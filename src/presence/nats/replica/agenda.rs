//! The agenda: rooms by the time of their next step.

use std::collections::{BTreeSet, HashMap};

use crate::room::Room;

/// The most rooms of one pass, so that messages are read between passes.
const DUE_MAX: usize = 500;

/// Rooms by the time of their next step.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    by_time: BTreeSet<(u64, Room)>,
    by_room: HashMap<Room, u64>,
}

impl Agenda {
    /// Sets the time of a room's next step; `None`: no step.
    pub(super) fn set(&mut self, room: &Room, at_ms: Option<u64>) {
        if self.by_room.get(room).copied() == at_ms {
            return;
        }
        self.remove(room);
        if let Some(at_ms) = at_ms {
            self.by_room.insert(room.clone(), at_ms);
            self.by_time.insert((at_ms, room.clone()));
        }
    }

    pub(super) fn remove(&mut self, room: &Room) {
        if let Some(at_ms) = self.by_room.remove(room) {
            self.by_time.remove(&(at_ms, room.clone()));
        }
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes the rooms that are due.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Room> {
        let mut due = Vec::new();
        while due.len() < DUE_MAX && self.next_ms().is_some_and(|at_ms| at_ms <= now_ms) {
            let Some((_, room)) = self.by_time.pop_first() else {
                break;
            };
            self.by_room.remove(&room);
            due.push(room);
        }
        due
    }
}
