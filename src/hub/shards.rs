//! All shards of the node, as the API sees them: an order goes to every shard, and the answers are added up.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Ask, AskStart, Mailbox, Order, Outcome, ShardMessage, Signal};
use crate::notice::Notice;
use crate::policy::Revocation;

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

    /// Carries an order out on every shard, and adds the outcomes.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn order(&self, order: Arc<Order>) -> Result<Outcome, ShardsGone> {
        let outcomes = self.ask(|reply| ShardMessage::Order(Arc::clone(&order), reply)).await?;
        Ok(outcomes.into_iter().fold(Outcome::default(), Outcome::and))
    }

    /// Asks a connection, if a shard of the node has it.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn start_ask(&self, ask: Arc<Ask>) -> Result<AskStart, ShardsGone> {
        let starts = self.ask(|reply| ShardMessage::Ask(Arc::clone(&ask), reply)).await?;
        let found = starts.into_iter().find(|start| !matches!(start, AskStart::NotHere));
        Ok(found.unwrap_or(AskStart::NotHere))
    }

    /// Takes sessions out of the rooms the revocation covers; returns how many memberships ended. Once this returns, no
    /// later event of those rooms reaches them on this node. New joins are the policy's to refuse: revoke there
    /// first.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn revoke(&self, revocation: &Revocation, notice: &Notice) -> Result<u32, ShardsGone> {
        let revocation = Arc::new(revocation.clone());
        let memberships = self
            .ask(|reply| ShardMessage::Revoke(Arc::clone(&revocation), notice.clone(), reply))
            .await?;
        Ok(memberships.into_iter().sum())
    }

    /// Ends the memberships that the rules in force do not allow; returns how many. Swap the policy's rules first.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn recheck(&self) -> Result<u32, ShardsGone> {
        Ok(self.ask(ShardMessage::Recheck).await?.into_iter().sum())
    }

    /// Sends a signal to every shard.
    ///
    /// # Errors
    /// [`ShardsGone`].
    pub async fn signal(&self, signal: &Signal) -> Result<(), ShardsGone> {
        let sending = self
            .mailboxes
            .iter()
            .map(|mailbox| mailbox.send(ShardMessage::Signal(signal.clone())));
        if join_all(sending).await.into_iter().all(|sent| sent) {
            Ok(())
        } else {
            Err(ShardsGone)
        }
    }

    async fn ask<T>(&self, message: impl Fn(oneshot::Sender<T>) -> ShardMessage) -> Result<Vec<T>, ShardsGone> {
        let answers = self.mailboxes.iter().map(|mailbox| {
            let (reply, answer) = oneshot::channel();
            let message = message(reply);
            async move {
                mailbox.send(message).await;
                answer.await.map_err(|_| ShardsGone)
            }
        });
        join_all(answers).await.into_iter().collect()
    }
}
