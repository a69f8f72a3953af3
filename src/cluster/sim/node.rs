//! One node: what reads the log, and one shard with one user, each step by itself.

use std::collections::VecDeque;
use std::time::Duration;

use super::world::{Broken, DIFFERENCE_MS};
use crate::cluster::ledger::{Holder, Holders, LeaseTaken, Ledger, Record};
use crate::units::millis;

/// A join that is under way.
struct Joining {
    allowed: bool,
    asked_ms: u64,
    done_ms: u64,
}

/// What a shard does in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Take,
    Look,
    Write,
}

/// What a step of reading the log comes to.
pub enum Read {
    Nothing,
    /// The withdrawal was carried out; when it was stored.
    Withdrawn(u64),
    /// Access was given back; when that was stored.
    Restored(u64),
}

#[expect(clippy::struct_excessive_bools, reason = "a model: each is one fact of the node")]
pub struct Node {
    ledger: Ledger<u64>,
    lease: Duration,
    broken: Broken,
    /// Records that have arrived and are not read.
    records: VecDeque<(u64, u64, Record)>,
    pub arrived: u64,
    withdrawing: Option<(u64, u64)>,
    pub carried_out: u64,
    lease_until_ms: u64,
    is_revoked: bool,
    // The shard.
    revoke_ordered: bool,
    pub is_member: bool,
    joining: Option<Joining>,
    /// When a join was asked for that was refused, because access was withdrawn.
    refused_ms: Option<u64>,
    delivered: u64,
    mailbox: VecDeque<u64>,
    line: Vec<u64>,
    may_write: bool,
    phase: Phase,
}

impl Node {
    pub fn new(incarnation: u64, lease_ms: u64, broken: Broken) -> Self {
        let own = Holder {
            incarnation,
            id: incarnation.to_string().into(),
            lease: Duration::from_millis(lease_ms),
        };
        Self {
            lease: own.lease,
            ledger: Ledger::new(own, Duration::from_millis(DIFFERENCE_MS)),
            broken,
            records: VecDeque::new(),
            arrived: 0,
            withdrawing: None,
            carried_out: 0,
            lease_until_ms: 0,
            is_revoked: false,
            revoke_ordered: false,
            is_member: true,
            joining: None,
            refused_ms: None,
            delivered: 0,
            mailbox: VecDeque::new(),
            line: Vec::new(),
            may_write: false,
            phase: Phase::Take,
        }
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    pub fn ask(&mut self, now_ms: u64) -> LeaseTaken {
        self.ledger.ask(now_ms)
    }

    pub fn arrive(&mut self, stored_ms: u64, record: Record) {
        self.arrived += 1;
        self.records.push_back((self.arrived, stored_ms, record));
    }

    pub fn deliver(&mut self, offset: u64) {
        self.mailbox.extend(self.delivered + 1..=offset);
        self.delivered = self.delivered.max(offset);
    }

    pub fn holders_at(&self, stored_ms: u64) -> Holders {
        self.ledger.holders_at(stored_ms)
    }

    /// Reads one record, or finds that the shard has carried the last one out.
    pub fn read(&mut self, now_ms: u64) -> Read {
        if let Some((sequence, stored_ms)) = self.withdrawing {
            if self.revoke_ordered {
                return Read::Nothing;
            }
            self.withdrawing = None;
            self.carried_out = sequence;
            return Read::Withdrawn(stored_ms);
        }
        let Some((sequence, stored_ms, record)) = self.records.pop_front() else {
            return Read::Nothing;
        };
        match record {
            Record::Lease(lease) => {
                if let Some((asked_ms, length)) = self.ledger.take(stored_ms, lease) {
                    let from_ms = if self.broken == Broken::LeaseFromReading {
                        now_ms
                    } else {
                        asked_ms
                    };
                    self.lease_until_ms = self.lease_until_ms.max(from_ms + millis(length));
                }
            }
            Record::Withdraw(_) => {
                self.is_revoked = true;
                self.revoke_ordered = true;
                self.withdrawing = Some((sequence, stored_ms));
                return Read::Nothing;
            }
            Record::Restore(_) => {
                self.is_revoked = false;
                self.carried_out = sequence;
                return Read::Restored(stored_ms);
            }
            Record::Succeed(succession) => self.ledger.succeed(succession),
        }
        self.carried_out = sequence;
        Read::Nothing
    }

    /// The user asks to join; the policy answers at once, and the room is entered at `done_ms`.
    pub fn join(&mut self, now_ms: u64, done_ms: u64) {
        // Without a lease the answer is that it is not possible now.
        let may_ask = now_ms < self.lease_until_ms || self.broken == Broken::RefusesWithoutALease;
        if self.joining.is_none() && !self.is_member && may_ask {
            self.joining = Some(Joining {
                allowed: !self.is_revoked,
                asked_ms: now_ms,
                done_ms,
            });
        }
    }

    /// One phase of the shard's turn; answers what was written to the user.
    pub fn turn(&mut self, now_ms: u64) -> Vec<u64> {
        match self.phase {
            Phase::Take => {
                if self.broken == Broken::LookBeforeTaking {
                    self.look(now_ms);
                    self.phase = Phase::Look;
                    return Vec::new();
                }
                self.take(now_ms);
                self.phase = Phase::Look;
            }
            Phase::Look => {
                if self.broken == Broken::LookBeforeTaking {
                    self.take(now_ms);
                } else {
                    self.look(now_ms);
                }
                self.phase = Phase::Write;
            }
            Phase::Write => {
                self.phase = Phase::Take;
                if self.may_write || self.broken == Broken::NoLookAtTheLease {
                    let written = std::mem::take(&mut self.line);
                    return if self.is_member { written } else { Vec::new() };
                }
            }
        }
        Vec::new()
    }

    pub fn is_between_turns(&self) -> bool {
        self.phase == Phase::Take
    }

    fn look(&mut self, now_ms: u64) {
        self.may_write = now_ms < self.lease_until_ms;
    }

    fn take(&mut self, now_ms: u64) {
        self.line.extend(self.mailbox.drain(..));
        if std::mem::take(&mut self.revoke_ordered) {
            self.is_member = false;
        }
        if let Some(joining) = self.joining.take_if(|joining| joining.done_ms <= now_ms) {
            let is_old = self.is_revoked && self.broken != Broken::JoinsByOldPermits;
            let holds = now_ms < self.lease_until_ms;
            self.is_member = joining.allowed && !is_old && holds;
            if !self.is_member && holds {
                self.refused_ms = Some(joining.asked_ms);
            }
        }
    }

    pub fn take_refused(&mut self) -> Option<u64> {
        self.refused_ms.take()
    }
}
