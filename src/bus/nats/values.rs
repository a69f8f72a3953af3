//! The last values of a room with members here: those that came live, and under them those that were read.

use std::sync::Arc;

use crate::event::Event;
use crate::position::Offset;

/// The newest event of each name, oldest first.
#[derive(Debug, Default)]
pub(super) struct Values {
    events: Vec<Arc<Event>>,
    /// The number of the sweep before they were read; `None` while they were not.
    read: Option<u32>,
}

impl Values {
    /// What is known, if everything is. What was read before the last sweep may have been erased since; nothing was not.
    pub(super) fn whole(&self, sweep: u32) -> Option<&[Arc<Event>]> {
        let whole = self.read.is_some_and(|read| read == sweep || self.events.is_empty());
        whole.then_some(&*self.events)
    }

    pub(super) fn into_events(self) -> Vec<Arc<Event>> {
        self.events
    }

    /// Takes one that may be newer than what is known of its name.
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

    /// Takes what was read before this sweep ended. Of what was known only that stays which came after `through`.
    pub(super) fn renew(&mut self, read: &[Arc<Event>], through: Offset, sweep: u32, names_max: usize) {
        self.events.retain(|event| event.offset() > Some(through));
        for event in read {
            self.set(Arc::clone(event), names_max);
        }
        self.read = Some(sweep);
    }
}
