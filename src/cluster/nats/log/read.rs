//! Reading the control log, and carrying out what it says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, push};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::super::record;
use super::{AGAIN, Log, ReadBack};
use crate::cluster::inventory::ReadFrom;
use crate::cluster::ledger::{LeaseTaken, Operation, Record, Restoration, WRITTEN_BACK, Withdrawal};
use crate::event::Timestamp;
use crate::nats::nodes::Node;
use crate::policy::RevocationEffect as Effect;
use crate::sync::lock;
use crate::units::unix_millis;

/// The node's own leases come once a second: when nothing has come for so long, the log is opened anew.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A consumer that reads in order.
type Ordered = Consumer<push::OrderedConfig>;

/// Messages of one consumer, which tells gaps in them.
struct Reader {
    messages: push::Ordered,
    consumer: String,
}

impl Log {
    /// Reads the log, and carries out what it says, until `stop`.
    pub(in super::super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let following = async {
            // It is tried several times a second: each reason is worth one line.
            let mut reported = String::new();
            loop {
                if let Err(error) = Box::pin(self.follow_once()).await
                    && error.to_string() != reported
                {
                    tracing::warn!(%error, "control log read failed");
                    reported = error.to_string();
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        stop.run_until_cancelled(following).await;
    }

    async fn follow_once(&self) -> Result<(), async_nats::Error> {
        let mut moves = self.nats.control().moves();
        loop {
            let mut reader = tokio::time::timeout(self.nats.config().request_timeout * 2, self.open()).await??;
            self.look_whether_read();
            loop {
                tokio::select! {
                    // Records that have come are applied before the log is opened anew: a revocation must not wait for that.
                    biased;
                    message = tokio::time::timeout(SILENCE_MAX, reader.messages.next()) => {
                        let Some(message) = message? else { return Ok(()) };
                        let message = message?;
                        // After a break the library goes on behind the last sequence. That the log is still the same
                        // one is to be asked first.
                        if message.info()?.consumer != reader.consumer {
                            break;
                        }
                        self.take(&message).await?;
                        self.look_whether_read();
                    }
                    () = moves.next() => break,
                    () = self.suspect.notified() => break,
                }
            }
        }
    }

    async fn open(&self) -> Result<Reader, async_nats::Error> {
        // A server that kept it in memory alone may have forgotten it; no node would ever have a lease again.
        let mut stream = self.make().await?;
        let info = stream.info().await?;
        let condition = Self::condition_of(info);
        let difference = self.config.clock_difference_max;
        let (from, is_lost) = self.inventory().open(condition, difference, self.aged_ms());
        if is_lost {
            // What it says now may be less than what the others know.
            *lock(&self.agreed) = None;
            tracing::error!("control log lost records, restoring them");
        }
        let consumer = match from {
            ReadFrom::Beginning => self.consume(&stream, DeliverPolicy::All).await?,
            ReadFrom::Moment(ms) => self.consume_from(&stream, ms).await?,
        };
        Ok(Reader {
            consumer: consumer.cached_info().name.clone(),
            messages: consumer.messages().await?,
        })
    }

    /// Reads on from a moment, and at any rate from behind the last record that was read: a server's clock may have been set
    /// back.
    async fn consume_from(&self, stream: &Stream, ms: u64) -> Result<Ordered, async_nats::Error> {
        let start_time = (SystemTime::UNIX_EPOCH + Duration::from_millis(ms)).into();
        let consumer = self.consume(stream, DeliverPolicy::ByStartTime { start_time }).await?;
        let read = self.inventory().read_up_to();
        if consumer.cached_info().delivered.stream_sequence <= read {
            return Ok(consumer);
        }
        let start_sequence = read + 1;
        self.consume(stream, DeliverPolicy::ByStartSequence { start_sequence })
            .await
    }

    async fn consume(&self, stream: &Stream, deliver_policy: DeliverPolicy) -> Result<Ordered, async_nats::Error> {
        let consumer = stream.create_consumer(push::OrderedConfig {
            deliver_subject: self.nats.control().client().new_inbox(),
            deliver_policy,
            ..push::OrderedConfig::default()
        });
        let consumer = consumer.await?;
        // Before the records: how old they are says whether they still hold. It was made just now, by a server's clock.
        let made = unix_millis(SystemTime::from(consumer.cached_info().created));
        self.nats.clock().has_passed(made);
        Ok(consumer)
    }

    async fn take(&self, message: &Message) -> Result<(), async_nats::Error> {
        let info = message.info()?;
        let (sequence, stored_ms) = (info.stream_sequence, unix_millis(SystemTime::from(info.published)));
        self.nats.clock().has_passed(stored_ms);
        if self.inventory().has(&message.subject, sequence, stored_ms) {
            // Read on from a moment before the break.
            return Ok(());
        }
        match record::decode(&message.payload) {
            None => self.ignored.count("record"),
            Some(Record::Lease(lease)) => {
                self.tell_nodes(&lease, stored_ms);
                let renewed = self.ledger().take(stored_ms, lease);
                if let Some((asked, length)) = renewed {
                    self.renewed(asked, length, stored_ms);
                }
            }
            Some(Record::Withdraw(withdrawal)) => self.withdraw(stored_ms, withdrawal).await?,
            Some(Record::Restore(restoration)) => self.restore(stored_ms, &restoration),
            Some(Record::Succeed(succession)) => self.ledger().succeed(succession),
        }
        self.inventory().take(&message.subject, sequence, stored_ms);
        self.reading.send_replace(sequence);
        Ok(())
    }

    /// Records in the node list that a node may deliver, for as long as a revocation would wait for it: counts of connections
    /// depend on it.
    fn tell_nodes(&self, lease: &LeaseTaken, stored_ms: u64) {
        let holder = &lease.holder;
        if lease.released {
            return self.nodes.lease_released(holder.incarnation);
        }
        let age = Duration::from_millis(self.now().0.saturating_sub(stored_ms));
        let left = (holder.lease + self.config.lease_margin).saturating_sub(age);
        if !left.is_zero() {
            let node = Node {
                id: Arc::clone(&holder.id),
                incarnation: holder.incarnation,
            };
            self.nodes.lease_taken(&node, left);
        }
    }

    /// The node's own lease was read back: everything before it is carried out.
    fn renewed(&self, asked: Instant, length: Duration, stored_ms: u64) {
        let is_agreed = lock(&self.agreed).is_some_and(|agreed| asked >= agreed);
        if is_agreed {
            self.lease.renew(asked, length);
        }
        // Not one that lay about while this process was stopped.
        if asked.elapsed() < self.config.renew_interval {
            self.nats.clock().stands_at(stored_ms);
        }
    }

    /// The policy is told first: whoever joins from here on is refused, and whoever is in already is taken out next.
    #[tracing::instrument(level = "debug", name = "cluster.withdraw", skip_all)]
    async fn withdraw(&self, stored_ms: u64, withdrawal: Withdrawal) -> Result<(), async_nats::Error> {
        let operation = withdrawal.operation;
        let entry = Arc::new(withdrawal.entry(Timestamp(stored_ms)));
        let left = entry.left(self.now());
        let effect = match left.is_zero() {
            // A node that was away for longer has still to end what was joined before. An older copy of the log that came
            // back says nothing new.
            true if self.was_carried_out(operation, stored_ms) => Effect::Continues,
            true => Effect::Begins,
            false => self.policy.revoke(&entry, left),
        };
        let has_members = self.has_served.load(Ordering::Acquire);
        let memberships = if effect == Effect::Begins && has_members {
            self.shards.revoke(&entry.revocation, &entry.notice).await?
        } else {
            0
        };
        self.done(operation, stored_ms, memberships, effect == Effect::Restored);
        Ok(())
    }

    fn was_carried_out(&self, operation: Operation, stored_ms: u64) -> bool {
        let difference = self.config.clock_difference_max;
        lock(&self.counted).of(operation).is_some() || self.inventory().was_read(stored_ms, difference)
    }

    fn restore(&self, stored_ms: u64, restoration: &Restoration) {
        let Restoration {
            operation,
            tenant,
            id,
            expires,
        } = restoration;
        let left = Duration::from_millis(expires.0.saturating_sub(self.now().0));
        if !left.is_zero() {
            self.policy.restore(tenant, *id, *expires, left);
        }
        self.done(*operation, stored_ms, 0, false);
    }

    /// An operation is carried out here.
    fn done(&self, operation: Operation, stored_ms: u64, memberships: u32, in_vain: bool) {
        if operation == WRITTEN_BACK {
            return;
        }
        lock(&self.counted).add(operation, memberships);
        if let Some(told) = lock(&self.expected).remove(&operation) {
            let holders = self.ledger().holders_at(stored_ms);
            // Whoever asked may have gone.
            let _ = told.send(ReadBack {
                memberships,
                holders,
                in_vain,
            });
        }
    }
}
