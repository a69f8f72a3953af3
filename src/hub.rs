//! The hub: what connects the node's shards with the bus and with the API.
//!
//! A shard is one thread with the connections it serves. The bus delivers into each shard's [`Mailbox`]; a backend's
//! orders (join, disconnect, revoke) reach connections through [`Shards`]. The hub knows no socket, no codec and no token.

pub mod batch;
pub mod local;
mod shards;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::bus::{Delivery, Subscriber};
use crate::error::CloseReason;
use crate::event::Event;
use crate::identity::{ConnectionId, Identity, UserId};
use crate::notice::Notice;
use crate::policy::{Permit, Revocation};
use crate::position::Position;
use crate::presence::{Change, Observer};
use crate::room::{Room, Tenant};

pub use shards::{Shards, ShardsGone};

/// Whom an order is for. A connection is looked up within its tenant only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every connection of a user.
    User(Tenant, UserId),
    /// One connection.
    Connection(Tenant, ConnectionId),
}

/// Why a connection that a backend puts into a room is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRefusal {
    /// It is in as many rooms as it may be.
    RoomLimit,
    /// The user's access to the room was withdrawn.
    Revoked,
    /// Not possible now: the bus is away, another join is under way, or the node has no lease.
    Unavailable,
}

/// What putting connections into a room came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Joined {
    /// How many are in it now.
    pub connections: u32,
    /// Why another one is not, if there is one.
    pub refused: Option<JoinRefusal>,
}

impl Joined {
    /// Both taken together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            refused: self.refused.or(other.refused),
        }
    }
}

/// What a shard is told by the bus. In order, per room.
#[derive(Debug)]
pub enum Inbound {
    /// An event of a room.
    Event(Arc<Delivery>),
    /// A room's continuity is lost; it goes on at this position.
    Reset(Room, Position),
}

/// What a shard is told by the API or by presence. Each answer counts what it affected.
#[derive(Debug)]
pub enum Order {
    /// Put connections into a room.
    Join(Audience, Permit, oneshot::Sender<Joined>),
    /// Take connections out of a room.
    Leave(Audience, Room, Notice, oneshot::Sender<u32>),
    /// Close connections, with a notice for the client.
    Disconnect(Audience, CloseReason, Notice, oneshot::Sender<u32>),
    /// Take sessions out of rooms, with a notice for their clients; answered once nothing later can reach them there.
    Revoke(Revocation, Notice, oneshot::Sender<u32>),
    /// Hand an event to one connection.
    Send(Audience, Arc<Event>, oneshot::Sender<u32>),
    /// How many connections there are.
    Count(Audience, oneshot::Sender<u32>),
    /// Who a connection is.
    Identify(Audience, oneshot::Sender<Option<Arc<Identity>>>),
    /// The presence of a room changed.
    Presence(Arc<Change>),
    /// Tell every client whether deliveries are interrupted behind the node; whoever connects later, too.
    Degraded(bool),
    /// Tell every client to reconnect, then close it, spread over the window.
    Drain(std::time::Duration),
}

/// The way into one shard.
#[derive(Debug)]
pub struct Mailbox {
    shard: u16,
    inbound: mpsc::Sender<Inbound>,
    orders: mpsc::Sender<Order>,
}

/// The shard's end of its [`Mailbox`].
#[derive(Debug)]
pub struct Letters {
    /// From the bus.
    pub inbound: mpsc::Receiver<Inbound>,
    /// From the API and presence.
    pub orders: mpsc::Receiver<Order>,
}

impl Mailbox {
    /// Opens the mailbox of a shard. `inbound_max` must be at least the bus's bound on events in flight: the bus may not
    /// wait, so its queue must never be full.
    #[must_use]
    pub fn open(shard: u16, inbound_max: usize, orders_max: usize) -> (Arc<Self>, Letters) {
        let (inbound, inbound_end) = mpsc::channel(inbound_max);
        let (orders, orders_end) = mpsc::channel(orders_max);
        (
            Arc::new(Self { shard, inbound, orders }),
            Letters {
                inbound: inbound_end,
                orders: orders_end,
            },
        )
    }

    /// The shard's number.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        self.shard
    }

    fn post(&self, inbound: Inbound) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.inbound.try_send(inbound) {
            // Cannot happen while the bus keeps its bound; a loss here must not go unnoticed.
            tracing::error!(shard = self.shard, "shard mailbox overflowed");
            debug_assert!(false, "the bus exceeded its bound on events in flight");
        }
    }

    /// Gives an order; `false` when the shard has ended.
    pub async fn order(&self, order: Order) -> bool {
        self.orders.send(order).await.is_ok()
    }
}

impl Subscriber for Mailbox {
    fn id(&self) -> u16 {
        self.shard
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.post(Inbound::Event(delivery));
    }

    fn reset(&self, room: Room, head: Position) {
        self.post(Inbound::Reset(room, head));
    }
}

impl Observer for Mailbox {
    fn id(&self) -> u16 {
        self.shard
    }

    fn observe(&self, change: Arc<Change>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.order(Order::Presence(change)).await;
        })
    }
}
