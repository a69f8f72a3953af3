//! The other nodes, asked over NATS.
//!
//! Orders are core messages to all nodes or to one; each node answers into the asker's inbox. A message may be lost, so an
//! order goes out again until it is answered, and is carried out once. Withdrawals of access go through the control log, a
//! stream that every node reads from its beginning: see [`super::ledger`] for what a node may conclude from it. A
//! confirmation is only the quick way to be done.
//!
//! What cannot be read is counted and passed over.

mod access;
mod ask_book;
mod ask_wire;
mod asks;
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
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::ask_book::AskBook;
use self::inbox::{Asking, Inbox};
use self::log::{Log, Parts};
use self::memory::Memory;
use super::ledger::Holder;
use super::{AskScope, Asked, Carried, Config, Incarnation, NotDone, PeerOutcomes, Peers, Revoke, Revoked};
use crate::hub::{Ask, Order, Outcome, Shards};
use crate::lease::Lease;
use crate::nats::nodes::{self, Nodes};
use crate::nats::{Nats, NatsError, patiently};
use crate::policy::{Policy, RevocationId};
use crate::proto::node_v1::VerifyOrder;
use crate::proto::node_v1::node_order::Order as WireOrder;
use crate::room::Tenant;
use crate::sync::lock;

/// Time for which a start waits for the node's first lease: an election of the log's leader takes up to 9 s.
const FIRST_LEASE_MAX: Duration = Duration::from_secs(30);

/// Messages that were no orders, answers or records.
#[derive(Debug, Default)]
pub struct Ignored(AtomicU64);

impl Ignored {
    fn count(&self, what: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(what, "node message unreadable");
    }

    /// Returns their number.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The executor of other nodes' orders.
struct Node {
    nats: Arc<Nats>,
    own: nodes::Node,
    config: Config,
    shards: Shards,
    log: Arc<Log>,
    remembered: Mutex<Memory>,
    asks: Mutex<AskBook>,
    ignored: Arc<Ignored>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    fn asks(&self) -> MutexGuard<'_, AskBook> {
        lock(&self.asks)
    }

    fn remembered(&self) -> MutexGuard<'_, Memory> {
        lock(&self.remembered)
    }
}

/// The parts that a node brings into the cluster.
pub struct ClusterParts {
    /// Its connections to NATS.
    pub nats: Arc<Nats>,
    /// The other living nodes.
    pub nodes: Arc<Nodes>,
    /// Its connections to clients.
    pub shards: Shards,
    /// The policy that decides for them.
    pub policy: Arc<dyn Policy>,
    /// The lease its shards ask, [`Lease::lapsed`] until now.
    pub lease: Lease,
}

/// The other nodes, over NATS.
pub struct NatsPeers {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    config: Config,
    policy: Arc<dyn Policy>,
    inbox: Inbox,
    log: Arc<Log>,
    ignored: Arc<Ignored>,
}

/// Begins to join the cluster: obeys others from here on, and has read the control log when this returns. To be called
/// before other nodes are told that this one lives; [`NatsPeers::join`] follows after that.
///
/// # Errors
/// [`NatsError::Subscribe`] and [`NatsError::JetStream`].
pub async fn start(
    own: ClusterParts,
    config: Config,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<Arc<NatsPeers>, NatsError> {
    let ClusterParts {
        nats,
        nodes,
        shards,
        policy,
        lease,
    } = own;
    let (this, ignored) = (nodes.own().clone(), Arc::new(Ignored::default()));
    let log = Arc::new(Log::new(Parts {
        nats: Arc::clone(&nats),
        nodes: Arc::clone(&nodes),
        config,
        own: Holder {
            incarnation: this.incarnation,
            id: Arc::clone(&this.id),
            lease: nats.config().lease,
        },
        shards: shards.clone(),
        policy: Arc::clone(&policy),
        lease,
        ignored: Arc::clone(&ignored),
    }));
    // Its stream may be the last one that has a leader again.
    patiently(nats.config().start_timeout, async || log.make().await).await?;
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
        asks: Mutex::default(),
        ignored: Arc::clone(&ignored),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    tasks.spawn(obey::run(node, orders));
    tasks.spawn(Arc::clone(&log).follow(stop.clone()));
    tasks.spawn(Arc::clone(&log).renew(stop.clone()));
    tasks.spawn(Arc::clone(&log).watch(stop));
    first_lease(log.read()).await?;
    Ok(Arc::new(NatsPeers {
        nats,
        nodes,
        config,
        policy,
        inbox,
        log,
        ignored,
    }))
}

impl NatsPeers {
    /// Returns the count of unreadable messages.
    #[must_use]
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// The nodes that live: those heard, and those that have taken a lease as lately as that.
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

    /// The nodes whose answer is required: those that live, and those given up without a goodbye until their leases have
    /// ended. Such a node may only be stopped or cut off, and goes on with the connections it has.
    fn required(&self) -> BTreeMap<Incarnation, Arc<str>> {
        let mut required = self.live();
        let unheard = self.nodes.unheard().into_iter();
        required.extend(unheard.map(|node| (node.incarnation, node.id)));
        required
    }

    async fn ask_all(&self, scope: AskScope, order: &Order) -> PeerOutcomes {
        let mut silent = self.required();
        let subject = match scope {
            AskScope::All | AskScope::First => self.nats.subjects().all_nodes(),
            AskScope::Node(node) => {
                silent.retain(|incarnation, _| *incarnation == node);
                self.nats.subjects().node(node)
            }
        };
        let mut outcomes = Vec::new();
        if !silent.is_empty() {
            let mut asking = self.inbox.ask(subject, wire::order(order));
            let collecting = self.collect(&mut asking, scope, &mut silent, &mut outcomes);
            // Those who are missing then are named.
            let _ = tokio::time::timeout(self.config.answer_timeout, collecting).await;
        }
        PeerOutcomes {
            outcomes,
            silent: silent.into_values().collect(),
        }
    }

    async fn collect(
        &self,
        asking: &mut Asking<'_>,
        scope: AskScope,
        silent: &mut BTreeMap<Incarnation, Arc<str>>,
        outcomes: &mut Vec<(Incarnation, Outcome)>,
    ) {
        while !silent.is_empty() {
            let (from, answer) = asking.next().await;
            let Some(outcome) = wire::outcome(answer) else {
                self.ignored.count("answer");
                continue;
            };
            if outcomes.iter().any(|(node, _)| *node == from) {
                continue;
            }
            let is_enough = scope == AskScope::First && outcome.is_hit();
            silent.remove(&from);
            outcomes.push((from, outcome));
            if is_enough {
                return;
            }
        }
    }

    /// Takes leases from here on, once the others have written back what the control log may have lost. To be called when
    /// this node is heard by the others and hears them.
    ///
    /// # Errors
    /// [`NatsError::JetStream`] when there is no lease in time.
    pub async fn join(self: &Arc<Self>, tasks: &TaskTracker, stop: CancellationToken) -> Result<(), NatsError> {
        tasks.spawn(Arc::clone(self).keep_whole(stop));
        first_lease(self.log.held()).await
    }

    /// After each reading of the log from its beginning: writes back what is missing, then has the others do so.
    async fn keep_whole(self: Arc<Self>, stop: CancellationToken) {
        let mut readings = self.log.readings();
        let keeping = async {
            loop {
                let reading = *readings.borrow_and_update();
                if reading.read > 0 {
                    self.log.settle(reading).await;
                    self.ask_to_verify().await;
                    self.log.agree(reading);
                }
                if readings.wait_for(|now| now.read != reading.read).await.is_err() {
                    return;
                }
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    /// Returns when every node that lives has made sure that the log holds what it knows. One that does not answer in time
    /// is not waited for: it may have ended.
    async fn ask_to_verify(&self) {
        let mut silent = self.live();
        if silent.is_empty() {
            return;
        }
        let order = WireOrder::Verify(VerifyOrder {});
        let mut asking = self.inbox.ask(self.nats.subjects().all_nodes(), order);
        let asked = async {
            while !silent.is_empty() {
                let (from, _) = asking.next().await;
                silent.remove(&from);
            }
        };
        if tokio::time::timeout(self.config.answer_timeout, asked).await.is_err() {
            tracing::warn!(
                nodes = silent.len(),
                "control log check incomplete, nodes did not answer"
            );
        }
    }
}

/// Waits for the node's first lease.
async fn first_lease(lease: impl Future<Output = ()>) -> Result<(), NatsError> {
    let in_time = tokio::time::timeout(FIRST_LEASE_MAX, lease).await;
    in_time.map_err(|_| NatsError::JetStream("the control log could not be read in time".to_owned()))
}

impl Peers for NatsPeers {
    fn ask(&self, scope: AskScope, order: Arc<Order>) -> BoxFuture<'_, PeerOutcomes> {
        let span = tracing::debug_span!("cluster.ask");
        Box::pin(async move { self.ask_all(scope, &order).await }.instrument(span))
    }

    fn ask_connection(&self, node: Incarnation, ask: Arc<Ask>, deadline: Instant) -> BoxFuture<'_, Asked> {
        let span = tracing::debug_span!("cluster.ask_connection");
        Box::pin(async move { self.ask_there(node, &ask, deadline).await }.instrument(span))
    }

    fn revoke(&self, revoke: Revoke) -> BoxFuture<'_, Result<Revoked, NotDone>> {
        let span = tracing::debug_span!("cluster.revoke");
        Box::pin(self.withdraw(revoke).instrument(span))
    }

    fn restore(&self, tenant: Tenant, id: RevocationId) -> BoxFuture<'_, Result<Carried, NotDone>> {
        let span = tracing::debug_span!("cluster.restore");
        Box::pin(self.give_back(tenant, id).instrument(span))
    }

    fn is_current(&self) -> bool {
        self.log.is_current()
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.log.release())
    }
}
