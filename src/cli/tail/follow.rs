//! One followed room: its reader's position, and gap detection. Knows no socket.

use crate::proto::client_v1::{Event, Join, Joined, Passed, Position, PresenceMode};

/// A room and its reader's progress.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Room {
    pub(super) name: String,
    /// The last position seen, from which the next join resumes.
    seen: Option<Position>,
    rewind: u32,
}

/// A gap between two received events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// The offset seen last.
    pub(super) after: u64,
    /// The offset of the event before the one received.
    pub(super) up_to: u64,
}

impl Room {
    pub(super) fn new(name: String, since: Option<Position>, rewind: u32) -> Self {
        Self {
            name,
            seen: since,
            rewind,
        }
    }

    /// Returns the join that continues from here.
    pub(super) fn join(&self, presence: bool) -> Join {
        Join {
            room: self.name.clone(),
            since: self.seen.clone(),
            rewind: if self.seen.is_some() { 0 } else { self.rewind },
            presence: if presence {
                PresenceMode::Members.into()
            } else {
                PresenceMode::Unspecified.into()
            },
            ..Join::default()
        }
    }

    /// Reports whether the next join resumes.
    pub(super) fn resumes(&self) -> bool {
        self.seen.is_some()
    }

    /// Records the reply to a join. When nothing was recovered, reading starts at the head; events replayed up to there are
    /// not part of the chain.
    pub(super) fn joined(&mut self, joined: &Joined) {
        if !joined.recovered {
            self.seen.clone_from(&joined.head);
        }
    }

    /// Forgets the position after lost continuity: the next join starts anew.
    pub(super) fn forget(&mut self) {
        self.seen = None;
        self.rewind = 0;
    }

    pub(super) fn event(&mut self, event: &Event) -> Option<Gap> {
        self.link(&event.epoch, event.offset, event.previous_offset)
    }

    pub(super) fn passed(&mut self, passed: &Passed) -> Option<Gap> {
        self.link(&passed.epoch, passed.offset, passed.previous_offset)
    }

    /// Advances to an event of the room's chain.
    fn link(&mut self, epoch: &str, offset: u64, previous: u64) -> Option<Gap> {
        let seen = self.seen.as_mut()?;
        // Ephemeral events have no position; those at or before the position were replayed on purpose.
        if offset == 0 || (seen.epoch == epoch && offset <= seen.offset) {
            return None;
        }
        // The first event of a room that was joined without one has no predecessor.
        let gap = (seen.epoch != epoch || seen.offset < previous).then_some(Gap {
            after: seen.offset,
            up_to: previous,
        });
        *seen = Position {
            epoch: epoch.to_owned(),
            offset,
        };
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position {
            epoch: "e".to_owned(),
            offset,
        }
    }

    fn event(previous_offset: u64, offset: u64) -> Event {
        Event {
            epoch: "e".to_owned(),
            offset,
            previous_offset,
            ..Event::default()
        }
    }

    fn joined_at(offset: u64, recovered: bool) -> Joined {
        Joined {
            head: Some(at(offset)),
            recovered,
            ..Joined::default()
        }
    }

    #[test]
    fn a_recovered_room_goes_on_from_what_was_seen() {
        let mut room = Room::new("r".to_owned(), Some(at(3)), 0);
        room.joined(&joined_at(9, true));
        assert_eq!(room.event(&event(3, 7)), None);
        assert_eq!(room.event(&event(7, 9)), None);
        assert_eq!(room.event(&event(9, 10)), None);
        assert_eq!(room.join(false).since, Some(at(10)));
    }

    #[test]
    fn what_is_replayed_before_the_head_is_no_gap() {
        let mut room = Room::new("r".to_owned(), None, 2);
        assert_eq!(room.join(false).rewind, 2);
        room.joined(&joined_at(9, false));
        assert_eq!(room.event(&event(1, 4)), None);
        assert_eq!(room.event(&event(9, 12)), None);
        assert_eq!(
            room.join(false),
            Join {
                room: "r".to_owned(),
                since: Some(at(12)),
                ..Join::default()
            }
        );
    }

    #[test]
    fn the_first_event_of_a_room_and_its_last_values_are_no_gap() {
        let mut room = Room::new("r".to_owned(), Some(at(3)), 0);
        room.joined(&joined_at(7, false));
        assert_eq!(room.event(&event(0, 5)), None, "a last value");
        assert_eq!(room.join(false).since, Some(at(7)));
        assert_eq!(room.event(&event(0, 9)), None);
    }

    #[test]
    fn a_missing_event_is_a_gap_and_an_event_for_others_is_none() {
        let mut room = Room::new("r".to_owned(), None, 0);
        room.joined(&joined_at(1, false));
        let passed = Passed {
            epoch: "e".to_owned(),
            offset: 2,
            previous_offset: 1,
            ..Passed::default()
        };
        assert_eq!(room.passed(&passed), None);
        assert_eq!(room.event(&event(2, 3)), None);
        assert_eq!(room.event(&event(4, 5)), Some(Gap { after: 3, up_to: 4 }));
        assert_eq!(room.event(&event(5, 6)), None);
    }
}
