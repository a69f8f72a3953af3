//! Time, the log, the network and the faults between nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::node::{Node, Read};
use crate::cluster::barrier::{Barrier, Waits};
use crate::cluster::ledger::{Holder, LeaseTaken, Record, Restoration, Withdrawal};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::notice::Notice;
use crate::policy::{Revocation, RevocationId, RevocationScope, RevocationSubject};
use crate::room::Tenant;
use crate::units::millis;

// A fifth of the real ones: what matters is how they compare.
/// The lengths of leases that nodes are set up with.
const LEASES_MS: [u64; 3] = [2_000, 500, 6_000];
const MARGIN_MS: u64 = 200;
/// How far servers' clocks may be apart.
pub const DIFFERENCE_MS: u64 = 1_000;
const SKEW_MS: u64 = 800;

/// A rule that is left out, to see that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    LeaseFromReading,
    NoLookAtTheLease,
    LookBeforeTaking,
    NobodyWaitedFor,
    JoinsByOldPermits,
    /// The others' leases are taken to be as long as one's own.
    LeaseOfOnesOwn,
    /// Access is given back without waiting for those who do not know it.
    RestoredAtOnce,
    /// Joins are refused by what a node knows that has no lease.
    RefusesWithoutALease,
}

/// What happens at a node; late when the node is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Ask,
    Send(LeaseTaken),
    Arrive(u64),
    Read,
    Turn,
    Join,
    Event(u64),
    Confirm,
    /// The revoking node: writes the withdrawal, later gives access back; has the acknowledgement, asks again, has an
    /// answer, looks.
    Revoke,
    Restore,
    Stored,
    AskAll,
    Answer(u64, bool),
    Outcome,
}

/// What happens between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    At(usize, At),
    Store(Record),
    Publish,
    Pause(usize),
    Part(usize),
}

pub struct World {
    rng: StdRng,
    broken: Broken,
    now_ms: u64,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, What>,
    next: u64,
    log: Vec<(u64, Record)>,
    skew_ms: u64,
    nodes: Vec<Node>,
    stopped_until_ms: Vec<u64>,
    parted_until_ms: Vec<u64>,
    /// When the last thing sent to a node, over the log and over the bus, arrives there: both keep their order.
    arrives_ms: Vec<[u64; 2]>,
    offset: u64,
    barrier: Option<Barrier<u64>>,
    /// The nodes that may deliver without knowing what is under way, and until when.
    waits: Option<Vec<(Holder, u64)>>,
    /// The first offset after `Revoke` had returned.
    floor: Option<u64>,
    /// Access is given back again in this life.
    restores: bool,
    /// When `Restore` was called, and when it had returned.
    restoring: Option<(u64, Option<u64>)>,
}

impl World {
    pub fn new(seed: u64, broken: Broken) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(2..=4);
        let mut world = Self {
            broken,
            now_ms: 0,
            agenda: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            log: Vec::new(),
            skew_ms: rng.random_range(0..SKEW_MS),
            nodes: Vec::new(),
            stopped_until_ms: vec![0; count],
            parted_until_ms: vec![0; count],
            arrives_ms: vec![[0; 2]; count],
            offset: 0,
            barrier: None,
            waits: None,
            floor: None,
            restores: rng.random_bool(0.5),
            restoring: None,
            rng,
        };
        for node in 0..count {
            let lease_ms = LEASES_MS[world.rng.random_range(0..LEASES_MS.len())];
            world.nodes.push(Node::new(node as u64 + 1, lease_ms, broken));
            world.nodes[node].is_member = world.rng.random_bool(0.5);
            for first in [At::Ask, At::Read, At::Turn, At::Join] {
                world.at(node, 1..200, first);
            }
            for _ in 0..4 {
                let (pause, part) = (world.rng.random_range(0..12_000), world.rng.random_range(0..12_000));
                world.plan(pause, What::Pause(node));
                world.plan(part, What::Part(node));
            }
        }
        world.plan(1, What::Publish);
        world.at(0, 2_000..8_000, At::Revoke);
        world
    }

    pub fn run(mut self, until_ms: u64) -> Result<(), String> {
        while let Some(Reverse((at_ms, number))) = self.agenda.pop() {
            let Some(what) = self.happenings.remove(&number) else {
                continue;
            };
            if at_ms > until_ms {
                break;
            }
            self.now_ms = at_ms;
            self.happen(what)?;
        }
        let members: Vec<_> = self.nodes.iter().map(|node| node.is_member).collect();
        if self.floor.is_none() {
            return Err("Revoke has not returned".to_owned());
        }
        match (self.restores, self.restoring) {
            (true, Some((_, Some(_)))) => {}
            (true, _) => return Err("Restore has not returned".to_owned()),
            (false, _) if members.contains(&true) => return Err(format!("still a member: {members:?}")),
            (false, _) => {}
        }
        Ok(())
    }

    fn plan(&mut self, at_ms: u64, what: What) {
        self.next += 1;
        self.happenings.insert(self.next, what);
        self.agenda.push(Reverse((at_ms, self.next)));
    }

    fn at(&mut self, node: usize, within_ms: std::ops::Range<u64>, at: At) {
        let at_ms = self.now_ms + self.rng.random_range(within_ms);
        self.plan(at_ms, What::At(node, at));
    }

    /// A way through the network: usually short, sometimes long, sometimes none.
    fn way(&mut self, node: usize) -> Option<u64> {
        let is_lost = self.rng.random_bool(0.05) || self.parted_until_ms[node] > self.now_ms;
        let is_slow = self.rng.random_bool(0.02);
        (!is_lost).then(|| self.rng.random_range(if is_slow { 20..600 } else { 1..10 }))
    }

    /// A way that keeps its order and loses nothing: what cannot pass now passes later.
    fn in_order(&mut self, node: usize, which: usize) -> u64 {
        let from_ms = self.now_ms.max(self.parted_until_ms[node]);
        let range_ms = if self.rng.random_bool(0.01) { 20..400 } else { 1..10 };
        let way_ms = self.rng.random_range(range_ms);
        let at_ms = self.arrives_ms[node][which].max(from_ms + way_ms);
        self.arrives_ms[node][which] = at_ms;
        at_ms
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::At(node, at) if self.stopped_until_ms[node] > self.now_ms => {
                // It goes on where it was, in any order.
                let at_ms = self.stopped_until_ms[node] + self.rng.random_range(0..20);
                self.plan(at_ms, What::At(node, at));
            }
            What::At(node, at) => return self.step(node, at),
            What::Store(record) => self.store(record),
            What::Publish => self.publish(),
            What::Pause(node) => {
                let lengths_ms = [10, 400, 1_000, 3_000, 6_000];
                let length_ms = lengths_ms[self.rng.random_range(0..lengths_ms.len())];
                self.stopped_until_ms[node] = self.stopped_until_ms[node].max(self.now_ms + length_ms);
            }
            What::Part(node) => {
                let length_ms = self.rng.random_range(20..4_000);
                self.parted_until_ms[node] = self.parted_until_ms[node].max(self.now_ms + length_ms);
            }
        }
        Ok(())
    }

    fn store(&mut self, record: Record) {
        // Another leader, with another clock.
        if self.rng.random_bool(0.002) {
            self.skew_ms = self.rng.random_range(0..SKEW_MS);
        }
        self.log.push((self.now_ms + self.skew_ms, record));
        let sequence = self.log.len() as u64;
        for node in 0..self.nodes.len() {
            let at_ms = self.in_order(node, 0);
            self.plan(at_ms, What::At(node, At::Arrive(sequence)));
        }
    }

    fn publish(&mut self) {
        self.offset += 1;
        for node in 0..self.nodes.len() {
            let at_ms = self.in_order(node, 1);
            self.plan(at_ms, What::At(node, At::Event(self.offset)));
        }
        let next_ms = self.now_ms + self.rng.random_range(10..60);
        self.plan(next_ms, What::Publish);
    }

    fn step(&mut self, node: usize, at: At) -> Result<(), String> {
        match at {
            At::Ask => {
                let asked = self.nodes[node].ask(self.now_ms);
                self.at(node, 0..5, At::Send(asked));
                self.at(node, 200..210, At::Ask);
            }
            At::Send(lease) => {
                if let Some(way_ms) = self.way(node) {
                    self.plan(self.now_ms + way_ms, What::Store(Record::Lease(lease)));
                }
            }
            At::Arrive(sequence) => {
                // A connection keeps the order of what it brings.
                for arrived in self.nodes[node].arrived + 1..=sequence {
                    let (stored_ms, record) = self.log[usize::try_from(arrived).unwrap() - 1].clone();
                    self.nodes[node].arrive(stored_ms, record);
                }
            }
            At::Read => {
                let read = self.nodes[node].read(self.now_ms);
                if let (0, Read::Withdrawn(stored_ms) | Read::Restored(stored_ms)) = (node, read) {
                    self.read_back(stored_ms);
                }
                self.at(node, 2..12, At::Read);
            }
            At::Turn => {
                let written = self.nodes[node].turn(self.now_ms);
                let refused_ms = self.nodes[node].take_refused();
                if let (Some((_, Some(returned_ms))), Some(asked_ms)) = (self.restoring, refused_ms)
                    && asked_ms >= returned_ms
                {
                    return Err(format!("node {node} refused at {asked_ms} ms, after {returned_ms}"));
                }
                for offset in written {
                    if self.restoring.is_none() && self.floor.is_some_and(|floor| offset >= floor) {
                        return Err(format!(
                            "node {node} wrote {offset} after {:?} at {} ms",
                            self.floor, self.now_ms
                        ));
                    }
                }
                let next_ms = if self.nodes[node].is_between_turns() {
                    4..16
                } else {
                    0..3
                };
                self.at(node, next_ms, At::Turn);
            }
            At::Join => {
                let done_ms = self.now_ms + self.rng.random_range(1..400);
                self.nodes[node].join(self.now_ms, done_ms);
                self.at(node, 1..600, At::Join);
            }
            At::Event(offset) => self.nodes[node].deliver(offset),
            At::Confirm => self.confirm(node),
            At::Revoke | At::Restore | At::Stored | At::AskAll | At::Answer(..) | At::Outcome => self.operate(&at),
        }
        Ok(())
    }

    fn read_back(&mut self, stored_ms: u64) {
        let mut holders = self.nodes[0].holders_at(stored_ms).known;
        let is_hasty = self.broken == Broken::RestoredAtOnce && self.restoring.is_some();
        if self.broken == Broken::NobodyWaitedFor || is_hasty {
            holders.clear();
        }
        let own = self.nodes[0].lease();
        let is_own = self.broken == Broken::LeaseOfOnesOwn;
        let end = |holder: Holder| {
            let length = if is_own { own } else { holder.lease };
            let end_ms = self.now_ms + millis(length) + MARGIN_MS;
            (holder, end_ms)
        };
        self.waits = Some(holders.into_iter().map(end).collect());
        self.tell_barrier();
    }

    /// The read-back may come before the acknowledgement.
    fn tell_barrier(&mut self) {
        if let (Some(barrier), Some(holders)) = (&mut self.barrier, &self.waits) {
            barrier.confirm(1, 1);
            barrier.read(Waits {
                holders: holders.clone(),
                heard: Vec::new(),
                unknown: 0,
            });
        }
    }

    fn confirm(&mut self, node: usize) {
        // Each is written once.
        let is_restoring = self.restoring.is_some();
        let written = self.log.iter().position(|(_, record)| match record {
            Record::Withdraw(_) => !is_restoring,
            Record::Restore(_) => is_restoring,
            Record::Lease(_) | Record::Succeed(_) => false,
        });
        let is_done = written.is_some_and(|index| self.nodes[node].carried_out > index as u64);
        if let (true, Some(way_ms)) = (is_done, self.way(node)) {
            self.plan(
                self.now_ms + way_ms,
                What::At(0, At::Answer(node as u64 + 1, is_restoring)),
            );
        }
    }

    /// What the revoking node does.
    fn operate(&mut self, at: &At) {
        match at {
            At::Revoke => self.write(Record::Withdraw(withdrawal())),
            At::Restore => {
                self.restoring = Some((self.now_ms, None));
                self.write(Record::Restore(restoration()));
            }
            At::Stored => {
                self.barrier = Some(Barrier::new());
                self.tell_barrier();
                self.at(0, 0..2, At::AskAll);
                self.at(0, 0..2, At::Outcome);
            }
            At::AskAll if self.barrier.is_some() => {
                for node in 1..self.nodes.len() {
                    if let Some(way_ms) = self.way(node) {
                        self.plan(self.now_ms + way_ms, What::At(node, At::Confirm));
                    }
                }
                self.at(0, 80..81, At::AskAll);
            }
            At::Answer(from, restoring) if *restoring == self.restoring.is_some() => {
                if let Some(barrier) = &mut self.barrier {
                    barrier.confirm(*from, 1);
                }
            }
            At::Outcome => {
                let outcome = self.barrier.as_ref().and_then(|barrier| barrier.outcome(self.now_ms));
                match outcome {
                    Some(_) => self.returned(),
                    None => self.at(0, 1..10, At::Outcome),
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, record: Record) {
        (self.barrier, self.waits) = (None, None);
        self.plan(self.now_ms + 2, What::Store(record));
        self.at(0, 3..400, At::Stored);
    }

    /// The call of the revoking node has returned.
    fn returned(&mut self) {
        self.barrier = None;
        if let Some((_, returned_ms)) = &mut self.restoring {
            *returned_ms = Some(self.now_ms);
            return;
        }
        self.floor = Some(self.offset + 1);
        if self.restores {
            self.at(0, 1..4_000, At::Restore);
        }
    }
}

fn withdrawal() -> Withdrawal {
    Withdrawal {
        operation: 1,
        id: RevocationId::from_bits(1),
        revocation: Revocation {
            tenant: Tenant::default(),
            subject: RevocationSubject::User(UserId::parse("ada").unwrap()),
            issued_before: None,
            scope: RevocationScope::Everything,
        },
        created: None,
        ttl: Duration::from_secs(3600),
        notice: Notice::default(),
    }
}

fn restoration() -> Restoration {
    Restoration {
        operation: 2,
        tenant: Tenant::default(),
        id: RevocationId::from_bits(1),
        expires: Timestamp(u64::MAX),
    }
}
