//! When a run of a room's events that was read from the stream is everything that came after a position. Pure.

/// What is known of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The event at the position itself is still in the stream.
    pub inclusive: bool,
    /// How many events came after the position.
    pub events: usize,
    /// How many events of a room the stream keeps.
    pub retained_max: usize,
    /// Nothing that came after the position can have been dropped for its age or for the size of the stream.
    pub nothing_dropped: bool,
}

impl Evidence {
    /// Whether the run is whole. A room's older events go before its newer ones. So nothing between is missing when the
    /// event at the position is still there; or when none was dropped, neither for its age nor because the room has had
    /// more of them than the stream keeps.
    pub(super) const fn is_whole(self) -> bool {
        self.inclusive || (self.events < self.retained_max && self.nothing_dropped)
    }
}

/// Whether a stream whose oldest sequence is `first` still has everything that came after a position.
pub(super) const fn reaches_back(first: u64, after: u64) -> bool {
    first <= after.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_whole_only_when_nothing_can_be_missing_before_it() {
        for (inclusive, events, nothing_dropped, expected) in [
            (true, 9, false, true),
            (false, 4, true, true),
            (false, 5, true, false),
            (false, 0, false, false),
        ] {
            let evidence = Evidence {
                inclusive,
                events,
                retained_max: 5,
                nothing_dropped,
            };
            assert_eq!(evidence.is_whole(), expected, "{evidence:?}");
        }
        assert!(reaches_back(8, 7) && !reaches_back(9, 7));
    }
}
