use proptest::prelude::*;

use super::*;

/// The outputs of a chain, with the sequence for the event.
type Said = Vec<Output<u64>>;

fn joined(head: u64) -> Chain<u64> {
    let mut chain = Chain::joining(4);
    chain.joined(head, &mut Vec::new());
    chain
}

fn live(chain: &mut Chain<u64>, seq: u64, prev: u64) -> Said {
    let mut out = Vec::new();
    chain.live(seq, prev, seq, &mut out);
    out
}

fn fetched(chain: &mut Chain<u64>, events: &[u64], confirmed: bool) -> Said {
    let (asked, mut out) = (chain.fetch().unwrap(), Vec::new());
    let events = events.iter().map(|seq| (*seq, *seq)).collect();
    chain.fetched(asked, Fetched::Exact { events, confirmed }, &mut out);
    out
}

fn deliver(seq: u64, prev: u64) -> Output<u64> {
    Output::Deliver { seq, prev, event: seq }
}

#[test]
fn an_event_that_follows_is_delivered_and_one_that_is_known_is_not() {
    let mut chain = joined(5);
    assert_eq!(live(&mut chain, 7, 5), [deliver(7, 5)]);
    assert_eq!(live(&mut chain, 7, 5), []);
    assert_eq!(live(&mut chain, 4, 0), []);
    // The room was empty in the stream, or the head was reported for a room without events.
    assert_eq!(live(&mut chain, 9, 0), [deliver(9, 0)]);
    assert_eq!(chain.fetch(), None);
}

#[test]
fn what_comes_before_the_head_is_known_is_held_and_then_told_apart() {
    let mut chain = Chain::joining(4);
    for (seq, prev) in [(3, 1), (6, 3), (8, 6)] {
        assert_eq!(live(&mut chain, seq, prev), []);
    }
    let mut out = Vec::new();
    chain.joined(3, &mut out);
    assert_eq!(out, [deliver(6, 3), deliver(8, 6)]);
}

#[test]
fn a_gap_is_fetched_and_then_what_waited_follows() {
    let mut chain = joined(1);
    assert_eq!(live(&mut chain, 9, 7), []);
    assert_eq!(chain.fetch().map(|fetch| (fetch.after, fetch.want)), Some((1, 7)));
    let said = fetched(&mut chain, &[3, 7], false);
    assert_eq!(said, [deliver(3, 1), deliver(7, 3), deliver(9, 7)]);
    assert_eq!(chain.fetch(), None);
}

#[test]
fn a_replica_that_is_behind_is_asked_again() {
    let mut chain = joined(1);
    live(&mut chain, 9, 7);
    assert_eq!(fetched(&mut chain, &[3], false), [deliver(3, 1)]);
    assert_eq!(chain.fetch().map(|fetch| (fetch.after, fetch.want)), Some((3, 7)));
}

#[test]
fn a_head_that_the_leader_does_not_know_is_forgotten() {
    let mut chain = joined(1);
    chain.told(50);
    assert_eq!(fetched(&mut chain, &[], true), []);
    assert_eq!(chain.fetch(), None);
}

#[test]
fn an_event_that_follows_on_what_the_leader_does_not_know_is_foreign() {
    let mut chain = joined(1);
    live(&mut chain, 900, 899);
    assert_eq!(fetched(&mut chain, &[], true), []);
    assert_eq!((chain.fetch(), chain.held()), (None, 0));
    assert_eq!(live(&mut chain, 2, 1), [deliver(2, 1)]);
}

#[test]
fn what_is_not_known_any_more_is_a_reset_and_never_a_part() {
    let mut chain = joined(1);
    live(&mut chain, 9, 7);
    let (asked, mut out) = (chain.fetch().unwrap(), Vec::new());
    chain.fetched(asked, Fetched::Broken { head: 7 }, &mut out);
    assert_eq!(out, [Output::Reset { head: 7 }, deliver(9, 7)]);
}

#[test]
fn more_than_may_be_held_is_fetched() {
    let mut chain = joined(1);
    for seq in 10..20 {
        live(&mut chain, seq, seq - 1);
    }
    assert_eq!(chain.held(), 4);
    assert_eq!(chain.fetch().unwrap().want, 19);
    let all: Vec<u64> = (9..20).collect();
    let said = fetched(&mut chain, &all, false);
    assert_eq!((said.len(), chain.last(), chain.held()), (11, 19, 0));
}

#[test]
fn a_suspect_chain_holds_everything_until_it_is_verified() {
    let mut chain = joined(5);
    chain.suspect();
    assert_eq!(live(&mut chain, 7, 5), []);
    let mut out = Vec::new();
    chain.verified(&mut out);
    assert_eq!(out, [deliver(7, 5)]);
    chain.suspect();
    let asked = chain.fetch().unwrap();
    // A new suspicion while the leader was asked.
    chain.suspect();
    let exact = Fetched::Exact {
        events: Vec::new(),
        confirmed: true,
    };
    chain.fetched(asked, exact, &mut Vec::new());
    assert!(chain.is_suspect());
}

proptest! {
    /// A room has the events 1 to `count`. They arrive in any order, some twice, some never; every range that the
    /// chain requests is fetched.
    #[test]
    fn whatever_is_lost_doubled_or_reordered_everything_is_delivered_once_and_in_order(
        count in 1_u64..40,
        arrivals in proptest::collection::vec(1_u64..40, 0..120),
    ) {
        let mut chain = joined(0);
        let mut said = Vec::new();
        for seq in arrivals.into_iter().filter(|seq| *seq <= count) {
            said.extend(live(&mut chain, seq, seq - 1));
            if seq % 3 == 0 && let Some(fetch) = chain.fetch() {
                let run: Vec<u64> = (fetch.after + 1..=fetch.want).collect();
                said.extend(fetched(&mut chain, &run, false));
            }
            prop_assert!(chain.held() <= 4);
        }
        chain.told(count);
        while let Some(fetch) = chain.fetch() {
            let run: Vec<u64> = (fetch.after + 1..=fetch.want).collect();
            said.extend(fetched(&mut chain, &run, false));
        }
        let expected: Vec<_> = (1..=count).map(|seq| deliver(seq, seq - 1)).collect();
        prop_assert_eq!(said, expected);
    }
}
