//! The other nodes, asked over NATS.
//!
//! Orders are core messages to all nodes or to one; each node answers into the asker's inbox. A message may be lost, so an
//! order goes out again until it is answered, and is carried out once. Withdrawals of access go through the control log, a
//! stream that every node reads from its beginning: see [`super::ledger`] for what a node may conclude from it. A
//! confirmation is only the quick way to be done.
//!
//! What cannot be read is counted and passed over.

mod counted;
mod inbox;
mod log;
mod memory;
mod obey;
mod record;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::inbox::{Asking, Inbox};
use self::log::{Log, Parts};
use self::memory::Memory;
use super::barrier::Barrier;
use super::ledger::{Holder, Withdrawal};
use super::{Asked, Command, Config, Incarnation, NotRevoked, Others, Revoked, To};
use crate::hub::Shards;
use crate::lease::Lease;
use crate::nats::nodes::{self, Nodes};
use crate::nats::{Nats, NatsError};
use crate::notice::Notice;
use crate::policy::{Policy, Revocation};
use crate::proto::node_v1::ConfirmOrder;
use crate::proto::node_v1::node_answer::Answer as WireAnswer;
use crate::proto::node_v1::node_order::Order as WireOrder;

/// How long a start waits for the node's first lease: an election of the log's leader takes up to 9 s.
const FIRST_LEASE_MAX: Duration = Duration::from_secs(30);

/// Messages that were no orders, answers or records.
#[derive(Debug, Default)]
pub struct Ignored(AtomicU64);

impl Ignored {
    fn count(&self, what: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(what, "a message of a node cannot be read");
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What obeys others.
struct Node {
    nats: Arc<Nats>,
    own: nodes::Node,
    config: Config,
    shards: Shards,
    log: Arc<Log>,
    remembered: Mutex<Memory>,
    ignored: Arc<Ignored>,
}

impl Node {
    fn remembered(&self) -> MutexGuard<'_, Memory> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node brings into the cluster.
pub struct Own {
    /// Its connections to NATS.
    pub nats: Arc<Nats>,
    /// Who else lives.
    pub nodes: Arc<Nodes>,
    /// Its connections to clients.
    pub shards: Shards,
    /// Who decides for them.
    pub policy: Arc<dyn Policy>,
    /// The lease its shards ask, [`Lease::lapsed`] until now.
    pub lease: Lease,
}

/// The other nodes, over NATS.
pub struct Cluster {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    config: Config,
    inbox: Inbox,
    log: Arc<Log>,
    ignored: Arc<Ignored>,
}

/// Joins the cluster: obeys others from here on, and has read the control log and taken a lease when this returns. To be
/// called before other nodes are told that this one lives.
///
/// # Errors
/// [`NatsError::Permission`] and [`NatsError::JetStream`].
pub async fn start(
    own: Own,
    config: Config,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<Arc<Cluster>, NatsError> {
    let Own {
        nats,
        nodes,
        shards,
        policy,
        lease,
    } = own;
    let (this, ignored) = (nodes.own().clone(), Arc::new(Ignored::default()));
    let log = Arc::new(Log::new(Parts {
        nats: Arc::clone(&nats),
        config,
        own: Holder {
            incarnation: this.incarnation,
            id: Arc::clone(&this.id),
            lease: nats.config().lease,
        },
        shards: shards.clone(),
        policy,
        lease: lease.clone(),
        ignored: Arc::clone(&ignored),
    }));
    log.make().await?;
    let (inbox, answers) = Inbox::open(Arc::clone(&nats), this.incarnation).await?;
    let orders = obey::listen(&nats, this.incarnation).await?;
    tasks.spawn(inbox::run(inbox.waiting(), answers, Arc::clone(&ignored), stop.clone()));
    let node = Arc::new(Node {
        nats: Arc::clone(&nats),
        own: this,
        config,
        shards,
        log: Arc::clone(&log),
        remembered: Mutex::new(Memory::new(config.remembered_max)),
        ignored: Arc::clone(&ignored),
    });
    tasks.spawn(obey::run(node, orders, tasks.clone(), stop.clone()));
    tasks.spawn(Arc::clone(&log).follow(stop.clone()));
    tasks.spawn(Arc::clone(&log).renew(stop));
    if tokio::time::timeout(FIRST_LEASE_MAX, lease.held()).await.is_err() {
        return Err(NatsError::JetStream(
            "the control log could not be read in time".to_owned(),
        ));
    }
    Ok(Arc::new(Cluster {
        nats,
        nodes,
        config,
        inbox,
        log,
        ignored,
    }))
}

impl Cluster {
    /// What could not be read.
    #[must_use]
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// Who has to answer: who is heard, and who has taken a lease as lately as that.
    fn live(&self) -> BTreeMap<Incarnation, Arc<str>> {
        let own = self.nodes.own().incarnation;
        let heard = self.nodes.live().into_iter().map(|node| (node.incarnation, node.id));
        let leased = self.log.lately(nodes::SILENCE_MAX).into_iter();
        let leased = leased.map(|holder| (holder.incarnation, holder.id));
        leased
            .chain(heard)
            .filter(|(incarnation, _)| *incarnation != own)
            .collect()
    }

    async fn ask_all(&self, to: To, command: Command) -> Asked {
        let mut silent = self.live();
        let subject = match to {
            To::All | To::First => self.nats.subjects().all_nodes(),
            To::Node(node) => {
                silent.retain(|incarnation, _| *incarnation == node);
                self.nats.subjects().node(node)
            }
        };
        let mut answers = Vec::new();
        if !silent.is_empty() {
            let mut asking = self.inbox.ask(subject, wire::order(&command));
            let collecting = self.collect(&mut asking, to, &mut silent, &mut answers);
            // Those who are missing then are named.
            let _ = tokio::time::timeout(self.config.answer_timeout, collecting).await;
        }
        Asked {
            answers,
            silent: silent.into_values().collect(),
        }
    }

    async fn collect(
        &self,
        asking: &mut Asking<'_>,
        to: To,
        silent: &mut BTreeMap<Incarnation, Arc<str>>,
        answers: &mut Vec<(Incarnation, super::Answer)>,
    ) {
        while !silent.is_empty() {
            let (from, answer) = asking.next().await;
            let Some(answer) = wire::answered(answer) else {
                self.ignored.count("answer");
                continue;
            };
            if answers.iter().any(|(node, _)| *node == from) {
                continue;
            }
            let is_enough = to == To::First && answer.is_hit();
            silent.remove(&from);
            answers.push((from, answer));
            if is_enough {
                return;
            }
        }
    }

    /// When the leases of these nodes have ended that were taken before a record that has just been read: counted from now,
    /// which is later than when that record was stored, by each node's own length.
    fn ends(&self, holders: Vec<Holder>) -> Vec<(Holder, Instant)> {
        let now = Instant::now();
        let end = |holder: Holder| {
            let end = now + holder.lease + self.config.lease_margin;
            (holder, end)
        };
        holders.into_iter().map(end).collect()
    }

    async fn withdraw(&self, revocation: Revocation, ttl: Duration, notice: Notice) -> Result<Revoked, NotRevoked> {
        let id = rand::random();
        let mut expected = self.log.expect(id);
        self.log
            .write(Withdrawal {
                id,
                revocation,
                ttl,
                notice,
            })
            .await?;
        let mut barrier = Barrier::new();
        let confirm = WireOrder::Confirm(ConfirmOrder {
            withdrawal: wire::id_bytes(id),
        });
        let mut asking = self.inbox.ask(self.nats.subjects().all_nodes(), confirm);
        let mut is_read = false;
        loop {
            if let Some(revoked) = barrier.outcome(Instant::now()) {
                return Ok(revoked);
            }
            tokio::select! {
                read_back = expected.read_back(), if !is_read => {
                    is_read = true;
                    barrier.confirm(self.nodes.own().incarnation, read_back.memberships);
                    barrier.read(self.ends(read_back.holders));
                }
                (from, answer) = asking.next() => {
                    if let WireAnswer::Confirmed(confirmed) = answer {
                        barrier.confirm(from, confirmed.memberships);
                    }
                }
                () = until(barrier.due()) => {}
            }
        }
    }
}

/// Waits until then; for ever when there is no such moment.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Others for Cluster {
    fn ask(&self, to: To, command: Command) -> BoxFuture<'_, Asked> {
        let span = tracing::debug_span!("cluster.ask");
        Box::pin(self.ask_all(to, command).instrument(span))
    }

    fn revoke(
        &self,
        revocation: Revocation,
        ttl: Duration,
        notice: Notice,
    ) -> BoxFuture<'_, Result<Revoked, NotRevoked>> {
        let span = tracing::debug_span!("cluster.revoke");
        Box::pin(self.withdraw(revocation, ttl, notice).instrument(span))
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.log.release())
    }
}
