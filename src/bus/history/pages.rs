//! Cuts pages out of a history. Shared by every bus.

use std::sync::Arc;

use crate::bus::{HistoryPage, ReadBounds};
use crate::event::Event;

impl HistoryPage {
    /// Returns the newest of these events, oldest first.
    pub(in crate::bus) fn backwards<'e>(
        events: impl DoubleEndedIterator<Item = &'e Arc<Event>>,
        bounds: ReadBounds,
    ) -> Self {
        let mut page = Self::forwards(events.rev(), bounds);
        page.events.reverse();
        page
    }

    /// Returns the first of these events, as many as the bounds allow. The first is always included, whatever its size.
    pub(in crate::bus) fn forwards<'e>(events: impl Iterator<Item = &'e Arc<Event>>, bounds: ReadBounds) -> Self {
        let (mut page, mut bytes) = (Self::default(), 0);
        for event in events {
            bytes += event.payload.bytes_len();
            page.more = page.events.len() >= bounds.events_max || (bytes > bounds.bytes_max && !page.events.is_empty());
            if page.more {
                break;
            }
            page.events.push(Arc::clone(event));
        }
        page
    }
}
