//! Completeness proof: decides when a read of a room contains everything after a position. Pure.
//!
//! A stream removes a room's older events before its newer ones, whatever the reason: their number, their age, the size
//! of the stream, a purge. Single events cannot be deleted: the streams deny it. So a run of a room's events is whole
//! after a position if
//!
//! - the event at the position was still there once the run had been read, or
//! - the stream has removed nothing at all, of whatever room, between the position and the first event that is left.
//!
//! The limits of this node or of the stream prove nothing: both may have been others when an event was removed.

use async_nats::jetstream::stream::Info;

/// The sequences that a stream has assigned and no longer holds, as its leader reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removed {
    /// The oldest sequence it holds.
    first: u64,
    /// The newest sequence it has assigned.
    last: u64,
    /// The removed sequences between them, in order; `None` when they are not known.
    between: Option<Vec<u64>>,
}

/// The removals of a stream within a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Nothing: proven.
    Nothing,
    /// At least one message.
    Something,
    /// Not known: too much was removed to list, or the range ends beyond what the stream had assigned.
    Unknown,
}

impl Removed {
    /// Reads the removals from a stream's state. Needs the details, unless nothing between was removed.
    pub(super) fn of(info: &Info) -> Self {
        let state = &info.state;
        let (first, last) = (state.first_sequence, state.last_sequence);
        let count = (last + 1).saturating_sub(first).saturating_sub(state.messages);
        let between = state.deleted.clone().unwrap_or_default();
        Self::new(first, last, between, count)
    }

    pub(super) fn new(first: u64, last: u64, mut between: Vec<u64>, count: u64) -> Self {
        between.sort_unstable();
        // An incomplete list proves nothing.
        let complete = u64::try_from(between.len()).is_ok_and(|listed| listed == count);
        Self {
            first,
            last,
            between: complete.then_some(between),
        }
    }

    /// Looks for a removed sequence after `after`, below `before` or, without it, at all.
    pub(super) fn look(&self, after: u64, before: Option<u64>) -> Removal {
        let before = before.unwrap_or(self.last.saturating_add(1));
        let from = after.saturating_add(1);
        if from >= before {
            return Removal::Nothing;
        }
        if from < self.first {
            return Removal::Something;
        }
        if before > self.last.saturating_add(1) {
            return Removal::Unknown;
        }
        let Some(between) = &self.between else {
            return Removal::Unknown;
        };
        let next = between.partition_point(|removed| *removed < from);
        match between.get(next) {
            Some(removed) if *removed < before => Removal::Something,
            _ => Removal::Nothing,
        }
    }
}

/// A room's events from a position on, as they were read, and the evidence for their completeness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run<E> {
    /// With their sequences, oldest first. Nothing between two of them is missing.
    pub events: Vec<(u64, E)>,
    /// The room's oldest event at or after the position that the leader still had once the events were read.
    pub first: Option<u64>,
    /// Older ones were read but left out: there were more than are kept.
    pub cut: bool,
}

impl<E> Run<E> {
    /// Builds a run from a read during which the stream may have removed events. It keeps the events from the oldest on
    /// that is still there; nothing after that was removed meanwhile.
    pub(super) fn settled(mut events: Vec<(u64, E)>, first: Option<u64>, cut: bool) -> Self {
        match first {
            Some(first) => events.retain(|(seq, _)| *seq >= first),
            None => events.clear(),
        }
        Self { events, first, cut }
    }

    /// Reports whether the event at this position is still there: then nothing after it is missing.
    pub(super) fn has(&self, position: u64) -> bool {
        self.first == Some(position) && !self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_between_two_sequences_is_seen_and_one_elsewhere_is_not() {
        use Removal::{Nothing, Something, Unknown};
        let removed = Removed::new(4, 12, vec![9, 6], 2);
        for (after, before, expected) in [
            // Everything below the first is gone.
            (2, Some(6), Something),
            (3, Some(6), Nothing),
            (3, Some(7), Something),
            (6, Some(9), Nothing),
            (6, Some(10), Something),
            (8, None, Something),
            (9, None, Nothing),
            (12, None, Nothing),
            // Nothing lies between.
            (0, Some(1), Nothing),
            // Beyond what the stream had assigned when it was queried.
            (9, Some(14), Unknown),
        ] {
            assert_eq!(removed.look(after, before), expected, "({after}, {before:?})");
        }
    }

    #[test]
    fn an_incomplete_list_of_removals_proves_nothing() {
        let removed = Removed::new(4, 12, vec![6], 2);
        assert_eq!(removed.look(7, None), Removal::Unknown);
        assert_eq!(removed.look(1, None), Removal::Something);
        assert_eq!(Removed::new(13, 12, Vec::new(), 0).look(12, None), Removal::Nothing);
    }

    #[test]
    fn what_was_removed_while_it_was_read_is_no_part_of_a_run() {
        let read = || vec![(3, ()), (4, ()), (9, ())];
        let run = Run::settled(read(), Some(3), false);
        assert!(run.has(3) && run.events.len() == 3);
        let run = Run::settled(read(), Some(9), false);
        assert!(!run.has(3) && run.events == [(9, ())]);
        assert!(Run::settled(read(), None, false).events.is_empty());
        assert!(!Run::settled(read(), Some(3), true).has(3));
    }
}
