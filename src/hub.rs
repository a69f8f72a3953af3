//! The hub: what connects the node's shards with the bus and with the API.
//!
//! A shard is one thread with the connections it serves. The bus delivers into each shard's [`Mailbox`]; a backend's
//! orders (join, disconnect, revoke) reach connections through [`Shards`]. The hub knows no socket, no codec and no token.

mod ask;
mod order;
mod shards;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::bus::{Delivery, Subscriber};
use crate::counters::Counters;
use crate::notice::Notice;
use crate::policy::Revocation;
use crate::position::Position;
use crate::presence::{Change, Observer};
use crate::room::Room;

pub use ask::{Ask, AskEnd, AskRefusal, AskStart};
pub use order::{Audience, JoinRefusal, Order, Outcome, Verb};
pub use shards::{Shards, ShardsGone};

/// A delivery from the bus to a shard. In order, per room.
#[derive(Debug)]
pub enum Inbound {
    /// An event of a room.
    Event(Arc<Delivery>),
    /// A room's continuity is lost; it goes on at this position.
    Reset(Room, Position),
}

/// A message to a shard that is not from the bus.
#[derive(Debug)]
pub enum ShardMessage {
    /// An order to connections.
    Order(Arc<Order>, oneshot::Sender<Outcome>),
    /// An ask of one connection. Answered at once; its end has a way of its own.
    Ask(Arc<Ask>, oneshot::Sender<AskStart>),
    /// Takes sessions out of rooms, with a notice for their clients. Answered with the number of memberships that ended, once
    /// nothing later can reach them there.
    Revoke(Arc<Revocation>, Notice, oneshot::Sender<u32>),
    /// Ends the memberships that the rules in force do not allow. Answered with their number, once every session was looked
    /// at.
    Recheck(oneshot::Sender<u32>),
    /// Something that has happened; it has no answer.
    Signal(Signal),
}

/// Something that a shard is told and does not answer.
#[derive(Debug, Clone)]
pub enum Signal {
    /// The presence of a room changed.
    Presence(Arc<Change>),
    /// Deliveries are interrupted behind the node, or no longer. Every client is told; later ones when they connect.
    Degraded(bool),
    /// Every client is told to reconnect, and closed, spread over the window.
    Drain(Duration),
}

/// The way into one shard.
#[derive(Debug)]
pub struct Mailbox {
    shard: u16,
    counters: Counters,
    inbound: mpsc::Sender<Inbound>,
    messages: mpsc::Sender<ShardMessage>,
}

/// The shard's end of its [`Mailbox`].
#[derive(Debug)]
pub struct MailboxReceiver {
    /// From the bus.
    pub inbound: mpsc::Receiver<Inbound>,
    /// From the API and presence.
    pub messages: mpsc::Receiver<ShardMessage>,
}

impl Mailbox {
    /// Opens the mailbox of a shard. `inbound_max` must be at least the bus's bound on events in flight: the bus may not
    /// wait, so its queue must never be full. What the shard is handed counts in `counters`.
    #[must_use]
    pub fn open(
        shard: u16,
        inbound_max: usize,
        messages_max: usize,
        counters: Counters,
    ) -> (Arc<Self>, MailboxReceiver) {
        let (inbound, inbound_end) = mpsc::channel(inbound_max);
        let (messages, messages_end) = mpsc::channel(messages_max);
        (
            Arc::new(Self {
                shard,
                counters,
                inbound,
                messages,
            }),
            MailboxReceiver {
                inbound: inbound_end,
                messages: messages_end,
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

    /// Sends a message; `false` when the shard has ended.
    pub async fn send(&self, message: ShardMessage) -> bool {
        self.messages.send(message).await.is_ok()
    }
}

impl Subscriber for Mailbox {
    fn id(&self) -> u16 {
        self.shard
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        delivery.counted_in(&self.counters);
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
            self.send(ShardMessage::Signal(Signal::Presence(change))).await;
        })
    }
}
