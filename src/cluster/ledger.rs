//! What a node may conclude from the control log: who has a lease, and when its own holds. Pure: it knows no NATS.
//!
//! The control log is one stream that all nodes write to and read from its beginning. A withdrawal of access is a record
//! in it, and so is a lease: a node writes "I take a lease" once a second, and the lease begins, counted from when it was
//! *written*, when the node *reads* it back, having carried out everything before it. So for a withdrawal at sequence R
//! and any node:
//!
//! - a lease record after R takes effect only once the node has carried R out;
//! - the latest of the node's leases before R ends, at most, its own length after R was stored. The record says that
//!   length: another node's setting may differ. A reader of R has read that record before, and so knows every node that
//!   may still deliver without knowing R, and for how long: [`Ledger::holders_at`].
//!
//! Hence a withdrawal is done when each of these has confirmed it, or its lease has ended. Writing is
//! acknowledged by a quorum and reading shows what a quorum has stored: a leader that has lost its followers and does not
//! know it yet can prolong no lease, which it could if it were only asked for its last sequence.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Incarnation;
use crate::notice::Notice;
use crate::policy::Revocation;

/// The most leases that are asked for and have not come back; older ones would have run out.
const ASKED_MAX: usize = 64;

/// A record of the control log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Access is withdrawn.
    Withdraw(Withdrawal),
    /// A node takes a lease.
    Lease(LeaseTaken),
}

/// Whose access is withdrawn, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// Names it.
    pub id: u128,
    /// Whose, from what.
    pub revocation: Revocation,
    /// From when it was stored.
    pub ttl: Duration,
    /// What the client is told.
    pub notice: Notice,
}

/// A node takes a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTaken {
    /// Which node.
    pub holder: Holder,
    /// Counts up with every lease of it.
    pub number: u64,
    /// It is the end of its leases instead: it delivers nothing more.
    pub released: bool,
}

/// A node that may have a lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The process.
    pub incarnation: Incarnation,
    /// Its name, as an operator gave it.
    pub id: Arc<str>,
    /// How long each of its leases is, by its own setting.
    pub lease: Duration,
}

/// What is to be done about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// Nothing, it is old or another's.
    Nothing,
    /// It is to be carried out, everywhere on this node, before the next record is read.
    Withdraw(Withdrawal),
    /// The node's own lease that was asked for at that moment: it holds from then for this long.
    Renewed(T, Duration),
}

/// The latest lease of a node.
#[derive(Debug)]
struct Taken {
    holder: Holder,
    stored_ms: u64,
}

impl Taken {
    /// Whether it may still run when a record is stored at `stored_ms`, by clocks that differ by `difference_ms`.
    fn may_run_at(&self, stored_ms: u64, difference_ms: u64) -> bool {
        let until_ms = self.stored_ms.saturating_add(millis(self.holder.lease));
        until_ms.saturating_add(difference_ms) >= stored_ms
    }
}

/// What a node has read of the control log. `T` is a moment of its own clock.
#[derive(Debug)]
pub struct Ledger<T> {
    own: Holder,
    number: u64,
    asked: VecDeque<(u64, T)>,
    read: u64,
    stream: Option<u64>,
    holders: BTreeMap<Incarnation, Taken>,
    difference_ms: u64,
}

impl<T: Copy> Ledger<T> {
    /// Nothing is read yet. `difference` is how far the clocks of servers may be apart.
    #[must_use]
    pub fn new(own: Holder, difference: Duration) -> Self {
        Self {
            own,
            number: 0,
            asked: VecDeque::new(),
            read: 0,
            stream: None,
            holders: BTreeMap::new(),
            difference_ms: millis(difference),
        }
    }

    /// The node's next lease, asked for now; to be written to the log.
    pub fn ask(&mut self, now: T) -> LeaseTaken {
        self.number += 1;
        if self.asked.len() == ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((self.number, now));
        LeaseTaken {
            holder: self.own.clone(),
            number: self.number,
            released: false,
        }
    }

    /// The end of the node's leases; to be written to the log when nothing more is delivered.
    pub fn release(&mut self) -> LeaseTaken {
        self.number += 1;
        self.asked.clear();
        LeaseTaken {
            holder: self.own.clone(),
            number: self.number,
            released: true,
        }
    }

    /// The sequence up to which the log is read.
    #[must_use]
    pub const fn read_up_to(&self) -> u64 {
        self.read
    }

    /// Looks whether the log is still the one that was read: `created` tells streams of one name apart, `last` is its last
    /// sequence. If it is not, it is read from its beginning; answers whether that is so. Who had a lease by the old one is
    /// still taken to have it until it has run out: nobody was told otherwise.
    pub fn reopen(&mut self, created: u64, last: u64) -> bool {
        let known = self.stream.replace(created);
        let is_other = known.is_some_and(|known| known != created) || last < self.read;
        if is_other {
            self.read = 0;
        }
        is_other
    }

    /// Takes a record in, in the order of the log. What it says must be carried out before the next one is handed in.
    pub fn read(&mut self, sequence: u64, stored_ms: u64, record: Record) -> Step<T> {
        if sequence <= self.read {
            return Step::Nothing;
        }
        self.read = sequence;
        match record {
            Record::Withdraw(withdrawal) => Step::Withdraw(withdrawal),
            Record::Lease(lease) => self.taken(stored_ms, lease),
        }
    }

    /// Passes over what is no record.
    pub fn skip(&mut self, sequence: u64) {
        self.read = self.read.max(sequence);
    }

    fn taken(&mut self, stored_ms: u64, lease: LeaseTaken) -> Step<T> {
        let LeaseTaken {
            holder,
            number,
            released,
        } = lease;
        if released {
            self.holders.remove(&holder.incarnation);
            return Step::Nothing;
        }
        let (incarnation, length, difference_ms) = (holder.incarnation, holder.lease, self.difference_ms);
        self.holders.insert(incarnation, Taken { holder, stored_ms });
        self.holders
            .retain(|_, taken| taken.may_run_at(stored_ms, difference_ms));
        if incarnation != self.own.incarnation {
            return Step::Nothing;
        }
        // One that comes after a later one says nothing new.
        let asked = self.asked.iter().find(|(own, _)| *own == number).copied();
        self.asked.retain(|(own, _)| *own > number);
        asked.map_or(Step::Nothing, |(_, when)| Step::Renewed(when, length))
    }

    /// Who may have a lease that does not cover the record that was read last, stored then.
    #[must_use]
    pub fn holders_at(&self, stored_ms: u64) -> Vec<Holder> {
        let holders = self.holders.values();
        let may_hold = holders.filter(|taken| taken.may_run_at(stored_ms, self.difference_ms));
        may_hold.map(|taken| taken.holder.clone()).collect()
    }

    /// Who has taken a lease since then.
    #[must_use]
    pub fn taken_since(&self, since_ms: u64) -> Vec<Holder> {
        let lately = self.holders.values().filter(|taken| taken.stored_ms >= since_ms);
        lately.map(|taken| taken.holder.clone()).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserId;
    use crate::policy::RevocationScope;
    use crate::room::Tenant;

    const LEASE: Duration = Duration::from_secs(9);
    const DIFFERENCE: Duration = Duration::from_secs(1);

    fn holder(incarnation: Incarnation) -> Holder {
        Holder {
            incarnation,
            id: format!("node-{incarnation}").into(),
            lease: LEASE,
        }
    }

    fn taken(incarnation: Incarnation, number: u64) -> Record {
        Record::Lease(LeaseTaken {
            holder: holder(incarnation),
            number,
            released: false,
        })
    }

    fn withdrawal() -> Withdrawal {
        Withdrawal {
            id: 7,
            revocation: Revocation {
                tenant: Tenant::default(),
                user: UserId::parse("ada").unwrap(),
                scope: RevocationScope::Everything,
            },
            ttl: Duration::from_secs(60),
            notice: Notice::default(),
        }
    }

    fn ids(holders: &[Holder]) -> Vec<Incarnation> {
        holders.iter().map(|holder| holder.incarnation).collect()
    }

    #[test]
    fn a_lease_begins_when_it_was_asked_for_once_it_is_read_back() {
        let mut ledger = Ledger::new(holder(1), DIFFERENCE);
        let first = ledger.ask("first");
        let second = ledger.ask("second");
        assert_eq!(
            ledger.read(5, 0, Record::Withdraw(withdrawal())),
            Step::Withdraw(withdrawal())
        );
        assert_eq!(ledger.read(6, 0, taken(2, 1)), Step::Nothing, "another's");
        assert_eq!(ledger.read(7, 0, Record::Lease(second)), Step::Renewed("second", LEASE));
        assert_eq!(
            ledger.read(8, 0, Record::Lease(first)),
            Step::Nothing,
            "an older one, late"
        );
    }

    #[test]
    fn what_was_read_is_not_carried_out_again() {
        let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
        assert!(matches!(
            ledger.read(5, 0, Record::Withdraw(withdrawal())),
            Step::Withdraw(_)
        ));
        assert_eq!(ledger.read(5, 0, Record::Withdraw(withdrawal())), Step::Nothing);
        assert_eq!(ledger.read_up_to(), 5);
    }

    #[test]
    fn a_leases_holder_counts_for_the_window_or_until_it_is_released() {
        let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
        ledger.read(1, 1_000, taken(2, 1));
        ledger.read(2, 5_000, taken(3, 1));
        assert_eq!(ids(&ledger.holders_at(11_000)), [2, 3]);
        assert_eq!(ids(&ledger.holders_at(11_001)), [3]);
        let released = LeaseTaken {
            holder: holder(3),
            number: 2,
            released: true,
        };
        ledger.read(3, 6_000, Record::Lease(released));
        assert_eq!(ids(&ledger.holders_at(6_000)), [2]);
    }

    #[test]
    fn each_lease_counts_for_its_own_length() {
        let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
        let patient = Holder {
            lease: Duration::from_secs(40),
            ..holder(2)
        };
        let taken_by = |holder: &Holder| {
            Record::Lease(LeaseTaken {
                holder: holder.clone(),
                number: 1,
                released: false,
            })
        };
        ledger.read(1, 1_000, taken_by(&patient));
        ledger.read(2, 1_000, taken_by(&holder(3)));
        ledger.read(3, 30_000, taken_by(&holder(1)));
        assert_eq!(ledger.holders_at(30_000), [holder(1), patient.clone()]);
        assert_eq!(ledger.holders_at(42_000), [patient]);
        assert_eq!(ids(&ledger.holders_at(42_001)), Vec::<Incarnation>::new());
    }

    #[test]
    fn another_log_of_the_same_name_is_read_from_its_beginning() {
        let mut ledger = Ledger::<()>::new(holder(1), DIFFERENCE);
        assert!(!ledger.reopen(1, 0));
        ledger.read(5, 0, taken(2, 1));
        assert!(!ledger.reopen(1, 9));
        assert!(ledger.reopen(2, 9), "made anew");
        assert_eq!(ledger.read_up_to(), 0);
        assert_eq!(
            ledger.holders_at(0),
            [holder(2)],
            "its lease goes on until it has run out"
        );
        ledger.read(5, 0, taken(2, 1));
        assert!(ledger.reopen(2, 4), "an older state of it");
    }
}
