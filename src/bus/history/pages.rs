//! Cutting pages out of a history. Shared by every bus.

use std::sync::Arc;

use crate::bus::ReadBounds;
use crate::event::Event;

/// The newest of these events, oldest first.
pub(in crate::bus) fn backwards<'e>(
    events: impl DoubleEndedIterator<Item = &'e Arc<Event>>,
    bounds: ReadBounds,
) -> Vec<Arc<Event>> {
    let mut page = forwards(events.rev(), bounds);
    page.reverse();
    page
}

/// The first of these events, as many as the bounds allow. The first is in it whatever its size.
pub(in crate::bus) fn forwards<'e>(
    events: impl Iterator<Item = &'e Arc<Event>>,
    bounds: ReadBounds,
) -> Vec<Arc<Event>> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for event in events.take(bounds.events_max) {
        bytes += event.payload.bytes_len();
        if bytes > bounds.bytes_max && !page.is_empty() {
            break;
        }
        page.push(Arc::clone(event));
    }
    page
}
