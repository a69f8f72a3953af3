//! The sequence chain of one room: gap detection, and the order of delivery. Pure; the driver executes its outputs.
//!
//! The stream stamps each live event with its sequence and with that of the room's previous event. Everything through
//! `last` was delivered. A live event continues the chain exactly if nothing lies between `last` and it: its `prev` is
//! not after `last`. Every other event is held until the gap was fetched, or reported as lost.
//!
//! An event whose `prev` lies *before* `last` continues the chain only while nothing can have been lost unseen. The
//! room may have had events that this node never saw and that the stream has dropped since. So a chain that is
//! *suspect*, because a connection broke or the stream may be another one, holds everything until it was verified.

use std::collections::BTreeMap;

/// An instruction to the driver, to be executed in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output<E> {
    /// Delivers the event to the subscribers.
    Deliver {
        /// Its sequence.
        seq: u64,
        /// The sequence of the room's previous event.
        prev: u64,
        /// The event.
        event: E,
    },
    /// Reports to the subscribers that they start afresh here.
    Reset {
        /// The room's head.
        head: u64,
    },
}

/// A range to fetch from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetch {
    /// The exclusive lower bound.
    pub after: u64,
    /// The least upper end; 0 when only the leader's confirmation is needed.
    pub want: u64,
    /// The leader has to confirm that there is no more.
    pub verify: bool,
    /// The number of suspicions at the time of the request.
    pub doubts: u64,
    /// The newest held event at the time of the request.
    pub held: u64,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched<E> {
    /// Exactly the room's next events.
    Exact {
        /// With their sequences, oldest first.
        events: Vec<(u64, E)>,
        /// The leader confirmed that there were no more at the time of the request.
        confirmed: bool,
    },
    /// The events after the position are not retained any more.
    Broken {
        /// The room's head.
        head: u64,
    },
}

/// One room's chain.
#[derive(Debug)]
pub(super) struct Chain<E> {
    joining: bool,
    suspect: bool,
    doubts: u64,
    last: u64,
    want: u64,
    held: BTreeMap<u64, (u64, E)>,
    held_max: usize,
}

impl<E> Chain<E> {
    /// Creates a chain that holds every event until its head is known.
    pub(super) const fn joining(held_max: usize) -> Self {
        Self {
            joining: true,
            suspect: false,
            doubts: 0,
            last: 0,
            want: 0,
            held: BTreeMap::new(),
            held_max,
        }
    }

    /// Returns the sequence through which everything was delivered; 0 while joining.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) const fn is_joining(&self) -> bool {
        self.joining
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Reports whether no gap is known and none suspected.
    pub(super) fn is_settled(&self) -> bool {
        !self.joining && self.fetch().is_none()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the range that has to be fetched now.
    pub(super) fn fetch(&self) -> Option<Fetch> {
        (!self.joining && (self.suspect || self.want > self.last)).then_some(Fetch {
            after: self.last,
            want: self.want,
            verify: self.suspect,
            doubts: self.doubts,
            held: self.held.last_key_value().map_or(0, |(seq, _)| *seq),
        })
    }

    /// Sets the head. Everything through it is not this chain's to deliver.
    pub(super) fn joined(&mut self, head: u64, out: &mut Vec<Output<E>>) {
        self.joining = false;
        self.suspect = false;
        self.last = head;
        self.drain(out);
    }

    /// Takes a live event.
    pub(super) fn live(&mut self, seq: u64, prev: u64, event: E, out: &mut Vec<Output<E>>) {
        if !self.joining && seq <= self.last {
            return;
        }
        if self.joining || self.suspect || prev > self.last {
            if prev > self.last && !self.joining {
                self.want = self.want.max(prev);
            }
            // A suspect chain holds even an event that follows: its predecessor may have been dropped unseen.
            self.hold(seq, prev, event);
            return;
        }
        self.deliver(seq, prev, event, out);
        self.drain(out);
    }

    /// Takes a hint that the room's head is at least here.
    pub(super) fn told(&mut self, head: u64) {
        if !self.joining && head > self.last {
            self.want = self.want.max(head);
        }
    }

    /// Marks the chain suspect: something may have been missed unseen.
    pub(super) fn suspect(&mut self) {
        self.suspect = !self.joining;
        self.doubts += 1;
    }

    /// Clears the suspicion: nothing was missed that a live event or a fetch would not show.
    pub(super) fn verified(&mut self, out: &mut Vec<Output<E>>) {
        self.suspect = false;
        self.drain(out);
    }

    /// Takes the result of a fetch.
    pub(super) fn fetched(&mut self, asked: Fetch, fetched: Fetched<E>, out: &mut Vec<Output<E>>) {
        match fetched {
            Fetched::Exact { events, confirmed } => {
                for (seq, event) in events {
                    if seq > self.last {
                        self.deliver(seq, self.last, event, out);
                    }
                }
                if confirmed {
                    if self.want <= asked.want {
                        self.want = 0;
                    }
                    // A suspicion raised after the leader was asked stays.
                    self.suspect &= !(asked.verify && asked.doubts == self.doubts);
                    self.drain(out);
                    self.forget_foreign(asked.held);
                }
            }
            // The gap was filled by live events during the fetch.
            Fetched::Broken { .. } if self.last > asked.after && !self.suspect => {}
            Fetched::Broken { head } => {
                self.last = head;
                self.suspect = false;
                out.push(Output::Reset { head });
            }
        }
        self.drain(out);
    }

    /// Restarts the chain: the history is another one.
    pub(super) fn restart(&mut self) {
        *self = Self::joining(self.held_max);
    }

    /// Drops foreign events. An event is foreign to this stream if it was held when the leader was asked, follows one
    /// that the leader does not know, and is still held.
    fn forget_foreign(&mut self, held: u64) {
        let last = self.last;
        self.held.retain(|seq, (prev, _)| *seq > held || *prev <= last);
        if self.want <= held {
            self.want = 0;
        }
    }

    fn deliver(&mut self, seq: u64, prev: u64, event: E, out: &mut Vec<Output<E>>) {
        self.last = seq;
        out.push(Output::Deliver { seq, prev, event });
    }

    fn drain(&mut self, out: &mut Vec<Output<E>>) {
        while let Some(first) = self.held.first_entry() {
            let (seq, prev) = (*first.key(), first.get().0);
            if seq <= self.last {
                first.remove();
            } else if prev > self.last {
                self.want = self.want.max(prev);
                break;
            } else if self.suspect {
                break;
            } else {
                let (prev, event) = first.remove();
                self.deliver(seq, prev, event, out);
            }
        }
        if self.want <= self.last {
            self.want = 0;
        }
    }

    /// Holds an event. Beyond the bound the newest is dropped and fetched later, because the oldest are delivered
    /// first.
    fn hold(&mut self, seq: u64, prev: u64, event: E) {
        self.held.insert(seq, (prev, event));
        if self.held.len() > self.held_max
            && let Some((dropped, _)) = self.held.pop_last()
        {
            self.want = self.want.max(dropped);
        }
    }
}

#[cfg(test)]
mod tests {
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
}
