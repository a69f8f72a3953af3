//! The sum of all events that the crowd has received.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

use super::super::latency::Latency;
use super::super::tally::Faults;

/// Members whose latency is counted together.
pub(crate) type Group = usize;

/// The number of groups.
pub(crate) const GROUPS: usize = 2;

/// Sums over members.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Members who are in all their rooms.
    pub(crate) inside: u32,
    /// Members on their way in.
    pub(super) entering: usize,
    /// Members who have got everything their group is to get.
    pub(crate) complete: usize,
    /// The number of events that a member of each group expects.
    pub(super) expected: [u64; GROUPS],
    pub(crate) received: u64,
    /// Answers to requests of members that poll.
    pub(crate) polls: u64,
    /// Heartbeats of the server that were answered.
    pub(crate) pings: u64,
    /// Commands of a drill that were answered.
    pub(crate) drilled: u64,
    /// The number of rooms that members join and leave in turn, while they do.
    pub(crate) drill: Option<u32>,
    /// Attempts to connect that the server was too busy for.
    pub(crate) busy: u64,
    pub(crate) faults: Faults,
    pub(crate) latencies: [Latency; GROUPS],
    /// The offset of the last stamp within its frame.
    pub(super) place: usize,
    clock: Instant,
    progress: Option<Arc<Progress>>,
}

/// The progress of each room, for a publisher that bounds its events in flight.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Receipts by room, summed over its members.
    received: Box<[AtomicU64]>,
    /// The thread that waits for progress.
    publisher: OnceLock<Thread>,
}

impl Progress {
    pub(crate) fn new(rooms: u32) -> Self {
        Self {
            received: (0..rooms).map(|_| AtomicU64::new(0)).collect(),
            publisher: OnceLock::new(),
        }
    }

    /// Wakes the calling thread from now on.
    pub(crate) fn follow(&self) {
        // Only one thread ever asks.
        let _ = self.publisher.set(std::thread::current());
    }

    pub(crate) fn of(&self, room: u32) -> u64 {
        self.received
            .get(room as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Ledger {
    pub(super) fn new(clock: Instant) -> Self {
        Self {
            inside: 0,
            entering: 0,
            complete: 0,
            expected: [0; GROUPS],
            received: 0,
            polls: 0,
            pings: 0,
            drilled: 0,
            drill: None,
            busy: 0,
            faults: Faults::default(),
            latencies: [Latency::new(), Latency::new()],
            place: 0,
            clock,
            progress: None,
        }
    }

    /// Counts receipts by room as well.
    pub(crate) fn count_progress(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    /// Forgets latencies and receipts: what came before was to warm up.
    pub(crate) fn restart(&mut self) {
        self.latencies = [Latency::new(), Latency::new()];
        self.received = 0;
        self.polls = 0;
    }

    /// Reports whether all connected members have received everything.
    pub(crate) fn all_complete(&self) -> bool {
        self.complete >= self.inside as usize
    }

    /// Microseconds of this run.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn receipt(&mut self, room: u32) {
        self.received += 1;
        if let Some(count) = self
            .progress
            .as_ref()
            .and_then(|progress| progress.received.get(room as usize))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn tell_progress(&self) {
        if let Some(publisher) = self.progress.as_ref().and_then(|progress| progress.publisher.get()) {
            publisher.unpark();
        }
    }
}
