//! The check that one member got every event exactly once and in order. Knows no socket.

use std::collections::BTreeSet;

/// The events, numbered from 0, that one member has received. Takes memory only for missing ones.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// One more than the highest number seen.
    next: u64,
    /// Numbers below `next` that have not come.
    missing: BTreeSet<u64>,
}

/// Delivery faults, summed over members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Never came.
    pub(super) lost: u64,
    /// Came again.
    pub(super) doubled: u64,
    /// Came after a later one.
    pub(super) reordered: u64,
    /// Came to a member of another room.
    pub(super) strayed: u64,
    /// Connections that ended before the end.
    pub(super) disconnected: u64,
    /// Times a member was told to read its state anew.
    pub(super) resyncs: u64,
}

impl Tally {
    /// For a member that is to get what is numbered from here on.
    pub(super) fn starting_at(number: u64) -> Self {
        Self {
            next: number,
            missing: BTreeSet::new(),
        }
    }

    /// Enters an event; what is wrong with it goes into the faults.
    pub(super) fn event(&mut self, number: u64, faults: &mut Faults) {
        if number == self.next {
            self.next += 1;
        } else if number > self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            faults.reordered += 1;
        } else {
            faults.doubled += 1;
        }
    }

    /// Reports whether all of this many events have arrived.
    pub(super) fn is_complete(&self, events: u64) -> bool {
        self.next >= events && self.missing.is_empty()
    }

    /// Returns how many of this many events have not arrived.
    pub(super) fn lacking(&self, events: u64) -> u64 {
        events.saturating_sub(self.next) + self.missing.len() as u64
    }
}

impl Faults {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.strayed += other.strayed;
        self.disconnected += other.disconnected;
        self.resyncs += other.resyncs;
    }

    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "lost {}, doubled {}, reordered {}, strayed {}, resyncs {}, disconnected {}",
            self.lost, self.doubled, self.reordered, self.strayed, self.resyncs, self.disconnected
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: &[u64]) -> (bool, Faults) {
        let (mut tally, mut faults) = (Tally::default(), Faults::default());
        for number in numbers {
            tally.event(*number, &mut faults);
        }
        faults.lost = tally.lacking(4);
        (tally.is_complete(4), faults)
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
