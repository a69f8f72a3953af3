//! One room's history: its beginning, the kept events and the head. Pure: the caller passes the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::heads::Head;
use super::past::{Kept, Past};
use crate::bus::history::HistoryLimits;
use crate::bus::{HistoryPage, Page, ReadBounds};
use crate::event::{Event, Retention};
use crate::position::Offset;

/// A room's history, from where it begins to its head.
#[derive(Debug)]
pub(super) struct RoomLog {
    limits: Arc<HistoryLimits>,
    head: Head,
    /// The watermark: the newest event that is no longer in the ring. A reader that has seen it can resume.
    trimmed_through: Offset,
    /// Boxed: most rooms are quiet most of the time and pay one word for it.
    past: Option<Box<Past>>,
}

impl RoomLog {
    /// Creates the log of a room with nothing in memory, of which only the head is known.
    pub(super) fn new(limits: Arc<HistoryLimits>, head: Head) -> Self {
        Self {
            limits,
            head,
            trimmed_through: head.bound(),
            past: None,
        }
    }

    pub(super) const fn head(&self) -> Head {
        self.head
    }

    /// Returns the offset after which every event is kept.
    pub(super) const fn begins(&self) -> Offset {
        self.trimmed_through
    }

    /// Returns the number of kept events and their payload bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let past = self.past.as_deref();
        past.map_or((0, 0), |past| (past.kept.len(), past.kept_bytes))
    }

    /// Returns the bytes that count against the bound over all rooms.
    pub(super) fn weight(&self) -> usize {
        self.past.as_deref().map_or(0, Past::weight)
    }

    /// Reports whether nothing but the head would be lost.
    pub(super) fn is_empty(&self) -> bool {
        self.past.as_deref().is_none_or(Past::is_empty)
    }

    /// Appends the room's next event.
    pub(super) fn append(&mut self, event: Arc<Event>, offset: Offset, now_ms: u64, names_max: usize) {
        self.head = Head::Known(offset);
        let last_value = event.retention == Retention::LastValue && names_max > 0;
        if !last_value && self.keeps_nothing() {
            self.trimmed_through = offset;
            return;
        }
        let past = self.past.get_or_insert_default();
        if last_value {
            past.set_last_value(Kept::new(Arc::clone(&event), offset, now_ms), names_max);
        }
        past.push(Kept::new(event, offset, now_ms));
        self.trim(now_ms);
    }

    /// Reports whether the limits allow no event at all, as for rooms of ephemeral interest.
    fn keeps_nothing(&self) -> bool {
        self.is_empty() && (self.limits.events_max == 0 || self.limits.age_max.is_zero())
    }

    /// Drops the events that the room's limits no longer allow. Needed before every read, for the ages.
    pub(super) fn trim(&mut self, now_ms: u64) {
        let Some(past) = self.past.as_deref_mut() else {
            return;
        };
        while past.exceeds(&self.limits, now_ms)
            && let Some(oldest) = past.pop()
        {
            self.trimmed_through = oldest.offset;
        }
    }

    /// Drops expired last values.
    pub(super) fn trim_last_values(&mut self, age_max: Duration, now_ms: u64) {
        let Some(past) = self.past.as_deref_mut() else {
            return;
        };
        while past
            .last_values
            .first()
            .is_some_and(|oldest| oldest.is_over(age_max, now_ms))
        {
            past.drop_last_value(0);
        }
    }

    /// Drops the oldest event, or else the oldest last value; `false` when there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let Some(past) = self.past.as_deref_mut() else {
            return false;
        };
        if let Some(oldest) = past.pop() {
            self.trimmed_through = oldest.offset;
            return true;
        }
        if past.last_values.is_empty() {
            return false;
        }
        past.drop_last_value(0);
        true
    }

    /// Releases memory that holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.past = None;
        } else if let Some(past) = self.past.as_deref_mut()
            && past.kept.is_empty()
        {
            past.kept = VecDeque::new();
        }
    }

    /// Returns all events after `since`, or `None` when one may be missing or a bound is exceeded.
    pub(super) fn since(&self, since: Offset, bounds: ReadBounds) -> Option<Vec<Arc<Event>>> {
        if since < self.trimmed_through {
            return None;
        }
        let Some(past) = self.past.as_deref() else {
            return Some(Vec::new());
        };
        let missed = past
            .kept
            .range(past.kept.partition_point(|kept| kept.offset <= since)..);
        let bytes: usize = missed.clone().map(Kept::bytes).sum();
        let allowed = missed.len() <= bounds.events_max && bytes <= bounds.bytes_max;
        allowed.then(|| missed.map(|kept| Arc::clone(&kept.event)).collect())
    }

    /// Returns a page, oldest first. The first event is always included, whatever its size.
    pub(super) fn page(&self, page: Page, bounds: ReadBounds) -> HistoryPage {
        let none = VecDeque::new();
        let kept = self.past.as_deref().map_or(&none, |past| &past.kept);
        match page {
            Page::After(offset) => {
                let start = kept.partition_point(|kept| kept.offset <= offset);
                HistoryPage::forwards(kept.range(start..).map(|kept| &kept.event), bounds)
            }
            Page::Newest => HistoryPage::backwards(kept.iter().map(|kept| &kept.event), bounds),
            Page::Before(offset) => {
                let end = kept.partition_point(|kept| kept.offset < offset);
                HistoryPage::backwards(kept.range(..end).map(|kept| &kept.event), bounds)
            }
        }
    }

    pub(super) fn last_values(&self) -> Vec<Arc<Event>> {
        let values = self.past.iter().flat_map(|past| &past.last_values);
        values.map(|kept| Arc::clone(&kept.event)).collect()
    }
}
