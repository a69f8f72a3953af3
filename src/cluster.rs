//! Connections wherever they are: what a backend orders is carried out on this node and on the others.
//!
//! [`Cluster`] is what the API talks to: it carries an [`Order`] out on the node's [`Shards`] and on the other nodes, and adds
//! the outcomes. The other nodes are behind the port [`Peers`]: [`no_peers`] has none, [`mod@nats`] asks them over NATS. It knows no gRPC and no socket.
//!
//! # Contract
//! - An order reaches every node that lives, and every node that was given up without a goodbye and may still hold a lease:
//!   it may only be stopped or cut off, with its connections. Outcomes are added up. When one of these nodes has not answered
//!   in time, the order has perhaps been carried out there, and the caller is told so ([`ClusterError::Silent`]); all orders
//!   may be repeated. A node whose lease has ended counts as gone with its connections.
//! - A connection is on one node: the first node that has it answers for all.
//! - Orders are not ordered with events: an event published just before a leave may not reach who leaves.
//! - **Revoke is a barrier.** When it has returned, no event that is published later, no page of history, no recovery and
//!   no presence reaches those sessions in those rooms, on any node: each node has carried it out, or its [`Lease`] has run
//!   out and it delivers nothing before it has carried it out. See [`ledger`] for why. Restore is one as well: when it has
//!   returned, every node lets them in, or serves nobody before it does.
//! - What was withdrawn or given back stays so when the log that says it is lost, for as long as one node knows: see
//!   [`inventory`].
//!
//! [`Lease`]: crate::lease::Lease

mod access;
mod asks;
mod barrier;
mod config;
pub mod inventory;
pub mod ledger;
pub mod nats;
pub mod no_peers;
#[cfg(test)]
mod sim;

use std::sync::Arc;

use futures_util::future::{BoxFuture, join};
use tokio::time::Instant;

use crate::hub::{Ask, Audience, Order, Outcome, Shards, ShardsGone, Verb};
use crate::identity::Identity;
use crate::policy::RevocationId;
use crate::room::Tenant;

pub use access::{Carried, NotDone, Revoke, Revoked};
pub use asks::{Asked, Delivered};
pub use config::Config;

/// Names one process of the deployment.
pub type Incarnation = u64;

/// The nodes that are asked, and the answers that are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskScope {
    /// All; enough when all have answered.
    All,
    /// All; enough when one has a connection that was meant.
    First,
    /// One.
    Node(Incarnation),
}

/// The outcomes of an order on the other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerOutcomes {
    /// By node, what the order came to there.
    pub outcomes: Vec<(Incarnation, Outcome)>,
    /// Nodes whose answer is required and missing.
    pub silent: Vec<Arc<str>>,
}

/// The other nodes.
pub trait Peers: Send + Sync + 'static {
    /// Sends an order to the others, and waits for their outcomes for a bounded time.
    fn ask(&self, scope: AskScope, order: Arc<Order>) -> BoxFuture<'_, PeerOutcomes>;

    /// Asks a connection that was found on another node, and waits for its answer until `deadline`. Where there are no
    /// others there is none.
    fn ask_connection(&self, node: Incarnation, ask: Arc<Ask>, deadline: Instant) -> BoxFuture<'_, Asked> {
        let _ = (node, ask, deadline);
        Box::pin(std::future::ready(Asked::NotFound))
    }

    /// Withdraws access on every node, this one included. Returns when all have confirmed, or when those that have not
    /// can deliver nothing any more.
    fn revoke(&self, revoke: Revoke) -> BoxFuture<'_, Result<Revoked, NotDone>>;

    /// Takes a revocation back on every node, this one included. Returns when all have confirmed, or when those that have
    /// not serve nobody any more. One that was taken back already is taken back again.
    fn restore(&self, tenant: Tenant, id: RevocationId) -> BoxFuture<'_, Result<Carried, NotDone>>;

    /// Reports whether this node knows of every revocation that was answered.
    fn is_current(&self) -> bool {
        true
    }

    /// Tells them that this node delivers nothing more, so that nobody waits for it. To be called when its shards have
    /// ended, before the connections are closed. Where there are no others there is nothing to do.
    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Reason why an order was not carried out everywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// This node is shutting down.
    #[error(transparent)]
    Gone(#[from] ShardsGone),
    /// Nodes that live, or may go on, have not answered: perhaps it was carried out there.
    #[error("nodes have not answered: {}", .0.join(", "))]
    Silent(Vec<Arc<str>>),
}

/// Where a connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this node.
    Here,
    /// On another one.
    There(Incarnation),
}

/// A connection that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose it is.
    pub identity: Arc<Identity>,
    /// Where it is served.
    pub place: Place,
}

/// All connections of the deployment. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    shards: Shards,
    peers: Arc<dyn Peers>,
}

impl Cluster {
    /// The connections of this node's shards and of the others.
    #[must_use]
    pub fn new(shards: Shards, peers: Arc<dyn Peers>) -> Self {
        Self { shards, peers }
    }

    /// Carries an order out on every node, and adds the outcomes. For one connection, this node is asked first, and the
    /// first node that has it answers for all.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn order(&self, order: Order) -> Result<Outcome, ClusterError> {
        let outcomes = self.outcomes(order).await?.into_iter();
        Ok(outcomes.fold(Outcome::default(), |sum, (_, outcome)| sum.and(outcome)))
    }

    /// Carries an order out where its connection was found.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn order_at(&self, place: Place, order: Order) -> Result<Outcome, ClusterError> {
        let node = match place {
            Place::Here => return Ok(self.shards.order(order.into()).await?),
            Place::There(node) => node,
        };
        let asked = self.peers.ask(AskScope::Node(node), order.into()).await;
        let outcomes = there(asked, false)?.into_iter();
        Ok(outcomes.fold(Outcome::default(), |sum, (_, outcome)| sum.and(outcome)))
    }

    /// Finds a connection: its identity, and where it is served; `None` when no node has it.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn find(&self, audience: &Audience) -> Result<Option<Found>, ClusterError> {
        let outcomes = self.outcomes(audience.clone().order(Verb::Identify)).await?;
        Ok(outcomes.into_iter().find_map(|(place, outcome)| {
            let identity = outcome.identity?;
            Some(Found { identity, place })
        }))
    }

    /// Takes sessions out of the rooms the revocation covers, and refuses them there until it ends. See the module's
    /// contract for what holds when this returns.
    ///
    /// # Errors
    /// Every variant of [`NotDone`] but `NotFound`.
    pub async fn revoke(&self, revoke: Revoke) -> Result<Revoked, NotDone> {
        self.peers.revoke(revoke).await
    }

    /// Takes a revocation back. See the module's contract for what holds when this returns.
    ///
    /// # Errors
    /// Every variant of [`NotDone`] but `Limit`.
    pub async fn restore(&self, tenant: Tenant, id: RevocationId) -> Result<Carried, NotDone> {
        self.peers.restore(tenant, id).await
    }

    /// Refuses where this node may know less than others do.
    ///
    /// # Errors
    /// [`NotDone::Behind`].
    pub fn check_current(&self) -> Result<(), NotDone> {
        if self.peers.is_current() {
            Ok(())
        } else {
            Err(NotDone::Behind)
        }
    }

    async fn outcomes(&self, order: Order) -> Result<Vec<(Place, Outcome)>, ClusterError> {
        let order = Arc::new(order);
        if let Audience::Connection(..) = order.audience {
            let own = self.shards.order(Arc::clone(&order)).await?;
            if own.is_hit() {
                return Ok(vec![(Place::Here, own)]);
            }
            return there(self.peers.ask(AskScope::First, order).await, true);
        }
        let carrying_out = self.shards.order(Arc::clone(&order));
        let (own, peers) = join(carrying_out, self.peers.ask(AskScope::All, order)).await;
        let mut outcomes = there(peers, false)?;
        outcomes.push((Place::Here, own?));
        Ok(outcomes)
    }
}

/// The outcomes on the other nodes, unless one is missing that is needed.
fn there(asked: PeerOutcomes, one_is_enough: bool) -> Result<Vec<(Place, Outcome)>, ClusterError> {
    let found = one_is_enough && asked.outcomes.iter().any(|(_, outcome)| outcome.is_hit());
    if !found && !asked.silent.is_empty() {
        return Err(ClusterError::Silent(asked.silent));
    }
    let outcomes = asked.outcomes.into_iter();
    Ok(outcomes.map(|(node, outcome)| (Place::There(node), outcome)).collect())
}
