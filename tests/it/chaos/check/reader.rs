//! What one client got, against the stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::log::{At, Id, Log, Micros, Reader, Seen, Truth};
use super::{Acknowledged, Outcome, Wrong};

/// How much of a client's own record is told with what is wrong.
const EXCERPT: usize = 12;

/// The close code for who reads too slowly.
const SLOW: u16 = 4002;

/// Where a client is in one room.
#[derive(Debug)]
enum Place {
    Out { revoked: bool },
    In { at: At, replay: Replay },
}

/// What is still to come of what a join announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Replay {
    left: u32,
    /// Exactly what was missed; else the newest of some names, which may skip.
    exact: bool,
}

struct Checked<'l> {
    log: &'l Log,
    called: &'l HashMap<Id, (Micros, u32)>,
    acknowledged: &'l Acknowledged,
    reader: &'l Reader,
    outcome: &'l mut Outcome,
    places: HashMap<usize, Place>,
    /// What it got, with epoch: to tell a duplicate from what comes too late.
    got: HashSet<(usize, Arc<str>, u64)>,
    ephemeral: HashMap<(usize, u32), Vec<Id>>,
    /// The entry that is looked at.
    index: usize,
}

pub(super) fn check(
    log: &Log,
    (called, acknowledged): (&HashMap<Id, (Micros, u32)>, &Acknowledged),
    reader: &Reader,
    outcome: &mut Outcome,
) {
    let mut checked = Checked {
        log,
        called,
        acknowledged,
        reader,
        outcome,
        places: HashMap::new(),
        got: HashSet::new(),
        ephemeral: HashMap::new(),
        index: 0,
    };
    for (index, (when, seen)) in reader.entries.iter().enumerate() {
        checked.index = index;
        checked.note(*when, seen);
    }
    checked.end();
}

impl Checked<'_> {
    fn note(&mut self, when: Micros, seen: &Seen) {
        match seen {
            Seen::Connected(_) | Seen::Degraded(false) => {}
            Seen::Degraded(true) => self.outcome.degraded += 1,
            Seen::Ended(code) => self.outcome.slow += usize::from(*code == Some(SLOW)),
            Seen::Shown { room, called } => self.revoked_before(*room, *called, "history or members asked for"),
            Seen::Joined {
                room,
                called,
                since,
                at,
                recovered,
                replayed,
            } => {
                self.revoked_before(*room, *called, "a join asked for");
                self.joined(*room, since.as_ref(), at, *recovered, *replayed);
            }
            Seen::Forbidden { room } => self.out(*room, true),
            Seen::Left { room, revoked } => self.out(*room, *revoked),
            Seen::Resync { room, at } => {
                self.outcome.restarted += 1;
                let replay = Replay { left: 0, exact: false };
                self.places.insert(*room, Place::In { at: at.clone(), replay });
            }
            Seen::Event { room, at, previous, id } => {
                self.outcome.deliveries += 1;
                self.published_before_revocation(*room, *id, when);
                self.event(*room, at, *previous, *id);
            }
            Seen::Ephemeral { room, id } => {
                self.outcome.deliveries += 1;
                self.published_before_revocation(*room, Some(*id), when);
                self.ephemeral(*room, *id);
            }
        }
    }

    fn joined(&mut self, room: usize, since: Option<&At>, at: &At, recovered: bool, replayed: u32) {
        let mut start = at.clone();
        if let Some(since) = since {
            if recovered {
                self.outcome.recovered += 1;
                start = since.clone();
                self.recovered(room, since, at, replayed);
            } else {
                self.outcome.restarted += 1;
            }
        }
        let replay = Replay {
            left: replayed,
            exact: recovered,
        };
        self.places.insert(room, Place::In { at: start, replay });
    }

    /// A join that says it recovers announces exactly what the stream holds between.
    fn recovered(&mut self, room: usize, since: &At, at: &At, replayed: u32) {
        let Some(truth) = self.truth(room, at).filter(|truth| truth.reaches(since.offset)) else {
            return self.recovered_by_publishers(room, since, at, replayed);
        };
        let missed = truth.after(at.offset) - truth.after(since.offset);
        if since.epoch != at.epoch || missed != replayed as usize {
            let what = format!("recovered {replayed} of {missed} between {since:?} and {at:?}");
            self.find(Wrong::SilentGap, missed.abs_diff(replayed as usize).max(1), room, &what);
        }
    }

    /// The same where the stream does not say any more: nothing that publishers know to have been stored between is passed over.
    fn recovered_by_publishers(&mut self, room: usize, since: &At, at: &At, replayed: u32) {
        if since.epoch != at.epoch {
            return;
        }
        let stored = self.acknowledged.get(&(room, Arc::clone(&at.epoch)));
        let between = |offset: &&u64| (since.offset + 1..=at.offset).contains(*offset);
        let stored = stored.map_or(0, |offsets| offsets.iter().filter(between).count());
        if stored > replayed as usize {
            let what = format!("recovered {replayed} of {stored} acknowledged between {since:?} and {at:?}");
            self.find(Wrong::SilentGap, stored - replayed as usize, room, &what);
        }
    }

    fn out(&mut self, room: usize, revoked: bool) {
        self.places.insert(room, Place::Out { revoked });
    }

    fn event(&mut self, room: usize, at: &At, previous: u64, id: Option<Id>) {
        let key = (room, Arc::clone(&at.epoch), at.offset);
        let again = !self.got.insert(key);
        let (last, replay) = match self.places.get(&room) {
            Some(Place::In { at, replay }) => (at.clone(), *replay),
            Some(Place::Out { revoked: true }) => {
                return self.find(Wrong::AfterRevocation, 1, room, "an event after it was taken out");
            }
            _ => return self.find(Wrong::Untrue, 1, room, "an event of a room it is not in"),
        };
        let left = replay.left.saturating_sub(1);
        if last.epoch != at.epoch {
            self.find(Wrong::SilentGap, 1, room, "another epoch without a resync");
        } else if replay.left > 0 && !replay.exact {
            // The newest of some names, from before the join: their order and truth alone count.
            self.is_true(room, at, id);
            let replay = Replay { left, ..replay };
            self.places.insert(room, Place::In { at: last, replay });
            return;
        } else if at.offset <= last.offset {
            let wrong = if again { Wrong::Doubled } else { Wrong::Reordered };
            return self.find(wrong, 1, room, &format!("{at:?} after {last:?}"));
        } else {
            self.follows(room, &last, at, previous);
        }
        self.is_true(room, at, id);
        let replay = Replay { left, ..replay };
        self.places.insert(room, Place::In { at: at.clone(), replay });
    }

    /// Nothing stands between the two: by the event's own word, and by the stream.
    fn follows(&mut self, room: usize, last: &At, at: &At, previous: u64) {
        let missed = self.truth(room, at).map_or(0, |truth| {
            let from = truth.after(last.offset);
            truth.events[from..].partition_point(|event| event.offset < at.offset)
        });
        if missed > 0 || previous > last.offset {
            let what = format!("{at:?}, which says it follows {previous}, after {last:?}: {missed} between");
            self.find(Wrong::SilentGap, missed.max(1), room, &what);
        }
    }

    /// The stream has it, with this content.
    fn is_true(&mut self, room: usize, at: &At, id: Option<Id>) {
        let Some(truth) = self.truth(room, at).filter(|truth| truth.reaches(at.offset)) else {
            return;
        };
        let found = truth.events.binary_search_by_key(&at.offset, |event| event.offset);
        match found.ok().map(|index| &truth.events[index]) {
            Some(stored) if stored.id == id => {}
            stored => {
                let what = format!("{id:?} at {at:?}, where the stream has {stored:?}");
                self.find(Wrong::Untrue, 1, room, &what);
            }
        }
    }

    fn ephemeral(&mut self, room: usize, id: Id) {
        let via = self.called.get(&id).map_or(0, |call| call.1);
        let before = self.ephemeral.entry((room, via)).or_default();
        let wrong = if before.contains(&id) {
            Wrong::Doubled
        } else if before.last().is_some_and(|last| last.n > id.n) {
            Wrong::Reordered
        } else {
            before.push(id);
            return;
        };
        self.find(wrong, 1, room, &format!("{id:?}, ephemeral"));
    }

    /// The stream as it is known in this epoch.
    fn truth(&self, room: usize, at: &At) -> Option<&Truth> {
        self.log.truth.get(&room).filter(|truth| truth.epoch == at.epoch)
    }

    fn published_before_revocation(&mut self, room: usize, id: Option<Id>, when: Micros) {
        let called = id.and_then(|id| self.called.get(&id));
        if let Some(&(called, _)) = called {
            self.revoked_before(room, called, &format!("{id:?}, received at {when}, asked for"));
        }
    }

    fn revoked_before(&mut self, room: usize, called: Micros, what: &str) {
        let revocations = self.log.revocations.iter();
        let mut mine = revocations.filter(|one| one.room == room && one.user == self.reader.user);
        if let Some(revocation) = mine.find(|one| one.returned < called) {
            let what = format!("{what} at {called}, after {revocation:?}");
            self.find(Wrong::AfterRevocation, 1, room, &what);
        }
    }

    /// Whoever stayed has everything.
    fn end(&mut self) {
        self.index = self.reader.entries.len();
        for &room in &self.reader.rooms {
            let (missing, what) = match self.places.get(&room) {
                Some(Place::Out { revoked: true }) => continue,
                Some(Place::In { at, .. }) => match self.truth(room, at) {
                    Some(truth) => (
                        truth.events.len() - truth.after(at.offset),
                        format!("it ends at {at:?}"),
                    ),
                    None => (1, format!("it ends in another epoch, at {at:?}")),
                },
                _ => (1, "it is not in it at the end".to_owned()),
            };
            if missing > 0 {
                self.find(Wrong::Lost, missing, room, &what);
            }
        }
    }

    fn find(&mut self, wrong: Wrong, count: usize, room: usize, what: &str) {
        let about = |entry: &&(Micros, Seen)| !matches!(room_of(&entry.1), Some(other) if other != room);
        let before = &self.reader.entries[..(self.index + 1).min(self.reader.entries.len())];
        let mut excerpt: Vec<_> = before.iter().rev().filter(about).take(EXCERPT).collect();
        excerpt.reverse();
        let excerpt: Vec<_> = excerpt.iter().map(|entry| format!("    {entry:?}")).collect();
        let (user, excerpt) = (&self.reader.user, excerpt.join("\n"));
        let what = format!("{user} in room {room}: {what}; its last entries:\n{excerpt}");
        self.outcome.find(wrong, count, what);
    }
}

fn room_of(seen: &Seen) -> Option<usize> {
    match seen {
        Seen::Joined { room, .. }
        | Seen::Forbidden { room }
        | Seen::Event { room, .. }
        | Seen::Ephemeral { room, .. }
        | Seen::Resync { room, .. }
        | Seen::Shown { room, .. }
        | Seen::Left { room, .. } => Some(*room),
        Seen::Connected(_) | Seen::Ended(_) | Seen::Degraded(_) => None,
    }
}
