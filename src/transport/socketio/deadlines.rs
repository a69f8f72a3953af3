//! Deadlines of connections, in lines: all deadlines of a line come equally long after they were set, so each line is in order and
//! costs 16 bytes for each.

use std::collections::VecDeque;
use std::time::Duration;

use super::EngineId;
use crate::units::millis;

/// Deadlines that are equally far away when they are set.
#[derive(Debug)]
pub(super) struct Line {
    after_ms: u64,
    due: VecDeque<(u64, EngineId)>,
}

impl Line {
    pub(super) const fn new(after_ms: u64) -> Self {
        Self {
            after_ms,
            due: VecDeque::new(),
        }
    }

    /// A line whose deadlines come so long after they are set.
    pub(super) fn after(after: Duration) -> Self {
        Self::new(millis(after))
    }

    /// Sets a deadline. `now_ms` does not go back.
    pub(super) fn set(&mut self, id: EngineId, now_ms: u64) {
        self.due.push_back((now_ms + self.after_ms, id));
    }

    /// Takes the next deadline that is over, with its time.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<(u64, EngineId)> {
        let (due_ms, _) = *self.due.front()?;
        if due_ms > now_ms {
            return None;
        }
        let taken = self.due.pop_front();
        if self.due.len() < self.due.capacity() / 4 {
            // Memory goes back after a wave of clients has left.
            self.due.shrink_to(self.due.len() * 2);
        }
        taken
    }

    /// The time of the next deadline.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.due.front().map(|(due_ms, _)| *due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_the_order_they_were_set() {
        let id = |key| EngineId { key, serial: 0 };
        let mut line = Line::new(100);
        line.set(id(1), 0);
        line.set(id(2), 50);
        assert_eq!(line.next_ms(), Some(100));
        assert_eq!(line.take_due(99), None);
        assert_eq!(line.take_due(120), Some((100, id(1))));
        assert_eq!(line.take_due(120), None);
        assert_eq!(line.take_due(150), Some((150, id(2))));
        assert_eq!(line.next_ms(), None);
    }
}
