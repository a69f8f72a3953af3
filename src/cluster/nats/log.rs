//! The control log in NATS: writing to it, reading it from its beginning, and the lease that comes of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy, Stream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::counted::Counted;
use super::{Ignored, record};
use crate::cluster::ledger::{Holder, LeaseTaken, Ledger, Record, Step, Withdrawal};
use crate::cluster::{Config, NotRevoked};
use crate::hub::Shards;
use crate::lease::Lease;
use crate::nats::{Nats, NatsError};
use crate::policy::Policy;

/// The node's own leases come once a second: when nothing has come for so long, the log is opened anew.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// How many withdrawals are remembered with what they came to, for those who ask.
const COUNTED_MAX: usize = 1024;

/// How often it is looked whether the log is full, in renewals.
const FULL_CHECK_EVERY: u64 = 30;

/// A withdrawal of this node that was read back.
#[derive(Debug)]
pub(super) struct ReadBack {
    /// Memberships that ended here.
    pub memberships: u32,
    /// Who may deliver without knowing it.
    pub holders: Vec<Holder>,
}

/// The control log, as this node writes and reads it.
pub(super) struct Log {
    nats: Arc<Nats>,
    config: Config,
    stream: String,
    shards: Shards,
    policy: Arc<dyn Policy>,
    lease: Lease,
    ignored: Arc<Ignored>,
    ledger: Mutex<Ledger<Instant>>,
    /// Up to which sequence everything is carried out; changes with every record.
    reading: watch::Sender<u64>,
    counted: Mutex<Counted>,
    expected: Mutex<HashMap<u128, oneshot::Sender<ReadBack>>>,
    is_full: AtomicBool,
    /// Held while a lease is asked for; whether no more may be.
    released: tokio::sync::Mutex<bool>,
}

/// What [`Log`] is made of.
pub(super) struct Parts {
    pub nats: Arc<Nats>,
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
            reading: watch::channel(0).0,
            counted: Mutex::new(Counted::new(COUNTED_MAX)),
            expected: Mutex::default(),
            is_full: AtomicBool::new(false),
            released: tokio::sync::Mutex::new(false),
            nats: parts.nats,
            config: parts.config,
            shards: parts.shards,
            policy: parts.policy,
            lease: parts.lease,
            ignored: parts.ignored,
        }
    }

    /// Makes the stream unless it is there.
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
        let made = self.nats.jetstream_to_make_streams().get_or_create_stream(stream).await;
        made.map_err(|error| NatsError::JetStream(error.to_string()))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<Instant>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has taken a lease within `age`.
    pub(super) fn lately(&self, age: Duration) -> Vec<Holder> {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let since_ms = self.nats.clock().now_ms().saturating_sub(age_ms);
        self.ledger().taken_since(since_ms)
    }

    /// Waits until a withdrawal is carried out here; answers how many memberships it has ended.
    pub(super) async fn carried_out(&self, id: u128) -> u32 {
        let mut reading = self.reading.subscribe();
        loop {
            // Marked before it is looked, so that what comes meanwhile is not missed.
            reading.borrow_and_update();
            if let Some(memberships) = self.counted().of(id) {
                return memberships;
            }
            if reading.changed().await.is_err() {
                // The log is gone; nobody waits for it then.
                return std::future::pending().await;
            }
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node's own withdrawal comes to when it is read back. To be asked for before it is written.
    pub(super) fn expect(&self, id: u128) -> Expected<'_> {
        let (told, read_back) = oneshot::channel();
        self.expected().insert(id, told);
        Expected {
            log: self,
            id,
            read_back,
        }
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<u128, oneshot::Sender<ReadBack>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a withdrawal; returns once a quorum has stored it.
    pub(super) async fn write(&self, withdrawal: Withdrawal) -> Result<(), NotRevoked> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(NotRevoked::NotStored("the control log is full"));
        }
        let id = format!("{:032x}", withdrawal.id);
        let subject = self.nats.subjects().command(&format!("r.{id}"));
        let payload = record::encode(&Record::Withdraw(withdrawal));
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, &*id);
        headers.insert(NATS_EXPECTED_STREAM, &*self.stream);
        let until = Instant::now() + self.nats.config().publish_timeout;
        // Whether an attempt may have been stored although its acknowledgement did not come.
        let mut perhaps = false;
        while Instant::now() < until {
            if self.nats.control().is_connected() {
                match self.attempt(&subject, &headers, payload.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(unknown) => perhaps |= unknown,
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(if perhaps {
            NotRevoked::Unknown("the control log has not acknowledged it")
        } else {
            NotRevoked::NotStored("the control log cannot be written")
        })
    }

    /// One attempt; the error says whether it may have been stored.
    async fn attempt(&self, subject: &str, headers: &HeaderMap, payload: Vec<u8>) -> Result<(), bool> {
        let context = self.nats.jetstream();
        let attempt = async {
            let sent = context.publish_with_headers(subject.to_owned(), headers.clone(), payload.into());
            sent.await?.await
        };
        match tokio::time::timeout(self.nats.config().request_timeout, attempt).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the control log did not take a record");
                Err(matches!(
                    error.kind(),
                    PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe
                ))
            }
            Err(_) => Err(true),
        }
    }

    /// Takes a lease once per interval until `stop`.
    pub(super) async fn renew(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.config.renew_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = 0_u64;
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            // What is kept for later while the connection is away would be an old lease.
            if !self.nats.control().is_connected() {
                continue;
            }
            let released = self.released.lock().await;
            if *released {
                return;
            }
            // The moment is taken before it is written: so the lease is never longer than it should be.
            let asked = self.ledger().ask(Instant::now());
            self.write_lease(asked).await;
            drop(released);
            turn += 1;
            if turn % FULL_CHECK_EVERY == 1 {
                self.check_full().await;
            }
        }
    }

    /// Tells the others that this node delivers nothing more. To be called when that is so.
    pub(super) async fn release(&self) {
        // Nothing that was asked for before may come after it.
        let mut is_released = self.released.lock().await;
        *is_released = true;
        let released = self.ledger().release();
        let (subject, payload) = self.written(released);
        let jetstream = self.nats.jetstream();
        // Acknowledged, so that a withdrawal that is begun after this finds it.
        let storing = async { jetstream.publish(subject, payload).await?.await };
        if !matches!(
            tokio::time::timeout(self.config.renew_interval, storing).await,
            Ok(Ok(_))
        ) {
            tracing::debug!("the lease could not be given back; it runs out");
        }
    }

    /// A lease as a record of the log, and its subject.
    fn written(&self, lease: LeaseTaken) -> (String, Bytes) {
        let kind = format!("l.{:016x}", lease.holder.incarnation);
        let subject = self.nats.subjects().command(&kind);
        (subject, record::encode(&Record::Lease(lease)).into())
    }

    /// Not acknowledged: that it is read back says more.
    async fn write_lease(&self, lease: LeaseTaken) {
        let (subject, payload) = self.written(lease);
        let publishing = async {
            let order = self.nats.control().in_order().await;
            order.client().publish(subject, payload).await
        };
        if !matches!(
            tokio::time::timeout(self.config.renew_interval, publishing).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("a lease could not be asked for");
        }
    }

    async fn check_full(&self) {
        let Ok(mut stream) = self.nats.jetstream().get_stream(&self.stream).await else {
            return;
        };
        let Ok(info) = stream.info().await else { return };
        let is_full = info.state.bytes > self.config.log_bytes_max / 10 * 9;
        if is_full && !self.is_full.swap(is_full, Ordering::Relaxed) {
            tracing::error!("the control log is full, no access can be withdrawn");
        }
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Reads the log, and carries out what it says, until `stop`.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let following = async {
            loop {
                if let Err(error) = Box::pin(self.follow_once()).await {
                    tracing::warn!(%error, "the control log cannot be read");
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        stop.run_until_cancelled(following).await;
    }

    async fn follow_once(&self) -> Result<(), async_nats::Error> {
        let mut moves = self.nats.control().moves();
        loop {
            let mut messages = tokio::time::timeout(self.nats.config().request_timeout * 2, self.open()).await??;
            // The library finds gaps by the consumer's own sequence and starts anew behind the last message it has handed
            // out.
            loop {
                tokio::select! {
                    biased;
                    message = tokio::time::timeout(SILENCE_MAX, messages.next()) => match message? {
                        Some(message) => self.take(&message?).await?,
                        None => return Ok(()),
                    },
                    () = moves.next() => break,
                }
            }
        }
    }

    async fn open(&self) -> Result<push::Ordered, async_nats::Error> {
        // A server that kept it in memory alone may have forgotten it; no node would ever have a lease again.
        let stream = self.make().await?;
        let info = stream.cached_info();
        // Before the records: how old they are says whether they still hold.
        let newest = SystemTime::from(info.state.last_timestamp);
        self.nats.clock().has_passed(unix_ms(newest));
        let created = u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default();
        let from = {
            let mut ledger = self.ledger();
            if ledger.reopen(created, info.state.last_sequence) {
                tracing::error!(
                    "the control log is another one, or an older state of it: it is read from its beginning"
                );
            }
            ledger.read_up_to() + 1
        };
        let consumer = stream.create_consumer(push::OrderedConfig {
            deliver_subject: self.nats.control().client().new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ..push::OrderedConfig::default()
        });
        Ok(consumer.await?.messages().await?)
    }

    async fn take(&self, message: &Message) -> Result<(), async_nats::Error> {
        let info = message.info()?;
        let (sequence, stored_ms) = (info.stream_sequence, unix_ms(SystemTime::from(info.published)));
        self.nats.clock().has_passed(stored_ms);
        let Some(record) = record::decode(&message.payload) else {
            self.ignored.count("record");
            self.ledger().skip(sequence);
            self.reading.send_replace(sequence);
            return Ok(());
        };
        let step = self.ledger().read(sequence, stored_ms, record);
        match step {
            Step::Nothing => {}
            Step::Renewed(asked, length) => {
                self.lease.renew(asked, length);
                // Not one that lay about while this process was stopped.
                if asked.elapsed() < self.config.renew_interval {
                    self.nats.clock().stands_at(stored_ms);
                }
            }
            Step::Withdraw(withdrawal) => self.withdraw(stored_ms, withdrawal).await?,
        }
        self.reading.send_replace(self.ledger().read_up_to());
        Ok(())
    }

    /// The policy is told first: whoever joins from here on is refused, and whoever is in already is taken out next.
    #[tracing::instrument(level = "debug", name = "cluster.withdraw", skip_all)]
    async fn withdraw(&self, stored_ms: u64, withdrawal: Withdrawal) -> Result<(), async_nats::Error> {
        let age = Duration::from_millis(self.nats.clock().now_ms().saturating_sub(stored_ms));
        let left = withdrawal.ttl.saturating_sub(age);
        if !left.is_zero() {
            self.policy.revoke(withdrawal.revocation.clone(), left);
        }
        let memberships = self.shards.revoke(&withdrawal.revocation, &withdrawal.notice).await?;
        self.counted().add(withdrawal.id, memberships);
        if let Some(told) = self.expected().remove(&withdrawal.id) {
            let holders = self.ledger().holders_at(stored_ms);
            // Whoever asked may have gone.
            let _ = told.send(ReadBack { memberships, holders });
        }
        Ok(())
    }
}

/// A withdrawal that will be read back.
pub(super) struct Expected<'a> {
    log: &'a Log,
    id: u128,
    read_back: oneshot::Receiver<ReadBack>,
}

impl Expected<'_> {
    /// What it came to here. Waits for ever while the log cannot be read.
    pub(super) async fn read_back(&mut self) -> ReadBack {
        match (&mut self.read_back).await {
            Ok(read_back) => read_back,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.log.expected().remove(&self.id);
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
