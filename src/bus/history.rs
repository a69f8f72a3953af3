//! History limits of rooms, by pattern. Shared by every bus.

mod pages;

use std::sync::Arc;
use std::time::Duration;

use crate::room::{Room, RoomPattern};

/// The bounds of a room's history, for resuming and history queries. The first bound that is reached drops the oldest
/// events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// The most events. 0 keeps nothing: the room's events have positions, but no client can resume.
    pub events_max: usize,
    /// The longest time an event is kept. Zero keeps nothing.
    pub age_max: Duration,
    /// The most payload bytes, summed. An event larger than this is not kept.
    pub bytes_max: usize,
}

impl Default for HistoryLimits {
    /// 300 events, 10 minutes, 1 MiB: enough for a phone that loses its connection in a tunnel to resume.
    fn default() -> Self {
        Self {
            events_max: 300,
            age_max: Duration::from_secs(600),
            bytes_max: 1 << 20,
        }
    }
}

/// The history limits of all rooms, by pattern.
#[derive(Debug, Clone, Default)]
pub struct HistoryRules {
    rules: Vec<(RoomPattern, Arc<HistoryLimits>)>,
    default: Arc<HistoryLimits>,
}

impl HistoryRules {
    /// Creates the rules from patterns in order of precedence, and the limits of rooms that no rule matches.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = (RoomPattern, HistoryLimits)>, default: HistoryLimits) -> Self {
        let shared = |(pattern, limits)| (pattern, Arc::new(limits));
        Self {
            rules: rules.into_iter().map(shared).collect(),
            default: Arc::new(default),
        }
    }

    /// Returns the limits of the first pattern that matches the room's name, else the default. They are shared, so that
    /// a room holds only a pointer.
    #[must_use]
    pub fn limits_of(&self, room: &Room) -> Arc<HistoryLimits> {
        let matching = self.rules.iter().find(|(pattern, _)| pattern.matches(room.name()));
        Arc::clone(matching.map_or(&self.default, |(_, limits)| limits))
    }

    /// Returns the patterns with their limits, in order of precedence. The default comes last and has no pattern.
    pub fn all(&self) -> impl Iterator<Item = (Option<&RoomPattern>, &HistoryLimits)> {
        let rules = self.rules.iter().map(|(pattern, limits)| (Some(pattern), &**limits));
        rules.chain([(None, &*self.default)])
    }

    /// Returns the most events and the longest time that any room keeps.
    #[must_use]
    pub fn largest(&self) -> (usize, Duration) {
        let all = self.rules.iter().map(|(_, limits)| limits).chain([&self.default]);
        all.fold((0, Duration::ZERO), |(events, age), limits| {
            (events.max(limits.events_max), age.max(limits.age_max))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Tenant;

    #[test]
    fn the_first_matching_pattern_decides_and_the_default_covers_the_rest() {
        let keeping = |events_max| HistoryLimits {
            events_max,
            ..HistoryLimits::default()
        };
        let pattern = |text| RoomPattern::parse(text).unwrap();
        let rules = HistoryRules::new(
            [
                (pattern("project:vip"), keeping(9)),
                (pattern("project:{id}"), keeping(1)),
                (pattern("project:{other}"), keeping(2)),
            ],
            keeping(7),
        );
        let kept = |name| {
            let room = Room::parse(&Tenant::default(), name).unwrap();
            rules.limits_of(&room).events_max
        };
        assert_eq!((kept("project:vip"), kept("project:1"), kept("lobby")), (9, 1, 7));
    }
}
