//! The conclusions that a node may draw from the control log: the leases in force, its own among them. Pure: it knows no NATS.
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
//! Hence a withdrawal is done when each of these has confirmed it, or its lease has ended. Giving access back is done the
//! same way. Writing is acknowledged by a quorum and reading shows what a quorum has stored: a leader that has lost its
//! followers and does not know it yet can prolong no lease, which it could if it were only asked for its last sequence.
//!
//! A log that was lost may have held leases that nobody has read. So whoever finds that out writes how long such leases may
//! go on at most ([`Succession`]), and until then no withdrawal is done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Incarnation;
use crate::event::Timestamp;
use crate::notice::Notice;
use crate::policy::{Revocation, RevocationEntry, RevocationId};
use crate::room::Tenant;
use crate::units::millis;

/// The most leases that are asked for and have not come back; older ones would have run out.
const ASKED_MAX: usize = 64;

/// Names one call that withdraws access or gives it back, so that it can be waited for.
pub type Operation = u128;

/// The operation of a record that says again what a lost log had said: nobody waits for it.
pub const WRITTEN_BACK: Operation = 0;

/// A record of the control log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Access is withdrawn.
    Withdraw(Withdrawal),
    /// Access is given back.
    Restore(Restoration),
    /// A node takes a lease.
    Lease(LeaseTaken),
    /// The log follows on one that was lost.
    Succeed(Succession),
}

/// A revocation, made or prolonged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// The call.
    pub operation: Operation,
    /// Names the revocation.
    pub id: RevocationId,
    /// The subject and the rooms.
    pub revocation: Revocation,
    /// The time at which it was made; `None`: the time at which this record was stored.
    pub created: Option<Timestamp>,
    /// The time for which it is in force from then.
    pub ttl: Duration,
    /// The notice to clients.
    pub notice: Notice,
}

impl Withdrawal {
    /// The record that says again what is known of a revocation.
    #[must_use]
    pub fn again(entry: &RevocationEntry) -> Self {
        Self {
            operation: WRITTEN_BACK,
            id: entry.id,
            revocation: entry.revocation.clone(),
            created: Some(entry.created),
            ttl: entry.left(entry.created),
            notice: entry.notice.clone(),
        }
    }

    /// The revocation of a record that was stored then.
    #[must_use]
    pub fn entry(self, stored: Timestamp) -> RevocationEntry {
        let created = self.created.unwrap_or(stored);
        RevocationEntry {
            id: self.id,
            revocation: self.revocation,
            created,
            expires: Timestamp(created.0.saturating_add(millis(self.ttl))),
            notice: self.notice,
        }
    }
}

/// A revocation is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// The call.
    pub operation: Operation,
    /// The tenant of the revocation.
    pub tenant: Tenant,
    /// Names the revocation.
    pub id: RevocationId,
    /// The time at which it would have ended by itself; until then it must not come back.
    pub expires: Timestamp,
}

/// A node has found that the log before this one was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succession {
    /// The node.
    pub node: Incarnation,
    /// Until when leases of the lost log may go on, by the servers' clock.
    pub until_ms: u64,
    /// The length of the longest of them.
    pub longest: Duration,
}

/// A node takes a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTaken {
    /// The node.
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
    /// The length of each of its leases, by its own setting.
    pub lease: Duration,
}

/// The nodes that may hold a lease that does not cover a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// The nodes that are known.
    pub known: Vec<Holder>,
    /// For how long nodes may have one that nobody knows of, counted from when the record was stored.
    pub unknown: Duration,
}

/// The latest lease of a node.
#[derive(Debug)]
struct Taken {
    holder: Holder,
    stored_ms: u64,
}

impl Taken {
    /// Reports whether it may still run when a record is stored at `stored_ms`, by clocks that differ by `difference_ms`.
    fn may_run_at(&self, stored_ms: u64, difference_ms: u64) -> bool {
        let until_ms = self.stored_ms.saturating_add(millis(self.holder.lease));
        until_ms.saturating_add(difference_ms) >= stored_ms
    }
}

/// The leases that a node has read of in the control log. `T` is a moment of its own clock.
#[derive(Debug)]
pub struct Ledger<T> {
    own: Holder,
    number: u64,
    asked: VecDeque<(u64, T)>,
    holders: BTreeMap<Incarnation, Taken>,
    unknown_until_ms: u64,
    unknown_longest: Duration,
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
            holders: BTreeMap::new(),
            unknown_until_ms: 0,
            unknown_longest: Duration::ZERO,
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

    /// Returns the record to write when the log was lost: leases that were in it may go on for the longest that is known.
    #[must_use]
    pub fn succession(&self, now_ms: u64) -> Succession {
        let lengths = self.holders.values().map(|taken| taken.holder.lease);
        let longest = lengths.fold(self.own.lease, Duration::max);
        Succession {
            node: self.own.incarnation,
            until_ms: now_ms
                .saturating_add(millis(longest))
                .saturating_add(self.difference_ms),
            longest,
        }
    }

    /// Reads that a log was lost.
    pub fn succeed(&mut self, succession: Succession) {
        self.unknown_until_ms = self.unknown_until_ms.max(succession.until_ms);
        self.unknown_longest = self.unknown_longest.max(succession.longest);
    }

    /// Reads a lease, in the order of the log; what was written before it must have been carried out. Of the node's own,
    /// returns when it was asked for and how long it is: it holds from then on.
    pub fn take(&mut self, stored_ms: u64, lease: LeaseTaken) -> Option<(T, Duration)> {
        let LeaseTaken {
            holder,
            number,
            released,
        } = lease;
        if released {
            self.holders.remove(&holder.incarnation);
            return None;
        }
        let (incarnation, length, difference_ms) = (holder.incarnation, holder.lease, self.difference_ms);
        // A log that is read again brings older ones: the latest counts.
        let known_ms = self.holders.get(&incarnation).map_or(0, |taken| taken.stored_ms);
        let stored_ms = stored_ms.max(known_ms);
        self.holders.insert(incarnation, Taken { holder, stored_ms });
        self.holders
            .retain(|_, taken| taken.may_run_at(stored_ms, difference_ms));
        if incarnation != self.own.incarnation {
            return None;
        }
        // One that comes after a later one says nothing new.
        let asked = self.asked.iter().find(|(own, _)| *own == number).copied();
        self.asked.retain(|(own, _)| *own > number);
        asked.map(|(_, when)| (when, length))
    }

    /// Returns the nodes that may hold a lease that does not cover the record that was read last, stored then.
    #[must_use]
    pub fn holders_at(&self, stored_ms: u64) -> Holders {
        let holders = self.holders.values();
        let may_hold = holders.filter(|taken| taken.may_run_at(stored_ms, self.difference_ms));
        Holders {
            known: may_hold.map(|taken| taken.holder.clone()).collect(),
            // The moment allows for clocks that differ. But the record that says it is older than the one that was just read,
            // and those leases are older still: none goes on for longer than its length from now on.
            unknown: Duration::from_millis(self.unknown_until_ms.saturating_sub(stored_ms)).min(self.unknown_longest),
        }
    }

    /// Returns the nodes that have taken a lease since then.
    #[must_use]
    pub fn taken_since(&self, since_ms: u64) -> Vec<Holder> {
        let lately = self.holders.values().filter(|taken| taken.stored_ms >= since_ms);
        lately.map(|taken| taken.holder.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
