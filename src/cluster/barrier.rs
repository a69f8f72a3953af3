//! When a withdrawal of access is done. Pure.

use std::collections::BTreeMap;

use super::ledger::Holder;
use super::{Incarnation, Revoked};

/// One withdrawal that is under way.
#[derive(Debug)]
pub(super) struct Barrier<T> {
    /// Who may deliver without knowing it; `None` until this node has read it itself.
    holders: Option<Vec<Holder>>,
    confirmed: BTreeMap<Incarnation, u32>,
    /// When all leases that do not cover it have run out.
    until: T,
}

impl<T: PartialOrd> Barrier<T> {
    /// A withdrawal that is stored. `until` is when all leases before it have run out.
    pub(super) const fn new(until: T) -> Self {
        Self {
            holders: None,
            confirmed: BTreeMap::new(),
            until,
        }
    }

    /// This node has read it, and these may deliver without knowing it.
    pub(super) fn read(&mut self, holders: Vec<Holder>) {
        self.holders = Some(holders);
    }

    /// A node has carried it out, and so many memberships ended there.
    pub(super) fn confirm(&mut self, node: Incarnation, memberships: u32) {
        self.confirmed.insert(node, memberships);
    }

    /// What it came to, once it is done. When this node could not read who has a lease, those in `known` are named.
    pub(super) fn outcome(&self, now: &T, known: impl FnOnce() -> Vec<Holder>) -> Option<Revoked> {
        let holders = match &self.holders {
            Some(holders) if *now >= self.until || self.covers(holders) => holders.clone(),
            None if *now >= self.until => known(),
            _ => return None,
        };
        let (confirmed, unconfirmed) = holders.into_iter().partition::<Vec<_>, _>(|holder| self.has(holder));
        Some(Revoked {
            confirmed: names(&confirmed),
            unconfirmed: names(&unconfirmed),
            memberships: self.confirmed.values().sum(),
        })
    }

    fn covers(&self, holders: &[Holder]) -> bool {
        holders.iter().all(|holder| self.has(holder))
    }

    fn has(&self, holder: &Holder) -> bool {
        self.confirmed.contains_key(&holder.incarnation)
    }
}

fn names(holders: &[Holder]) -> Vec<String> {
    holders.iter().map(|holder| holder.id.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(incarnations: &[Incarnation]) -> Vec<Holder> {
        let holder = |incarnation: &Incarnation| Holder {
            incarnation: *incarnation,
            id: incarnation.to_string().into(),
        };
        incarnations.iter().map(holder).collect()
    }

    #[test]
    fn it_is_done_when_all_who_have_a_lease_have_confirmed() {
        let mut barrier = Barrier::new(10);
        barrier.confirm(1, 2);
        assert_eq!(barrier.outcome(&0, Vec::new), None, "who has a lease is not known yet");
        barrier.read(holders(&[1, 2]));
        assert_eq!(barrier.outcome(&9, Vec::new), None);
        barrier.confirm(2, 1);
        barrier.confirm(2, 1);
        let revoked = barrier.outcome(&9, Vec::new).unwrap();
        assert_eq!(
            (revoked.confirmed.len(), revoked.unconfirmed.len(), revoked.memberships),
            (2, 0, 3)
        );
    }

    #[test]
    fn it_is_done_without_the_silent_when_their_leases_have_run_out() {
        let mut barrier = Barrier::new(10);
        barrier.read(holders(&[1, 2]));
        barrier.confirm(1, 0);
        let revoked = barrier.outcome(&10, Vec::new).unwrap();
        assert_eq!(
            (revoked.confirmed, revoked.unconfirmed),
            (vec!["1".to_owned()], vec!["2".to_owned()])
        );
        let blind = Barrier::new(10).outcome(&10, || holders(&[1])).unwrap();
        assert_eq!(blind.unconfirmed, ["1"]);
    }
}
