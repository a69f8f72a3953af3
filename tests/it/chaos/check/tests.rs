//! Right and wrong runs, made by hand.

use std::sync::Arc;

use super::super::log::{Answer, At, Attempt, Id, Log, Reader, Revocation, Seen, Stored, Truth};
use super::{Outcome, Wrong, check};

const EVENTS: u32 = 20;

fn at(offset: u64) -> At {
    At {
        epoch: Arc::from("e"),
        offset,
    }
}

fn id(n: u32) -> Id {
    Id { by: 1, n }
}

/// Offsets are sparse: every third.
fn offset(n: u32) -> u64 {
    u64::from(n) * 3 + 10
}

fn event(n: u32) -> Seen {
    Seen::Event {
        room: 0,
        at: at(offset(n)),
        previous: if n == 0 { 0 } else { offset(n - 1) },
        id: Some(id(n)),
    }
}

fn join(since: Option<u64>, head: u64, replayed: u32) -> Seen {
    Seen::Joined {
        room: 0,
        called: 0,
        since: since.map(at),
        at: at(head),
        recovered: since.is_some(),
        replayed,
    }
}

/// One publisher, and one reader who saw all of it.
fn run() -> Log {
    let attempt = |n| Attempt {
        id: id(n),
        room: 0,
        via: 0,
        called: u64::from(n) * 100,
        returned: u64::from(n) * 100 + 50,
        answer: Answer::Stored(at(offset(n))),
    };
    let stored = |n| Stored {
        offset: offset(n),
        id: Some(id(n)),
    };
    let truth = Truth {
        epoch: Arc::from("e"),
        events: (0..EVENTS).map(stored).collect(),
        known_from: 0,
    };
    let entries = [join(None, 2, 0)].into_iter().chain((0..EVENTS).map(event));
    Log {
        attempts: (0..EVENTS).map(attempt).collect(),
        readers: vec![Reader {
            user: "ada".to_owned(),
            rooms: vec![0],
            entries: entries
                .enumerate()
                .map(|(when, seen)| (when as u64 * 100, seen))
                .collect(),
        }],
        revocations: Vec::new(),
        truth: [(0, truth)].into(),
    }
}

/// The run after a change, checked: what is wrong with it.
fn changed(change: impl FnOnce(&mut Log)) -> Outcome {
    let mut log = run();
    change(&mut log);
    check(&log)
}

fn wrongs(outcome: &Outcome) -> Vec<(Wrong, usize)> {
    let mut wrongs: Vec<_> = outcome.findings.iter().map(|one| (one.wrong, one.count)).collect();
    wrongs.sort_unstable();
    wrongs
}

fn insert(log: &mut Log, index: usize, seen: Seen) {
    log.readers[0].entries.insert(index, (index as u64 * 100, seen));
}

#[test]
fn a_right_run_passes() {
    let outcome = changed(|_| {});
    assert_eq!(wrongs(&outcome), []);
    assert_eq!((outcome.stored, outcome.deliveries), (20, 20));
}

#[test]
fn an_acknowledged_event_that_is_not_in_the_stream_is_lost() {
    let outcome = changed(|log| {
        log.truth.get_mut(&0).unwrap().events.remove(7);
        log.readers[0].entries.remove(8);
    });
    // What follows still says that it follows the one that is gone.
    assert_eq!(wrongs(&outcome), [(Wrong::Lost, 1), (Wrong::SilentGap, 1)]);
}

#[test]
fn an_event_twice_in_the_stream_is_doubled() {
    let outcome = changed(|log| {
        let events = &mut log.truth.get_mut(&0).unwrap().events;
        events[8].id = Some(id(7));
        log.attempts.remove(8);
        let Seen::Event { id: content, .. } = &mut log.readers[0].entries[9].1 else {
            unreachable!()
        };
        *content = Some(id(7));
    });
    assert!(outcome.count(Wrong::Doubled) > 0, "{:?}", outcome.findings);
}

#[test]
fn two_answers_for_one_event_are_doubled() {
    let outcome = changed(|log| {
        let mut again = log.attempts[7].clone();
        again.answer = Answer::Stored(at(offset(7) + 1));
        log.attempts.push(again);
    });
    assert_eq!(wrongs(&outcome), [(Wrong::Doubled, 1)]);
}

#[test]
fn an_event_that_was_said_not_to_be_stored_and_is_is_untrue() {
    let outcome = changed(|log| log.attempts[7].answer = Answer::NotStored);
    assert_eq!(wrongs(&outcome), [(Wrong::Untrue, 1)]);
    let outcome = changed(|log| log.attempts[7].answer = Answer::Unknown);
    assert_eq!((wrongs(&outcome), outcome.unknown), (vec![], 1));
}

#[test]
fn a_publisher_whose_order_is_not_kept_is_reordered() {
    let outcome = changed(|log| {
        // Acknowledged at the places of each other.
        log.attempts[7].answer = Answer::Stored(at(offset(8)));
        log.attempts[8].answer = Answer::Stored(at(offset(7)));
        let events = &mut log.truth.get_mut(&0).unwrap().events;
        (events[7].id, events[8].id) = (Some(id(8)), Some(id(7)));
        for (index, n) in [(8, 8), (9, 7)] {
            let Seen::Event { id: content, .. } = &mut log.readers[0].entries[index].1 else {
                unreachable!()
            };
            *content = Some(id(n));
        }
    });
    assert_eq!(wrongs(&outcome), [(Wrong::Reordered, 1)]);
}

#[test]
fn what_a_client_does_not_get_is_a_silent_gap_or_lost_at_the_end() {
    let outcome = changed(|log| drop(log.readers[0].entries.drain(8..11)));
    assert_eq!(wrongs(&outcome), [(Wrong::SilentGap, 3)]);
    let outcome = changed(|log| log.readers[0].entries.truncate(18));
    assert_eq!(wrongs(&outcome), [(Wrong::Lost, 3)]);
}

#[test]
fn what_a_client_gets_twice_is_doubled_and_what_comes_late_is_reordered() {
    let outcome = changed(|log| insert(log, 9, event(7)));
    assert_eq!(wrongs(&outcome), [(Wrong::Doubled, 1)]);
    let outcome = changed(|log| log.readers[0].entries.swap(8, 9));
    assert_eq!(outcome.count(Wrong::Reordered), 1, "{:?}", outcome.findings);
}

#[test]
fn what_a_client_gets_and_the_stream_has_not_is_untrue() {
    let outcome = changed(|log| {
        let Seen::Event { id: content, .. } = &mut log.readers[0].entries[9].1 else {
            unreachable!()
        };
        *content = Some(id(77));
    });
    assert_eq!(wrongs(&outcome), [(Wrong::Untrue, 1)]);
}

#[test]
fn a_recovery_is_exact_or_says_that_it_is_not() {
    let head = || offset(9);
    let exact = |log: &mut Log| {
        log.readers[0].entries.insert(8, (0, join(Some(offset(6)), head(), 3)));
    };
    let outcome = changed(exact);
    assert_eq!((wrongs(&outcome), outcome.recovered), (vec![], 1));
    let outcome = changed(|log| {
        log.readers[0].entries.insert(8, (0, join(Some(offset(6)), head(), 2)));
    });
    assert_eq!(wrongs(&outcome), [(Wrong::SilentGap, 1)]);
    let outcome = changed(|log| {
        let entries = &mut log.readers[0].entries;
        entries.drain(8..11);
        let mut anew = join(Some(offset(6)), head(), 0);
        if let Seen::Joined { recovered, .. } = &mut anew {
            *recovered = false;
        }
        entries.insert(8, (0, anew));
    });
    assert_eq!((wrongs(&outcome), outcome.restarted), (vec![], 1));
}

#[test]
fn a_resync_is_told_and_not_silent() {
    let outcome = changed(|log| {
        log.readers[0].entries.drain(8..11);
        insert(
            log,
            8,
            Seen::Resync {
                room: 0,
                at: at(offset(9)),
            },
        );
    });
    assert_eq!((wrongs(&outcome), outcome.restarted), (vec![], 1));
}

#[test]
fn another_epoch_without_a_word_is_a_silent_gap() {
    let outcome = changed(|log| {
        for (_, seen) in &mut log.readers[0].entries[9..] {
            if let Seen::Event { at, .. } = seen {
                at.epoch = Arc::from("f");
            }
        }
    });
    assert_eq!(outcome.count(Wrong::SilentGap), 1, "{:?}", outcome.findings);
}

#[test]
fn what_was_published_after_a_revocation_must_not_come() {
    let revoked = |returned| Revocation {
        user: "ada".to_owned(),
        room: 0,
        returned,
        unconfirmed: 0,
        took: 1,
    };
    let outcome = changed(|log| log.revocations.push(revoked(1750)));
    assert_eq!(wrongs(&outcome), [(Wrong::AfterRevocation, 1); 2]);
    let outcome = changed(|log| {
        log.revocations.push(revoked(1750));
        log.readers[0].entries.truncate(19);
        insert(log, 19, Seen::Left { room: 0, revoked: true });
    });
    assert_eq!(wrongs(&outcome), []);
    let outcome = changed(|log| {
        insert(log, 19, Seen::Left { room: 0, revoked: true });
    });
    assert_eq!(outcome.count(Wrong::AfterRevocation), 2, "{:?}", outcome.findings);
}

#[test]
fn a_join_after_a_revocation_must_not_be_accepted() {
    let outcome = changed(|log| {
        let mut late = join(None, offset(19), 0);
        if let Seen::Joined { called, .. } = &mut late {
            *called = 9_000;
        }
        insert(log, 21, late);
        log.revocations.push(Revocation {
            user: "ada".to_owned(),
            room: 0,
            returned: 8_000,
            unconfirmed: 0,
            took: 1,
        });
    });
    assert_eq!(wrongs(&outcome), [(Wrong::AfterRevocation, 1)]);
}

#[test]
fn history_and_members_must_not_be_shown_after_a_revocation() {
    let shown = |called| {
        changed(|log| {
            insert(log, 20, Seen::Shown { room: 0, called });
            log.revocations.push(Revocation {
                user: "ada".to_owned(),
                room: 0,
                returned: 8_000,
                unconfirmed: 0,
                took: 1,
            });
        })
    };
    assert_eq!(wrongs(&shown(8_001)), [(Wrong::AfterRevocation, 1)]);
    assert_eq!(wrongs(&shown(8_000)), []);
}

#[test]
fn ephemeral_events_come_once_and_in_order() {
    let come = |order: [u32; 3]| {
        changed(|log| {
            for n in order {
                insert(
                    log,
                    1,
                    Seen::Ephemeral {
                        room: 0,
                        id: Id { by: 2, n },
                    },
                );
            }
        })
    };
    assert_eq!(wrongs(&come([3, 2, 1])), []);
    assert_eq!(wrongs(&come([1, 2, 3])), [(Wrong::Reordered, 1); 2]);
    assert_eq!(wrongs(&come([3, 1, 1])), [(Wrong::Doubled, 1)]);
}

#[test]
fn what_a_trimmed_stream_no_longer_has_is_not_missed() {
    let outcome = changed(|log| {
        let truth = log.truth.get_mut(&0).unwrap();
        truth.events.drain(..5);
        truth.known_from = offset(5);
    });
    assert_eq!(wrongs(&outcome), []);
}

#[test]
fn who_is_not_in_a_room_at_the_end_has_lost_it() {
    let outcome = changed(|log| {
        insert(
            log,
            21,
            Seen::Left {
                room: 0,
                revoked: false,
            },
        );
    });
    assert_eq!(wrongs(&outcome), [(Wrong::Lost, 1)]);
}

#[test]
fn a_recovery_over_events_that_were_erased_since_is_a_silent_gap() {
    let outcome = changed(|log| {
        // The stream has let go of the first half: only the publisher knows that there was something.
        let truth = log.truth.get_mut(&0).unwrap();
        truth.known_from = offset(10);
        truth.events.retain(|event| event.offset >= offset(10));
        let entries = &mut log.readers[0].entries;
        entries.drain(5..9);
        insert(log, 5, join(Some(offset(3)), offset(7), 0));
        // Made to fit, so that the client cannot see it.
        let Seen::Event { previous, .. } = &mut log.readers[0].entries[6].1 else {
            panic!("an event follows")
        };
        *previous = offset(3);
    });
    assert_eq!(wrongs(&outcome), [(Wrong::SilentGap, 4)]);
}
