//! When a withdrawal of access is done. Pure.

use std::collections::BTreeMap;

use super::ledger::Holder;
use super::{Incarnation, Revoked};

/// One withdrawal that is under way.
#[derive(Debug)]
pub(super) struct Barrier<T> {
    /// The nodes that may deliver without knowing it, and when the last lease of each that does not cover it has ended.
    /// `None` until this node has read the withdrawal itself: which leases are in force is not known before.
    holders: Option<Vec<(Holder, T)>>,
    confirmed: BTreeMap<Incarnation, u32>,
}

impl<T: Ord + Copy> Barrier<T> {
    /// A withdrawal that is on its way into the log.
    pub(super) const fn new() -> Self {
        Self {
            holders: None,
            confirmed: BTreeMap::new(),
        }
    }

    /// This node has read it, and these may deliver without knowing it until then.
    pub(super) fn read(&mut self, holders: Vec<(Holder, T)>) {
        self.holders = Some(holders);
    }

    /// A node has carried it out, and so many memberships ended there.
    pub(super) fn confirm(&mut self, node: Incarnation, memberships: u32) {
        self.confirmed.insert(node, memberships);
    }

    /// When it is done without another confirmation; `None` while that is not known.
    pub(super) fn due(&self) -> Option<T> {
        let missing = self.holders.as_ref()?.iter().filter(|(holder, _)| !self.has(holder));
        missing.map(|(_, until)| *until).max()
    }

    /// What it came to, once it is done.
    pub(super) fn outcome(&self, now: T) -> Option<Revoked> {
        let holders = self.holders.as_ref()?;
        if self.due().is_some_and(|due| now < due) {
            return None;
        }
        let holders = holders.iter().map(|(holder, _)| holder);
        let (confirmed, unconfirmed) = holders.partition::<Vec<_>, _>(|holder| self.has(holder));
        Some(Revoked {
            confirmed: names(&confirmed),
            unconfirmed: names(&unconfirmed),
            memberships: self.confirmed.values().sum(),
        })
    }

    fn has(&self, holder: &Holder) -> bool {
        self.confirmed.contains_key(&holder.incarnation)
    }
}

fn names(holders: &[&Holder]) -> Vec<String> {
    holders.iter().map(|holder| holder.id.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn holders(ends: &[(Incarnation, u32)]) -> Vec<(Holder, u32)> {
        let holder = |(incarnation, until): &(Incarnation, u32)| {
            let holder = Holder {
                incarnation: *incarnation,
                id: incarnation.to_string().into(),
                lease: Duration::from_secs(1),
            };
            (holder, *until)
        };
        ends.iter().map(holder).collect()
    }

    #[test]
    fn done_when_every_lease_holder_has_confirmed() {
        let mut barrier = Barrier::new();
        barrier.confirm(1, 2);
        assert_eq!(barrier.outcome(0), None, "the lease holders are not known yet");
        barrier.read(holders(&[(1, 10), (2, 10)]));
        assert_eq!(barrier.outcome(9), None);
        barrier.confirm(2, 1);
        barrier.confirm(2, 1);
        let revoked = barrier.outcome(9).unwrap();
        assert_eq!(
            (revoked.confirmed.len(), revoked.unconfirmed.len(), revoked.memberships),
            (2, 0, 3)
        );
    }

    #[test]
    fn done_without_a_silent_node_when_its_own_lease_has_ended() {
        let mut barrier = Barrier::new();
        assert_eq!(barrier.outcome(u32::MAX), None, "nothing is promised before it is read");
        barrier.read(holders(&[(1, 10), (2, 40), (3, 20)]));
        barrier.confirm(1, 0);
        assert_eq!((barrier.due(), barrier.outcome(39)), (Some(40), None));
        let revoked = barrier.outcome(40).unwrap();
        assert_eq!(
            (revoked.confirmed, revoked.unconfirmed),
            (vec!["1".to_owned()], vec!["2".to_owned(), "3".to_owned()])
        );
        barrier.confirm(2, 0);
        assert_eq!(barrier.due(), Some(20), "the long lease no longer matters");
        assert!(barrier.outcome(20).is_some());
    }
}
