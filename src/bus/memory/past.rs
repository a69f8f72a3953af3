//! The kept events of a room: a ring of events and the last value of each name.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::history::HistoryLimits;
use crate::event::Event;
use crate::position::Offset;

/// The estimated cost of an event beside its payload: the event, its name, its slot in the ring, allocator overhead.
const EVENT_BYTES: usize = 256;

/// An event in memory.
#[derive(Debug)]
pub(super) struct Kept {
    pub event: Arc<Event>,
    pub offset: Offset,
    at_ms: u64,
}

impl Kept {
    pub(super) const fn new(event: Arc<Event>, offset: Offset, at_ms: u64) -> Self {
        Self { event, offset, at_ms }
    }

    pub(super) fn is_over(&self, age_max: Duration, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(self.at_ms)) >= age_max.as_millis()
    }

    pub(super) fn bytes(&self) -> usize {
        self.event.payload.bytes_len()
    }
}

/// The kept events of a room.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Oldest first.
    pub kept: VecDeque<Kept>,
    pub kept_bytes: usize,
    /// Oldest first, one per event name.
    pub last_values: Vec<Kept>,
    last_values_bytes: usize,
}

impl Past {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.last_values.is_empty()
    }

    pub(super) fn weight(&self) -> usize {
        let events = self.kept.len() + self.last_values.len();
        self.kept_bytes + self.last_values_bytes + events * EVENT_BYTES
    }

    pub(super) fn push(&mut self, newest: Kept) {
        self.kept_bytes += newest.bytes();
        self.kept.push_back(newest);
    }

    pub(super) fn pop(&mut self) -> Option<Kept> {
        let oldest = self.kept.pop_front()?;
        self.kept_bytes -= oldest.bytes();
        Some(oldest)
    }

    /// Reports whether the oldest event exceeds a limit.
    pub(super) fn exceeds(&self, limits: &HistoryLimits, now_ms: u64) -> bool {
        self.kept.len() > limits.events_max
            || self.kept_bytes > limits.bytes_max
            || self
                .kept
                .front()
                .is_some_and(|oldest| oldest.is_over(limits.age_max, now_ms))
    }

    pub(super) fn set_last_value(&mut self, newest: Kept, names_max: usize) {
        let same_name = |kept: &Kept| kept.event.name == newest.event.name;
        let replaced = self.last_values.iter().position(same_name);
        let full = self.last_values.len() >= names_max;
        if let Some(index) = replaced.or(full.then_some(0)) {
            self.drop_last_value(index);
        }
        self.last_values_bytes += newest.bytes();
        self.last_values.push(newest);
    }

    pub(super) fn drop_last_value(&mut self, index: usize) {
        self.last_values_bytes -= self.last_values.remove(index).bytes();
    }
}
