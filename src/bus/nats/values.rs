//! The cached last values of a room with members here: those received live, and under them those that were read.

use std::sync::Arc;

use crate::event::Event;
use crate::position::Offset;

/// The newest event of each name, oldest first.
#[derive(Debug, Default)]
pub(super) struct Values {
    events: Vec<Arc<Event>>,
    /// The number of the sweep before the read; `None` without a read.
    read: Option<u32>,
}

impl Values {
    /// Returns the values if they are complete. Values read before the last sweep may have been erased since; an empty
    /// result cannot have been.
    pub(super) fn whole(&self, sweep: u32) -> Option<&[Arc<Event>]> {
        let whole = self.read.is_some_and(|read| read == sweep || self.events.is_empty());
        whole.then_some(&*self.events)
    }

    pub(super) fn into_events(self) -> Vec<Arc<Event>> {
        self.events
    }

    /// Takes a value that may be newer than the cached one of its name.
    pub(super) fn set(&mut self, event: Arc<Event>, names_max: usize) {
        if let Some(known) = self.events.iter().position(|known| known.name == event.name) {
            if self.events[known].offset() >= event.offset() {
                return;
            }
            self.events.remove(known);
        }
        let place = self.events.partition_point(|known| known.offset() < event.offset());
        self.events.insert(place, event);
        if self.events.len() > names_max {
            self.events.remove(0);
        }
    }

    /// Takes a read from before the end of this sweep. Only the cached values after `through` stay.
    pub(super) fn renew(&mut self, read: &[Arc<Event>], through: Offset, sweep: u32, names_max: usize) {
        self.events.retain(|event| event.offset() > Some(through));
        for event in read {
            self.set(Arc::clone(event), names_max);
        }
        self.read = Some(sweep);
    }
}
