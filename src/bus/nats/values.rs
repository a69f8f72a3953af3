//! The last values of a room with members here: those that came live, and under them those that were read.

use std::sync::Arc;

use crate::event::Event;

/// The newest event of each name, oldest first.
#[derive(Debug, Default)]
pub(super) struct Values {
    events: Vec<Arc<Event>>,
    whole: bool,
}

impl Values {
    /// What is known, if everything is.
    pub(super) fn whole(&self) -> Option<&[Arc<Event>]> {
        self.whole.then_some(&*self.events)
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

    /// Takes what was read; from now on everything is known.
    pub(super) fn fill(&mut self, read: impl IntoIterator<Item = Arc<Event>>, names_max: usize) {
        for event in read {
            self.set(event, names_max);
        }
        self.whole = true;
    }
}
