//! The history budget: bounds on what the rooms of a node keep in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::ring::Ring;

/// The history budget, shared by the rooms of a node.
#[derive(Debug)]
pub(super) struct HistoryBudget {
    bytes_max: usize,
    last_value_names_max: usize,
    /// Bytes of all rings.
    weight: AtomicUsize,
}

impl HistoryBudget {
    pub(super) const fn new(bytes_max: usize, last_value_names_max: usize) -> Self {
        Self {
            bytes_max,
            last_value_names_max,
            weight: AtomicUsize::new(0),
        }
    }

    /// Returns the most last values of one room.
    pub(super) const fn last_value_names_max(&self) -> usize {
        self.last_value_names_max
    }

    /// Returns the bytes of all rings.
    pub(super) fn used(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// Counts a change of a ring's weight.
    pub(super) fn reweigh(&self, before: usize, after: usize) {
        let change = after.wrapping_sub(before);
        if change != 0 {
            self.weight.fetch_add(change, Ordering::Relaxed);
        }
    }

    /// Counts what was added to a ring, and enforces the bound over all rooms: the ring gives up its own oldest events.
    pub(super) fn settle(&self, before: usize, ring: &mut Ring) {
        let others = self.used().saturating_sub(before);
        while others + ring.weight() > self.bytes_max && ring.give_up_oldest() {}
        self.reweigh(before, ring.weight());
    }
}
