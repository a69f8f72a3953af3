//! Whether one member got every event exactly once and in order. Knows no socket.

use std::collections::BTreeSet;

/// What one member has received of events numbered from 0. Takes memory only for what is missing.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// One more than the highest number seen.
    next: u64,
    /// Numbers below `next` that have not come.
    missing: BTreeSet<u64>,
    pub(super) faults: Faults,
}

/// What must not happen, summed over members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Never came.
    pub(super) lost: u64,
    /// Came again.
    pub(super) doubled: u64,
    /// Came after a later one.
    pub(super) reordered: u64,
    /// Connections that ended before the end.
    pub(super) disconnected: u64,
    /// Times a member was told to read its state anew.
    pub(super) resyncs: u64,
}

impl Tally {
    pub(super) fn event(&mut self, number: u64) {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.faults.reordered += 1;
        } else {
            self.faults.doubled += 1;
        }
    }

    /// Whether all of this many have come.
    pub(super) fn is_complete(&self, events: u64) -> bool {
        self.next >= events && self.missing.is_empty()
    }

    /// The faults, now that nothing more will come of this many events.
    pub(super) fn close(self, events: u64) -> Faults {
        Faults {
            lost: events.saturating_sub(self.next) + self.missing.len() as u64,
            ..self.faults
        }
    }
}

impl Faults {
    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.disconnected += other.disconnected;
        self.resyncs += other.resyncs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: &[u64]) -> (bool, Faults) {
        let mut tally = Tally::default();
        for number in numbers {
            tally.event(*number);
        }
        (tally.is_complete(4), tally.close(4))
    }

    #[test]
    fn everything_once_and_in_order_is_no_fault() {
        let (complete, faults) = faults(&[0, 1, 2, 3]);
        assert!(complete && !faults.any(), "{faults:?}");
    }

    #[test]
    fn what_is_lost_doubled_or_reordered_is_counted() {
        for (numbers, complete, lost, doubled, reordered) in [
            (&[0, 1, 2][..], false, 1, 0, 0),
            (&[], false, 4, 0, 0),
            (&[1, 3], false, 2, 0, 0),
            (&[0, 1, 1, 2, 3], true, 0, 1, 0),
            (&[0, 2, 1, 3], true, 0, 0, 1),
            (&[3, 0, 0], false, 2, 1, 1),
        ] {
            let expected = Faults {
                lost,
                doubled,
                reordered,
                ..Faults::default()
            };
            assert_eq!(faults(numbers), (complete, expected), "{numbers:?}");
        }
    }
}
