//! Compares what everybody wrote down with what the stream holds. Knows no gateway.
//!
//! - An acknowledged event is in the stream, once, where the answer said. One whose every attempt was answered "not stored"
//!   is not. Of two events of a publisher, of which the first was acknowledged before the second was asked for, the first
//!   stands first.
//! - A client gets, of each room, what the stream holds after the position it joined at: all of it, once, in order, to the
//!   end; unless it was told otherwise (`recovered: false`, a resync), which is counted.
//! - Ephemeral events come at most once, those of one publisher's connection in order.
//! - After a revocation was answered, nothing published later reaches its user in its room, and no join is accepted.

mod pace;
mod publishes;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::ops::AddAssign;
use std::sync::Arc;

pub use self::pace::Pace;
use super::log::{Answer, Id, Log, Micros};

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// Acknowledged and not in the stream, or in the stream and never delivered although its reader stayed to the end.
    Lost,
    /// Twice in the stream, or twice at a client.
    Doubled,
    /// Out of order.
    Reordered,
    /// Something was passed over without a word.
    SilentGap,
    /// Delivered or joined after a revocation.
    AfterRevocation,
    /// Stored although every answer said that it is not; delivered although it is not in the stream; another content.
    Untrue,
}

impl Wrong {
    /// All of them, as they are counted in a table.
    pub const ALL: [Self; 6] = [
        Self::Lost,
        Self::Doubled,
        Self::Reordered,
        Self::SilentGap,
        Self::AfterRevocation,
        Self::Untrue,
    ];
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Finding {
    pub wrong: Wrong,
    /// How many events it is about.
    pub count: usize,
    /// Who, where, what.
    pub what: String,
}

/// What a round came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub findings: Vec<Finding>,
    /// Events that were acknowledged.
    pub stored: usize,
    /// Events whose every attempt was answered "not stored".
    pub refused: usize,
    /// Events whose publisher was told nothing certain to the end.
    pub unknown: usize,
    /// Calls that were answered "not stored", and calls that were answered nothing certain: most were repeated.
    pub unsettled: (usize, usize),
    /// Connections that were closed because their clients read too slowly.
    pub slow: usize,
    /// How often clients were told that delivery is interrupted.
    pub degraded: usize,
    /// Deliveries of events to clients, ephemeral ones included.
    pub deliveries: usize,
    /// Joins with a position that were recovered exactly.
    pub recovered: usize,
    /// Joins with a position after which the client was told to start anew, and resyncs: told, so not silent.
    pub restarted: usize,
    /// Revocations that were answered.
    pub revoked: usize,
    /// Those that named nodes which did not confirm.
    pub unconfirmed: usize,
    /// How long the slowest of them took.
    pub revoking_max: Micros,
    /// How much was published meanwhile.
    pub pace: Option<Pace>,
}

impl Outcome {
    /// How many events are wrong in this way.
    pub fn count(&self, wrong: Wrong) -> usize {
        let same = self.findings.iter().filter(|finding| finding.wrong == wrong);
        same.map(|finding| finding.count).sum()
    }

    fn find(&mut self, wrong: Wrong, count: usize, what: String) {
        self.findings.push(Finding { wrong, count, what });
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.stored += other.stored;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.unsettled.0 += other.unsettled.0;
        self.unsettled.1 += other.unsettled.1;
        self.slow += other.slow;
        self.degraded += other.degraded;
        self.deliveries += other.deliveries;
        self.recovered += other.recovered;
        self.restarted += other.restarted;
        self.revoked += other.revoked;
        self.unconfirmed += other.unconfirmed;
        self.revoking_max = self.revoking_max.max(other.revoking_max);
        self.pace = self.pace.into_iter().chain(other.pace).reduce(Pace::slower);
    }
}

/// Checks a round.
pub fn check(log: &Log) -> Outcome {
    let mut outcome = Outcome {
        revoked: log.revocations.len(),
        unconfirmed: log.revocations.iter().filter(|one| one.unconfirmed > 0).count(),
        revoking_max: log.revocations.iter().map(|one| one.took).max().unwrap_or_default(),
        pace: pace::of(log),
        ..Outcome::default()
    };
    publishes::check(log, &mut outcome);
    let (called, acknowledged) = (first_calls(log), acknowledged(log));
    for one in &log.readers {
        reader::check(log, (&called, &acknowledged), one, &mut outcome);
    }
    outcome
}

/// Where events of each room were acknowledged, by epoch.
type Acknowledged = HashMap<(usize, Arc<str>), BTreeSet<u64>>;

fn acknowledged(log: &Log) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    for attempt in &log.attempts {
        if let Answer::Stored(at) = &attempt.answer {
            let of_room = acknowledged.entry((attempt.room, Arc::clone(&at.epoch))).or_default();
            of_room.insert(at.offset);
        }
    }
    acknowledged
}

/// When each event was first asked for, and through which connection.
fn first_calls(log: &Log) -> HashMap<Id, (Micros, u32)> {
    let mut calls: HashMap<Id, (Micros, u32)> = HashMap::new();
    for attempt in &log.attempts {
        let call = (attempt.called, attempt.via);
        let first = calls.entry(attempt.id).or_insert(call);
        *first = call.min(*first);
    }
    calls
}
