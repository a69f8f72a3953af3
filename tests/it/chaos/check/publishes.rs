//! What publishers were told, against the stream.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::log::{Answer, At, Attempt, Id, Log, Truth};
use super::{Outcome, Wrong};

pub(super) fn check(log: &Log, outcome: &mut Outcome) {
    let places = places(log, outcome);
    let answered = |answer| log.attempts.iter().filter(|one| one.answer == answer).count();
    outcome.unsettled = (answered(Answer::NotStored), answered(Answer::Unknown));
    for (id, attempts) in log.by_id() {
        event(log, &places, id, &attempts, outcome);
    }
    order(log, &places, outcome);
}

/// Where each event stands in the stream; one that stands twice is found here.
fn places(log: &Log, outcome: &mut Outcome) -> HashMap<Id, (usize, u64)> {
    let mut places = HashMap::new();
    for (&room, truth) in &log.truth {
        for stored in &truth.events {
            let Some(id) = stored.id else { continue };
            if let Some(other) = places.insert(id, (room, stored.offset)) {
                let what = format!(
                    "{id:?} is in the stream twice: {other:?} and {:?}",
                    (room, stored.offset)
                );
                outcome.find(Wrong::Doubled, 1, what);
            }
        }
    }
    places
}

/// One event: all that was said of it, and where it is.
fn event(log: &Log, places: &HashMap<Id, (usize, u64)>, id: Id, attempts: &[&Attempt], outcome: &mut Outcome) {
    let answers = || attempts.iter().map(|attempt| &attempt.answer);
    if answers().any(|answer| *answer == Answer::Sent) {
        return;
    }
    let mut stored = answers().filter_map(|answer| match answer {
        Answer::Stored(at) => Some(at),
        _ => None,
    });
    let place = places.get(&id);
    let Some(at) = stored.next() else {
        if answers().all(|answer| *answer == Answer::NotStored) {
            outcome.refused += 1;
            if let Some(place) = place {
                outcome.find(
                    Wrong::Untrue,
                    1,
                    format!("{id:?} is not stored, it was said, and is at {place:?}"),
                );
            }
        } else {
            outcome.unknown += 1;
        }
        return;
    };
    outcome.stored += 1;
    for other in stored.filter(|other| *other != at) {
        let what = format!("{id:?} was acknowledged at {at:?} and at {other:?}");
        outcome.find(Wrong::Doubled, 1, what);
    }
    let room = attempts[0].room;
    if is_known(log.truth.get(&room), at) && place != Some(&(room, at.offset)) {
        let what = format!("{id:?} was acknowledged at {at:?} of room {room} and is at {place:?}; {attempts:?}");
        outcome.find(Wrong::Lost, 1, what);
    }
}

/// Whether the stream still knows what was there.
fn is_known(truth: Option<&Truth>, at: &At) -> bool {
    truth.is_none_or(|truth| truth.epoch == at.epoch && truth.reaches(at.offset))
}

/// Of one publisher in one room: what was acknowledged before the next was asked for stands before it.
fn order(log: &Log, places: &HashMap<Id, (usize, u64)>, outcome: &mut Outcome) {
    let mut by_publisher: BTreeMap<(u32, usize), Vec<&Attempt>> = BTreeMap::new();
    for attempt in &log.attempts {
        let key = (attempt.id.by, attempt.room);
        by_publisher.entry(key).or_default().push(attempt);
    }
    for attempts in by_publisher.values_mut() {
        attempts.sort_by_key(|attempt| attempt.called);
        let mut acknowledged: Vec<_> = attempts
            .iter()
            .filter(|one| matches!(one.answer, Answer::Stored(_)))
            .collect();
        acknowledged.sort_by_key(|attempt| attempt.returned);
        // The furthest place that was acknowledged before the call that is looked at.
        let (mut furthest, mut passed) = (None, 0);
        let mut seen: HashSet<Id> = HashSet::new();
        for attempt in attempts.iter() {
            while passed < acknowledged.len() && acknowledged[passed].returned < attempt.called {
                let place = places
                    .get(&acknowledged[passed].id)
                    .map(|place| (place.1, acknowledged[passed].id));
                furthest = furthest.max(place);
                passed += 1;
            }
            if !seen.insert(attempt.id) {
                continue;
            }
            if let (Some(before), Some(place)) = (furthest, places.get(&attempt.id))
                && place.1 < before.0
            {
                let what = format!(
                    "{:?} at {place:?} was asked for after {before:?} was acknowledged",
                    attempt.id
                );
                outcome.find(Wrong::Reordered, 1, what);
            }
        }
    }
}
