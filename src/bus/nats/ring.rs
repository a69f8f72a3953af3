//! The newest events of a room in a node's memory, back to a floor. Pure: the caller passes the time.
//!
//! The ring serves reads like a room that keeps what its limits allow: an event is kept as long as it and all events
//! after it fit in number, bytes and age. Events that the limits dropped are lost. Events below the floor for another
//! reason are read from the stream.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bus::history::HistoryLimits;
use crate::bus::{HistoryPage, Page, ReadBounds};
use crate::event::{Event, Timestamp};
use crate::position::{ChainLink, Offset};

/// The estimated cost of an event beside its payload: the event, its name, its slot in the ring, allocator overhead.
const EVENT_BYTES: usize = 256;

/// The reach of a ring, relative to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everything after the position is in it.
    Here,
    /// The limits have dropped some, or it was erased.
    Lost,
    /// The rest has to be read from the stream.
    Beyond,
}

/// A room's newest events.
#[derive(Debug)]
pub(super) struct Ring {
    limits: Arc<HistoryLimits>,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The exclusive lower bound: everything after this is in the ring.
    floor: Offset,
    /// The watermark of lost events: the limits dropped, or the stream lost, everything through this.
    lost: Offset,
}

impl Ring {
    /// Creates an empty ring that begins after `floor`.
    pub(super) const fn new(limits: Arc<HistoryLimits>, floor: Offset) -> Self {
        Self {
            limits,
            events: VecDeque::new(),
            bytes: 0,
            floor,
            lost: Offset::ZERO,
        }
    }

    /// Creates a ring from a read of the stream that holds everything after `floor`.
    pub(super) fn of(limits: Arc<HistoryLimits>, floor: Offset, events: Vec<Arc<Event>>) -> Self {
        let mut ring = Self::new(limits, floor);
        for event in events {
            ring.push(event);
        }
        ring
    }

    pub(super) const fn floor(&self) -> Offset {
        self.floor
    }

    /// Returns the number of events and their payload bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.events.len(), self.bytes)
    }

    /// Returns the bytes that count against the bound over all rooms.
    pub(super) fn weight(&self) -> usize {
        self.bytes + self.events.len() * EVENT_BYTES
    }

    /// Appends the room's next event.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.payload.bytes_len();
        self.events.push_back(event);
        while self.events.len() > self.limits.events_max || self.bytes > self.limits.bytes_max {
            self.lose();
        }
    }

    /// Prepends events read from the stream: everything after `floor` up to the ring's own. Events at or before `lost`
    /// cannot be read any more.
    pub(super) fn extend_back(&mut self, floor: Offset, lost: Offset, events: &[Arc<Event>]) {
        let older = events.iter().filter(|event| event.offset() <= Some(self.floor));
        let older: Vec<_> = older.cloned().collect();
        self.lost = self.lost.max(lost);
        if floor >= self.floor {
            return;
        }
        self.floor = floor;
        for event in older.into_iter().rev() {
            let fits = self.events.len() < self.limits.events_max
                && self.bytes + event.payload.bytes_len() <= self.limits.bytes_max;
            if !fits {
                let dropped = event.offset().unwrap_or_default();
                self.lost = self.lost.max(dropped);
                self.floor = dropped;
                break;
            }
            self.bytes += event.payload.bytes_len();
            self.events.push_front(event);
        }
    }

    /// Drops expired events.
    pub(super) fn trim(&mut self, now: Timestamp) {
        while let Some(oldest) = self.events.front()
            && oldest.time.age(now) >= self.limits.age_max
        {
            self.lose();
        }
    }

    /// Returns the offsets of the oldest and the newest event in the ring.
    pub(super) fn ends(&self) -> Option<(Offset, Offset)> {
        Some((self.events.front()?.offset()?, self.events.back()?.offset()?))
    }

    /// Drops the events before `first`: the stream no longer holds them.
    pub(super) fn lose_before(&mut self, first: Offset) {
        while self.events.front().is_some_and(|oldest| oldest.offset() < Some(first)) {
            self.lose();
        }
    }

    /// Drops the oldest event to free memory; it can be read from the stream. `false` when there is none.
    pub(super) fn give_up_oldest(&mut self) -> bool {
        let Some(oldest) = self.pop() else { return false };
        self.floor = oldest;
        true
    }

    fn lose(&mut self) {
        if let Some(oldest) = self.pop() {
            self.floor = oldest;
            self.lost = oldest;
        }
    }

    fn pop(&mut self) -> Option<Offset> {
        let oldest = self.events.pop_front()?;
        self.bytes -= oldest.payload.bytes_len();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        oldest.offset()
    }

    /// Returns the event at this offset, if it is in the ring.
    pub(super) fn at(&self, offset: Offset) -> Option<&Arc<Event>> {
        let index = self.events.partition_point(|event| event.offset() < Some(offset));
        self.events.get(index).filter(|event| event.offset() == Some(offset))
    }

    /// Reports whether everything after `since` is in the ring.
    pub(super) fn reach(&self, since: Offset) -> Reach {
        if since < self.lost {
            Reach::Lost
        } else if since < self.floor {
            Reach::Beyond
        } else {
            Reach::Here
        }
    }

    /// Returns the events after `since` that are in the ring; `None` when they exceed the bounds.
    pub(super) fn since(&self, since: Offset, bounds: ReadBounds) -> Option<Vec<Arc<Event>>> {
        let start = self.events.partition_point(|event| event.offset() <= Some(since));
        let missed = self.events.range(start..);
        let bytes: usize = missed.clone().map(|event| event.payload.bytes_len()).sum();
        let allowed = missed.len() <= bounds.events_max && bytes <= bounds.bytes_max;
        allowed.then(|| missed.cloned().collect())
    }

    /// Returns a page, oldest first.
    pub(super) fn page(&self, page: Page, bounds: ReadBounds) -> HistoryPage {
        let at_or_before = |offset| self.events.partition_point(|event| event.offset() <= Some(offset));
        let before = |offset| self.events.partition_point(|event| event.offset() < Some(offset));
        let mut cut = match page {
            Page::Newest => HistoryPage::backwards(self.events.iter(), bounds),
            Page::After(offset) => HistoryPage::forwards(self.events.range(at_or_before(offset)..), bounds),
            Page::Before(offset) => HistoryPage::backwards(self.events.range(..before(offset)), bounds),
        };
        if let Page::After(offset) = page {
            cut.complete = self.reach(offset) == Reach::Here;
        }
        self.tell_floor(&mut cut.events);
        cut
    }

    /// Links the ring's oldest event to the floor. The stream may have held an older event when it was published, and
    /// no longer does.
    fn tell_floor(&self, page: &mut [Arc<Event>]) {
        if let (Some(first), Some(oldest)) = (page.first_mut(), self.events.front())
            && Arc::ptr_eq(first, oldest)
            && let Some(link) = first.link
            && link.prev < self.floor
        {
            let link = Some(ChainLink {
                prev: self.floor,
                ..link
            });
            *first = Arc::new(Event {
                link,
                ..Event::clone(first)
            });
        }
    }

    /// Reports whether everything that the limits keep is in the ring.
    pub(super) fn is_whole(&self) -> bool {
        self.floor <= self.lost
    }
}
