//! All shards of the node, as the API sees them: an order goes to every shard, and the answers are added up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Audience, Joined, Mailbox, Order};
use crate::error::CloseReason;
use crate::event::Event;
use crate::identity::Identity;
use crate::notice::Notice;
use crate::policy::{Permit, Revocation};
use crate::room::Room;

/// A shard has ended: the node is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is shutting down")]
pub struct ShardsGone;

/// The node's shards. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    mailboxes: Arc<[Arc<Mailbox>]>,
}

impl Shards {
    /// The node's shards, by their mailboxes.
    #[must_use]
    pub fn new(mailboxes: Vec<Arc<Mailbox>>) -> Self {
        Self {
            mailboxes: mailboxes.into(),
        }
    }

    /// The mailboxes, in the order of the shards' numbers.
    #[must_use]
    pub fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    /// Puts connections into the permit's room, as a backend's decision.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn join(&self, audience: &Audience, permit: &Permit) -> Result<Joined, ShardsGone> {
        let answers = self
            .ask(|reply| Order::Join(audience.clone(), permit.clone(), reply))
            .await?;
        Ok(answers.into_iter().fold(Joined::default(), Joined::and))
    }

    /// Takes connections out of a room; answers how many were in it.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn leave(&self, audience: &Audience, room: &Room, notice: &Notice) -> Result<u32, ShardsGone> {
        self.count(|reply| Order::Leave(audience.clone(), room.clone(), notice.clone(), reply))
            .await
    }

    /// Closes connections, and gives their clients the notice; answers how many.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn disconnect(
        &self,
        audience: &Audience,
        reason: CloseReason,
        notice: &Notice,
    ) -> Result<u32, ShardsGone> {
        self.count(|reply| Order::Disconnect(audience.clone(), reason, notice.clone(), reply))
            .await
    }

    /// Takes sessions out of the rooms the revocation covers; answers how many memberships ended. Once this returns, no
    /// later event of those rooms reaches them on this node. New joins are the policy's to refuse: revoke there
    /// first.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn revoke(&self, revocation: &Revocation, notice: &Notice) -> Result<u32, ShardsGone> {
        self.count(|reply| Order::Revoke(revocation.clone(), notice.clone(), reply))
            .await
    }

    /// Hands an event without a position to connections, whatever rooms they are in; answers how many.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn send(&self, audience: &Audience, event: Arc<Event>) -> Result<u32, ShardsGone> {
        self.count(|reply| Order::Send(audience.clone(), event.clone(), reply))
            .await
    }

    /// How many of these connections are open on this node.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn connections(&self, audience: &Audience) -> Result<u32, ShardsGone> {
        self.count(|reply| Order::Count(audience.clone(), reply)).await
    }

    /// Who a connection is; `None` when the node has no such connection.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn identify(&self, audience: &Audience) -> Result<Option<Arc<Identity>>, ShardsGone> {
        let answers = self.ask(|reply| Order::Identify(audience.clone(), reply)).await?;
        Ok(answers.into_iter().flatten().next())
    }

    /// Tells every client whether deliveries are interrupted behind the node.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn degraded(&self, active: bool) -> Result<(), ShardsGone> {
        self.tell(|| Order::Degraded(active)).await
    }

    /// Tells every client to reconnect elsewhere and closes it, spread over `window`.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn drain(&self, window: Duration) -> Result<(), ShardsGone> {
        self.tell(|| Order::Drain(window)).await
    }

    async fn tell(&self, order: impl Fn() -> Order) -> Result<(), ShardsGone> {
        let told = join_all(self.mailboxes.iter().map(|mailbox| mailbox.order(order()))).await;
        if told.into_iter().all(|told| told) {
            Ok(())
        } else {
            Err(ShardsGone)
        }
    }

    async fn count(&self, order: impl Fn(oneshot::Sender<u32>) -> Order) -> Result<u32, ShardsGone> {
        Ok(self.ask(order).await?.into_iter().sum())
    }

    async fn ask<T>(&self, order: impl Fn(oneshot::Sender<T>) -> Order) -> Result<Vec<T>, ShardsGone> {
        let answers = self.mailboxes.iter().map(|mailbox| {
            let (reply, answer) = oneshot::channel();
            let order = order(reply);
            async move {
                mailbox.order(order).await;
                answer.await.map_err(|_| ShardsGone)
            }
        });
        join_all(answers).await.into_iter().collect()
    }
}
