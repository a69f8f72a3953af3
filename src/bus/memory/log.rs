//! One room's history: a ring of events, bounded by number, age and bytes, and its last values. Pure: time is handed in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::heads::Head;
use crate::bus::history::HistoryLimits;
use crate::bus::{Page, ReadBounds};
use crate::event::{Class, Event};
use crate::position::Offset;

/// What an event costs beside its payload: itself, its name, its place in the ring, allocator overhead. An estimate.
pub(super) const EVENT_BYTES: usize = 256;

#[derive(Debug)]
struct Kept {
    event: Arc<Event>,
    offset: Offset,
    at_ms: u64,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.event.payload.bytes_len()
    }
}

/// A room's past.
#[derive(Debug)]
pub(super) struct RoomLog {
    limits: Arc<HistoryLimits>,
    head: Head,
    /// The newest event that the ring does not hold any more. Whoever has seen it can resume.
    trimmed_through: Offset,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// Oldest first, one per event name.
    last_values: Vec<Kept>,
    last_values_bytes: usize,
}

impl RoomLog {
    /// A room with nothing in memory, of which only the head is known.
    pub(super) fn new(limits: Arc<HistoryLimits>, head: Head) -> Self {
        Self {
            limits,
            head,
            trimmed_through: head.bound(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            last_values: Vec::new(),
            last_values_bytes: 0,
        }
    }

    pub(super) const fn head(&self) -> Head {
        self.head
    }

    /// Events kept and their payload bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.kept.len(), self.kept_bytes)
    }

    /// What the log weighs against the bound over all rooms, in bytes.
    pub(super) fn weight(&self) -> usize {
        let events = self.kept.len() + self.last_values.len();
        self.kept_bytes + self.last_values_bytes + events * EVENT_BYTES
    }

    /// Whether nothing would be lost but the head.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.last_values.is_empty()
    }

    /// Takes the room's next event.
    pub(super) fn append(&mut self, event: Arc<Event>, offset: Offset, now_ms: u64, names_max: usize) {
        self.head = Head::Known(offset);
        if event.class == Class::LastValue && names_max > 0 {
            self.set_last_value(Arc::clone(&event), offset, now_ms, names_max);
        }
        self.kept_bytes += event.payload.bytes_len();
        self.kept.push_back(Kept {
            event,
            offset,
            at_ms: now_ms,
        });
        self.trim(now_ms);
    }

    fn set_last_value(&mut self, event: Arc<Event>, offset: Offset, now_ms: u64, names_max: usize) {
        let same_name = self.last_values.iter().position(|kept| kept.event.name == event.name);
        let full = self.last_values.len() >= names_max;
        if let Some(index) = same_name.or(full.then_some(0)) {
            self.last_values_bytes -= self.last_values.remove(index).bytes();
        }
        self.last_values_bytes += event.payload.bytes_len();
        self.last_values.push(Kept {
            event,
            offset,
            at_ms: now_ms,
        });
    }

    /// Drops what the room's limits do not allow any more. Needed before every read, for the ages.
    pub(super) fn trim(&mut self, now_ms: u64) {
        while let Some(oldest) = self.kept.front()
            && (self.kept.len() > self.limits.events_max
                || self.kept_bytes > self.limits.bytes_max
                || is_over(oldest, self.limits.age_max, now_ms))
        {
            self.drop_oldest_event();
        }
    }

    /// Drops last values that are too old.
    pub(super) fn trim_last_values(&mut self, age_max: Duration, now_ms: u64) {
        while self
            .last_values
            .first()
            .is_some_and(|oldest| is_over(oldest, age_max, now_ms))
        {
            self.last_values_bytes -= self.last_values.remove(0).bytes();
        }
    }

    /// Drops the oldest event, or else the oldest last value; `false` when there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        if self.drop_oldest_event() {
            return true;
        }
        if self.last_values.is_empty() {
            return false;
        }
        self.last_values_bytes -= self.last_values.remove(0).bytes();
        true
    }

    fn drop_oldest_event(&mut self) -> bool {
        let Some(oldest) = self.kept.pop_front() else {
            return false;
        };
        self.kept_bytes -= oldest.bytes();
        self.trimmed_through = oldest.offset;
        true
    }

    /// Gives the ring's memory back when it is empty.
    pub(super) fn shrink(&mut self) {
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    /// The events after `since`, all of them, or `None`.
    pub(super) fn since(&self, since: Offset, bounds: ReadBounds) -> Option<Vec<Arc<Event>>> {
        if since < self.trimmed_through {
            return None;
        }
        let first = self.kept.partition_point(|kept| kept.offset <= since);
        let missed = self.kept.range(first..);
        let bytes: usize = missed.clone().map(Kept::bytes).sum();
        let allowed = missed.len() <= bounds.events_max && bytes <= bounds.bytes_max;
        allowed.then(|| missed.map(|kept| Arc::clone(&kept.event)).collect())
    }

    /// A page, oldest first. The first event is in it whatever its size.
    pub(super) fn page(&self, page: Page, bounds: ReadBounds) -> Vec<Arc<Event>> {
        match page {
            Page::After(offset) => {
                let first = self.kept.partition_point(|kept| kept.offset <= offset);
                fill(self.kept.range(first..), bounds)
            }
            Page::Newest => backwards(self.kept.range(..), bounds),
            Page::Before(offset) => {
                let end = self.kept.partition_point(|kept| kept.offset < offset);
                backwards(self.kept.range(..end), bounds)
            }
        }
    }

    pub(super) fn last_values(&self) -> Vec<Arc<Event>> {
        self.last_values.iter().map(|kept| Arc::clone(&kept.event)).collect()
    }
}

fn is_over(kept: &Kept, age_max: Duration, now_ms: u64) -> bool {
    u128::from(now_ms.saturating_sub(kept.at_ms)) >= age_max.as_millis()
}

fn backwards<'k>(events: impl DoubleEndedIterator<Item = &'k Kept>, bounds: ReadBounds) -> Vec<Arc<Event>> {
    let mut page = fill(events.rev(), bounds);
    page.reverse();
    page
}

fn fill<'k>(events: impl Iterator<Item = &'k Kept>, bounds: ReadBounds) -> Vec<Arc<Event>> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for kept in events.take(bounds.events_max) {
        bytes += kept.bytes();
        if bytes > bounds.bytes_max && !page.is_empty() {
            break;
        }
        page.push(Arc::clone(&kept.event));
    }
    page
}
