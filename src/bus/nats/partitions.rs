//! The partitions, and the rooms with members on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::HistoryBudget;
use super::incarnation::Incarnation;
use super::live::{LiveRoom, RoomState};
use super::partition::Partition;
use super::ring::Ring;
use crate::bus::BusUnavailable;
use crate::nats::Subjects;
use crate::position::Offset;
use crate::room::Room;

/// All partitions. Counts their rooms with members here.
pub(super) struct Partitions {
    all: Box<[Partition]>,
    count: u16,
    rooms: AtomicUsize,
}

impl Partitions {
    /// Creates the partitions of these streams, in order of their numbers.
    pub(super) fn new(streams: Vec<Incarnation>, connects: u64) -> Self {
        let all: Box<[_]> = (0..)
            .zip(streams)
            .map(|(number, stream)| Partition::new(number, stream, connects))
            .collect();
        Self {
            count: u16::try_from(all.len()).expect("partitions are numbered by 16 bits"),
            all,
            rooms: AtomicUsize::new(0),
        }
    }

    /// Returns the number of partitions.
    pub(super) const fn count(&self) -> u16 {
        self.count
    }

    pub(super) fn at(&self, number: u16) -> &Partition {
        &self.all[usize::from(number)]
    }

    pub(super) fn of(&self, room: &Room) -> &Partition {
        self.at(Subjects::partition(room, self.count))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.all.iter()
    }

    /// Returns the number of rooms with members here.
    pub(super) fn rooms(&self) -> usize {
        self.rooms.load(Ordering::Relaxed)
    }

    /// Begins a join of a room, which [`Self::change`] ends. `make` creates the room for its first join.
    pub(super) fn begin_join(
        &self,
        room: &Room,
        rooms_max: usize,
        make: impl FnOnce(&Partition) -> LiveRoom,
    ) -> Result<Arc<LiveRoom>, BusUnavailable> {
        let partition = self.of(room);
        let mut rooms = partition.rooms();
        let live = if let Some(live) = rooms.get(room) {
            Arc::clone(live)
        } else {
            if self.rooms() >= rooms_max {
                return Err(BusUnavailable("too many rooms"));
            }
            self.rooms.fetch_add(1, Ordering::Relaxed);
            let live = Arc::new(make(partition));
            rooms.insert(room.clone(), Arc::clone(&live));
            live
        };
        live.lock().joins += 1;
        Ok(live)
    }

    /// Changes a room's subscribers or joins, and drops the room when neither is left.
    pub(super) fn change(&self, room: &Room, budget: &HistoryBudget, change: impl FnOnce(&mut RoomState)) {
        let mut rooms = self.of(room).rooms();
        let Some(live) = rooms.get(room).cloned() else {
            return;
        };
        let mut state = live.lock();
        change(&mut state);
        if !state.is_forgotten() {
            return;
        }
        rooms.remove(room);
        self.rooms.fetch_sub(1, Ordering::Relaxed);
        budget.reweigh(state.ring.weight(), 0);
        state.ring = Ring::new(Arc::clone(&live.limits), Offset::ZERO);
        if let Some(feed) = state.feed.take() {
            feed.abort();
        }
    }
}
