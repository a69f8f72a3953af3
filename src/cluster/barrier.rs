//! The barrier of a withdrawal of access, or of its return: decides when it is done on every node. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ledger::Holder;
use super::{Carried, Incarnation};

/// One operation that is under way.
#[derive(Debug)]
pub(super) struct Barrier<T> {
    /// The nodes waited for. `None` until this node has read the operation itself: the leases in force are not known
    /// before.
    waits: Option<Waits<T>>,
    confirmed: BTreeMap<Incarnation, u32>,
}

/// The nodes waited for, each until its lease has ended.
#[derive(Debug)]
pub(super) struct Waits<T> {
    /// The nodes that may deliver without knowing the operation, and when the last lease of each that does not cover it has
    /// ended.
    pub holders: Vec<(Holder, T)>,
    /// The nodes that are heard. Those without a lease are not waited for: they deliver nothing before they have carried the
    /// operation out. Where leases may have been lost they are waited for like nodes that nobody knows.
    pub heard: Vec<(Incarnation, Arc<str>)>,
    /// The end of leases that no node knows of.
    pub unknown: T,
}

impl<T: Ord + Copy> Barrier<T> {
    /// An operation that is on its way into the log.
    pub(super) const fn new() -> Self {
        Self {
            waits: None,
            confirmed: BTreeMap::new(),
        }
    }

    /// This node has read it.
    pub(super) fn read(&mut self, waits: Waits<T>) {
        self.waits = Some(waits);
    }

    /// A node has carried it out, and so many memberships ended there.
    pub(super) fn confirm(&mut self, node: Incarnation, memberships: u32) {
        self.confirmed.insert(node, memberships);
    }

    /// Returns the time at which it is done without another confirmation; `None` while that is not known.
    pub(super) fn due(&self) -> Option<T> {
        let waits = self.waits.as_ref()?;
        let missing = waits.holders.iter().filter(|(holder, _)| !self.has(holder));
        let ends = missing.map(|(_, end)| *end);
        Some(ends.fold(waits.unknown, T::max))
    }

    /// Returns the outcome, once it is done.
    pub(super) fn outcome(&self, now: T) -> Option<Carried> {
        if now < self.due()? {
            return None;
        }
        let Waits { holders, heard, .. } = self.waits.as_ref()?;
        let heard = heard.iter().map(|(node, id)| (*node, id));
        let holders = holders.iter().map(|(holder, _)| (holder.incarnation, &holder.id));
        let named: BTreeMap<Incarnation, &Arc<str>> = heard.chain(holders).collect();
        let (mut confirmed, mut unconfirmed) = (Vec::new(), Vec::new());
        for (node, id) in named {
            let is_confirmed = self.confirmed.contains_key(&node);
            let names = if is_confirmed { &mut confirmed } else { &mut unconfirmed };
            names.push(id.to_string());
        }
        Some(Carried {
            confirmed,
            unconfirmed,
            memberships: self.confirmed.values().sum(),
        })
    }

    fn has(&self, holder: &Holder) -> bool {
        self.confirmed.contains_key(&holder.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waits(ends: &[(Incarnation, u32)], unknown: u32) -> Waits<u32> {
        let holder = |(incarnation, end): &(Incarnation, u32)| {
            let holder = Holder {
                incarnation: *incarnation,
                id: incarnation.to_string().into(),
                lease: Duration::from_secs(1),
            };
            (holder, *end)
        };
        Waits {
            holders: ends.iter().map(holder).collect(),
            heard: Vec::new(),
            unknown,
        }
    }

    #[test]
    fn done_when_every_lease_holder_has_confirmed() {
        let mut barrier = Barrier::new();
        barrier.confirm(1, 2);
        assert_eq!(barrier.outcome(0), None, "the lease holders are not known yet");
        barrier.read(waits(&[(1, 10), (2, 10)], 0));
        assert_eq!(barrier.outcome(9), None);
        barrier.confirm(2, 1);
        barrier.confirm(2, 1);
        let outcome = barrier.outcome(9).unwrap();
        assert_eq!(
            (outcome.confirmed.len(), outcome.unconfirmed.len(), outcome.memberships),
            (2, 0, 3)
        );
    }

    #[test]
    fn done_without_a_silent_node_when_its_own_lease_has_ended() {
        let mut barrier = Barrier::new();
        assert_eq!(barrier.outcome(u32::MAX), None, "nothing is promised before it is read");
        barrier.read(waits(&[(1, 10), (2, 40), (3, 20)], 0));
        barrier.confirm(1, 0);
        assert_eq!((barrier.due(), barrier.outcome(39)), (Some(40), None));
        let outcome = barrier.outcome(40).unwrap();
        assert_eq!(
            (outcome.confirmed, outcome.unconfirmed),
            (vec!["1".to_owned()], vec!["2".to_owned(), "3".to_owned()])
        );
        barrier.confirm(2, 0);
        assert_eq!(barrier.due(), Some(20), "the long lease no longer matters");
        assert!(barrier.outcome(20).is_some());
    }

    #[test]
    fn not_done_while_there_may_be_leases_that_nobody_knows() {
        let mut barrier = Barrier::new();
        barrier.read(waits(&[(1, 10)], 30));
        barrier.confirm(1, 0);
        assert_eq!((barrier.due(), barrier.outcome(29)), (Some(30), None));
        assert!(barrier.outcome(30).is_some());
    }

    #[test]
    fn a_node_heard_without_a_known_lease_is_named_and_not_waited_for() {
        let mut barrier = Barrier::new();
        let heard = [1, 2, 3].map(|node: Incarnation| (node, node.to_string().into()));
        barrier.read(Waits {
            heard: heard.to_vec(),
            ..waits(&[(1, 10)], 0)
        });
        barrier.confirm(1, 0);
        barrier.confirm(2, 0);
        let outcome = barrier.outcome(0).unwrap();
        assert_eq!(outcome.confirmed, ["1", "2"], "each once");
        assert_eq!(outcome.unconfirmed, ["3"]);
    }
}
