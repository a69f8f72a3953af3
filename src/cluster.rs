//! Connections wherever they are: what a backend orders is carried out on this node and on the others.
//!
//! [`Cluster`] is what the API talks to: the verbs of [`Shards`], over all nodes. The other nodes are behind the port
//! [`Peers`]: [`no_peers`] has none, [`mod@nats`] asks them over NATS. It knows no gRPC and no socket.
//!
//! # Contract
//! - An order reaches every node that lives, and every node that was given up without a goodbye and may still hold a lease:
//!   it may only be stopped or cut off, with its connections. Answers are added up. When one of these nodes has not answered
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

use crate::error::CloseReason;
use crate::event::Event;
use crate::hub::{Audience, Joined, Shards, ShardsGone};
use crate::identity::Identity;
use crate::notice::Notice;
use crate::policy::{Permit, RevocationId};
use crate::room::{Room, Tenant};

pub use access::{Carried, NotDone, Revoke, Revoked};
pub use config::Config;

/// Names one process of the deployment.
pub type Incarnation = u64;

/// What a node is ordered or asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Put connections into a room.
    Join(Audience, Permit),
    /// Take connections out of a room, with a notice for the client.
    Leave(Audience, Room, Notice),
    /// Close connections, with a notice for the client.
    Disconnect(Audience, CloseReason, Notice),
    /// Hand an event to connections.
    Send(Audience, Arc<Event>),
    /// How many connections there are.
    Count(Audience),
    /// Who a connection is.
    Identify(Audience),
}

impl Command {
    const fn audience(&self) -> &Audience {
        match self {
            Self::Join(audience, ..)
            | Self::Leave(audience, ..)
            | Self::Disconnect(audience, ..)
            | Self::Send(audience, _)
            | Self::Count(audience)
            | Self::Identify(audience) => audience,
        }
    }

    /// Carries it out on this node's shards.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn obey(&self, shards: &Shards) -> Result<Answer, ShardsGone> {
        Ok(match self {
            Self::Join(audience, permit) => Answer::Joined(shards.join(audience, permit).await?),
            Self::Leave(audience, room, notice) => Answer::Count(shards.leave(audience, room, notice).await?),
            Self::Disconnect(audience, reason, notice) => {
                Answer::Count(shards.disconnect(audience, *reason, notice).await?)
            }
            Self::Send(audience, event) => Answer::Count(shards.send(audience, Arc::clone(event)).await?),
            Self::Count(audience) => Answer::Count(shards.connections(audience).await?),
            Self::Identify(audience) => Answer::Identity(shards.identify(audience).await?),
        })
    }
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// How many connections were affected, or are there.
    Count(u32),
    /// What putting into a room came to.
    Joined(Joined),
    /// Who the connection is, if it is there.
    Identity(Option<Arc<Identity>>),
}

impl Answer {
    /// Whether the node has a connection that was meant.
    const fn is_hit(&self) -> bool {
        match self {
            Self::Count(count) => *count > 0,
            Self::Joined(joined) => joined.connections > 0 || joined.refused.is_some(),
            Self::Identity(identity) => identity.is_some(),
        }
    }

    const fn count(&self) -> u32 {
        match self {
            Self::Count(count) => *count,
            Self::Joined(joined) => joined.connections,
            Self::Identity(_) => 0,
        }
    }
}

/// Which of the others are asked, and when that is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskScope {
    /// All; enough when all have answered.
    All,
    /// All; enough when one has a connection that was meant.
    First,
    /// One.
    Node(Incarnation),
}

/// What the others have answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Who answered what.
    pub answers: Vec<(Incarnation, Answer)>,
    /// Nodes whose answer is required and missing.
    pub silent: Vec<Arc<str>>,
}

/// The other nodes.
pub trait Peers: Send + Sync + 'static {
    /// Orders something of the others, and waits for their answers for a bounded time.
    fn ask(&self, scope: AskScope, command: Command) -> BoxFuture<'_, Asked>;

    /// Withdraws access on every node, this one included. Returns when all have confirmed, or when those that have not
    /// can deliver nothing any more.
    fn revoke(&self, revoke: Revoke) -> BoxFuture<'_, Result<Revoked, NotDone>>;

    /// Takes a revocation back on every node, this one included. Returns when all have confirmed, or when those that have
    /// not serve nobody any more. One that was taken back already is taken back again.
    fn restore(&self, tenant: Tenant, id: RevocationId) -> BoxFuture<'_, Result<Carried, NotDone>>;

    /// Whether this node knows of every revocation that was answered.
    fn is_current(&self) -> bool {
        true
    }

    /// Tells them that this node delivers nothing more, so that nobody waits for it. To be called when its shards have
    /// ended, before the connections are closed. Where there are no others there is nothing to do.
    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Why an order was not carried out everywhere.
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

    /// Puts connections into the permit's room, as a backend's decision.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn join(&self, audience: &Audience, permit: &Permit) -> Result<Joined, ClusterError> {
        let answers = self.order(Command::Join(audience.clone(), permit.clone())).await?;
        let joined = answers.into_iter().filter_map(|(_, answer)| match answer {
            Answer::Joined(joined) => Some(joined),
            Answer::Count(_) | Answer::Identity(_) => None,
        });
        Ok(joined.fold(Joined::default(), Joined::and))
    }

    /// Takes connections out of a room; answers how many were in it.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn leave(&self, audience: &Audience, room: &Room, notice: &Notice) -> Result<u32, ClusterError> {
        self.count(Command::Leave(audience.clone(), room.clone(), notice.clone()))
            .await
    }

    /// Closes connections, and gives their clients the notice; answers how many.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn disconnect(
        &self,
        audience: &Audience,
        reason: CloseReason,
        notice: &Notice,
    ) -> Result<u32, ClusterError> {
        self.count(Command::Disconnect(audience.clone(), reason, notice.clone()))
            .await
    }

    /// Hands an event without a position to a connection that was found; answers how many it reached.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn send(&self, audience: &Audience, place: Place, event: Arc<Event>) -> Result<u32, ClusterError> {
        let command = Command::Send(audience.clone(), event);
        let answers = match place {
            Place::Here => vec![(Place::Here, command.obey(&self.shards).await?)],
            Place::There(node) => there(self.peers.ask(AskScope::Node(node), command).await, false)?,
        };
        Ok(answers.iter().map(|(_, answer)| answer.count()).sum())
    }

    /// How many of these connections are open.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn connections(&self, audience: &Audience) -> Result<u32, ClusterError> {
        self.count(Command::Count(audience.clone())).await
    }

    /// Who and where a connection is; `None` when no node has it.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`].
    pub async fn find(&self, audience: &Audience) -> Result<Option<Found>, ClusterError> {
        let answers = self.order(Command::Identify(audience.clone())).await?;
        Ok(answers.into_iter().find_map(|(place, answer)| match answer {
            Answer::Identity(Some(identity)) => Some(Found { identity, place }),
            Answer::Identity(None) | Answer::Count(_) | Answer::Joined(_) => None,
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

    async fn count(&self, command: Command) -> Result<u32, ClusterError> {
        let answers = self.order(command).await?;
        Ok(answers.iter().map(|(_, answer)| answer.count()).sum())
    }

    /// Carries an order out here and elsewhere. For one connection, this node is asked first.
    async fn order(&self, command: Command) -> Result<Vec<(Place, Answer)>, ClusterError> {
        if let Audience::Connection(..) = command.audience() {
            let own = command.obey(&self.shards).await?;
            if own.is_hit() {
                return Ok(vec![(Place::Here, own)]);
            }
            return there(self.peers.ask(AskScope::First, command).await, true);
        }
        let (own, peers) = join(
            command.obey(&self.shards),
            self.peers.ask(AskScope::All, command.clone()),
        )
        .await;
        let mut answers = there(peers, false)?;
        answers.push((Place::Here, own?));
        Ok(answers)
    }
}

/// The others' answers, unless one is missing that is needed.
fn there(asked: Asked, one_is_enough: bool) -> Result<Vec<(Place, Answer)>, ClusterError> {
    let found = one_is_enough && asked.answers.iter().any(|(_, answer)| answer.is_hit());
    if !found && !asked.silent.is_empty() {
        return Err(ClusterError::Silent(asked.silent));
    }
    let answers = asked.answers.into_iter();
    Ok(answers.map(|(node, answer)| (Place::There(node), answer)).collect())
}
