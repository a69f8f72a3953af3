//! Timers of a shard. A connection has none: a coarse wheel visits each connection once per heartbeat interval, and only a
//! token's end that is near has an entry of its own.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::clients::{Key, Ticket};
use crate::identity::Expiry;
use crate::units::millis;

/// The action of a timer.
#[derive(Debug, Clone, Copy)]
pub(super) enum DueAction {
    /// Of a token that ends then.
    ExpiryNotice(Expiry),
    /// The same.
    Expiry(Expiry),
    Drain,
}

/// The timers of one shard, by its clock.
#[derive(Debug, Default)]
pub(super) struct ShardTimers {
    due: BTreeMap<u64, Vec<(Ticket, DueAction)>>,
    /// Connections that may not have authenticated yet, oldest first, with the time they connected.
    newcomers: VecDeque<(u64, Ticket)>,
    /// The last second whose share of the connections was looked at.
    swept_s: u32,
}

impl ShardTimers {
    pub fn schedule(&mut self, now_ms: u64, after: Duration, ticket: Ticket, due: DueAction) {
        let at_ms = now_ms.saturating_add(millis(after));
        self.due.entry(at_ms).or_default().push((ticket, due));
    }

    /// Takes the entries that were due first, if their time has come.
    pub fn take_due(&mut self, now_ms: u64) -> Option<Vec<(Ticket, DueAction)>> {
        let entry = self.due.first_entry()?;
        (*entry.key() <= now_ms).then(|| entry.remove())
    }

    /// Starts the authentication timeout of a connection.
    pub fn connected(&mut self, now_ms: u64, ticket: Ticket) {
        self.newcomers.push_back((now_ms, ticket));
    }

    /// Takes the next connection whose authentication timeout is over.
    pub fn take_newcomer(&mut self, now_ms: u64, timeout: Duration) -> Option<Ticket> {
        let (since_ms, ticket) = *self.newcomers.front()?;
        if now_ms.saturating_sub(since_ms) < millis(timeout) {
            return None;
        }
        self.newcomers.pop_front();
        if self.newcomers.len() < self.newcomers.capacity() / 4 {
            self.newcomers.shrink_to(self.newcomers.len() * 2);
        }
        Some(ticket)
    }

    /// The next second whose share of the connections is to be looked at.
    pub fn next_second(&mut self, now_s: u32) -> Option<u32> {
        (self.swept_s < now_s).then(|| {
            self.swept_s += 1;
            self.swept_s
        })
    }
}

/// A second's share of the slots up to `end`: those whose key falls on this spoke of a wheel that turns once in `interval`.
pub(super) fn spoke(second: u32, interval: Duration, end: Key) -> impl Iterator<Item = Key> {
    let spokes = seconds(interval);
    (second % spokes..end).step_by(spokes as usize)
}

/// Whole seconds, at least one.
pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
