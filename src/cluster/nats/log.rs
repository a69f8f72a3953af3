//! The control log in NATS: writing to it, reading it from its beginning, the lease that comes of it, and keeping it whole.

mod read;
mod whole;
mod write;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, Stream};
use tokio::sync::{Notify, oneshot, watch};

use self::whole::Reading;
use super::Ignored;
use super::counted::Counted;
use crate::cluster::Config;
use crate::cluster::inventory::Inventory;
use crate::cluster::ledger::{Holder, Holders, Ledger, Operation};
use crate::event::Timestamp;
use crate::hub::Shards;
use crate::lease::Lease;
use crate::nats::nodes::Nodes;
use crate::nats::{Nats, NatsError, streams};
use crate::policy::Policy;
use crate::sync::lock;
use crate::units::millis;

/// Pause between two attempts: several in the time of a lease, and few enough for a server that starts.
const AGAIN: Duration = Duration::from_millis(300);

/// The most operations that are remembered with their outcome: a confirmation is asked for within seconds.
const COUNTED_MAX: usize = 1024;

/// An operation of this node that was read back.
#[derive(Debug)]
pub(super) struct ReadBack {
    /// Memberships that ended here.
    pub memberships: u32,
    /// The nodes that may deliver without knowing it.
    pub holders: Holders,
    /// A withdrawal had no effect: the revocation that it was to prolong had been taken back.
    pub in_vain: bool,
}

/// The control log, as this node writes and reads it.
pub(super) struct Log {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    config: Config,
    stream: String,
    shards: Shards,
    policy: Arc<dyn Policy>,
    lease: Lease,
    ignored: Arc<Ignored>,
    ledger: Mutex<Ledger<Instant>>,
    inventory: Mutex<Inventory>,
    /// Up to which sequence everything is carried out; changes with every record.
    reading: watch::Sender<u64>,
    counted: Mutex<Counted>,
    expected: Mutex<HashMap<Operation, oneshot::Sender<ReadBack>>>,
    is_full: AtomicBool,
    /// Held while a lease is asked for; whether no more may be.
    released: tokio::sync::Mutex<bool>,
    /// The log may have lost something: it is to be looked at, and perhaps read again.
    suspect: Notify,
    /// The readings of the log from its beginning to its end, and whether what was missing has been written back.
    whole: watch::Sender<Reading>,
    /// Since when the others are known to have written back what they know; a lease asked for earlier is none.
    agreed: Mutex<Option<Instant>>,
    /// A lease is to be asked for before the next interval is over.
    renew_now: Notify,
    /// This node may have members: before its first lease it lets nobody in.
    has_served: AtomicBool,
}

/// The parts of a [`Log`].
pub(super) struct Parts {
    pub nats: Arc<Nats>,
    pub nodes: Arc<Nodes>,
    pub config: Config,
    pub own: Holder,
    pub shards: Shards,
    pub policy: Arc<dyn Policy>,
    pub lease: Lease,
    pub ignored: Arc<Ignored>,
}

impl Log {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            stream: parts.nats.subjects().stream_of('c'),
            ledger: Mutex::new(Ledger::new(parts.own, parts.config.clock_difference_max)),
            inventory: Mutex::default(),
            reading: watch::channel(0).0,
            counted: Mutex::new(Counted::new(COUNTED_MAX)),
            expected: Mutex::default(),
            is_full: AtomicBool::new(false),
            released: tokio::sync::Mutex::new(false),
            suspect: Notify::new(),
            whole: watch::channel(Reading::default()).0,
            agreed: Mutex::default(),
            renew_now: Notify::new(),
            has_served: AtomicBool::new(false),
            nats: parts.nats,
            nodes: parts.nodes,
            config: parts.config,
            shards: parts.shards,
            policy: parts.policy,
            lease: parts.lease,
            ignored: parts.ignored,
        }
    }

    /// Makes the stream unless it is there. One with fewer replicas than this node is set to gets more.
    pub(super) async fn make(&self) -> Result<Stream, NatsError> {
        let settings = self.nats.config();
        let stream = StreamConfig {
            name: self.stream.clone(),
            description: Some("what every node must obey".to_owned()),
            subjects: vec![self.nats.subjects().all_of('c')],
            storage: settings.storage.into(),
            num_replicas: settings.replicas,
            max_age: self.config.log_age_max,
            // Of a node's leases the last one counts; each withdrawal has a subject of its own.
            max_messages_per_subject: 1,
            max_bytes: i64::try_from(self.config.log_bytes_max).unwrap_or(i64::MAX),
            // Leases must go on when it is full: `Revoke` is refused before the oldest would go.
            discard: DiscardPolicy::Old,
            duplicate_window: Duration::from_secs(120),
            ..StreamConfig::default()
        };
        let context = self.nats.jetstream_to_make_streams();
        let made = context.get_or_create_stream(&stream).await;
        let made = made.map_err(|error| streams::refused(settings, &self.stream, &error))?;
        let there = &made.cached_info().config;
        if there.sealed {
            return Err(streams::sealed(&self.stream));
        }
        if there.num_replicas < stream.num_replicas {
            let grown = context.update_stream(&stream).await;
            grown.map_err(|error| streams::refused(settings, &self.stream, &error))?;
        }
        Ok(made)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<Instant>> {
        lock(&self.ledger)
    }

    fn inventory(&self) -> MutexGuard<'_, Inventory> {
        lock(&self.inventory)
    }

    /// The time by the servers.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.nats.clock().now_ms())
    }

    /// Returns the nodes that have taken a lease within `age`.
    pub(super) fn lately(&self, age: Duration) -> Vec<Holder> {
        let age_ms = millis(age);
        let since_ms = self.nats.clock().now_ms().saturating_sub(age_ms);
        self.ledger().taken_since(since_ms)
    }

    /// Reports whether everything that was promised about other nodes is known here.
    pub(super) fn is_current(&self) -> bool {
        self.lease.holds()
    }

    /// Waits until the log has been read to its end.
    pub(super) async fn read(&self) {
        // It cannot end before this does: the sender is a field.
        let _ = self.whole.subscribe().wait_for(|reading| reading.read > 0).await;
    }

    /// Waits until the node has a lease.
    pub(super) async fn held(&self) {
        self.lease.held().await;
    }

    /// Waits until an operation is carried out here; answers how many memberships it has ended.
    pub(super) async fn carried_out(&self, operation: Operation) -> u32 {
        let mut reading = self.reading.subscribe();
        loop {
            // Marked before it is looked, so that what comes meanwhile is not missed.
            reading.borrow_and_update();
            if let Some(memberships) = lock(&self.counted).of(operation) {
                return memberships;
            }
            if reading.changed().await.is_err() {
                // The log is gone; nobody waits for it then.
                return std::future::pending().await;
            }
        }
    }

    /// Returns the outcome of this node's own operation, which comes when it is read back. Call it before the write.
    pub(super) fn expect(&self, operation: Operation) -> Expected<'_> {
        let (told, read_back) = oneshot::channel();
        lock(&self.expected).insert(operation, told);
        Expected {
            log: self,
            operation,
            read_back,
        }
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

/// An operation that will be read back.
pub(super) struct Expected<'a> {
    log: &'a Log,
    operation: Operation,
    read_back: oneshot::Receiver<ReadBack>,
}

impl Expected<'_> {
    /// Waits for the outcome on this node, without a bound while the log cannot be read.
    pub(super) async fn read_back(&mut self) -> ReadBack {
        match (&mut self.read_back).await {
            Ok(read_back) => read_back,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        lock(&self.log.expected).remove(&self.operation);
    }
}
