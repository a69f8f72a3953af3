//! Asks: one connection is asked, wherever it is, and its answer comes back.
//!
//! # Contract
//! - A connection is asked at most once by one call.
//! - An ask that has ended with [`Asked::NotFound`], [`Asked::Refused`] or an error of the call has reached no client.
//!   Everything else says whether it was delivered, as far as that is known.
//! - An answer that comes after the deadline is ignored.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{AskScope, Cluster, ClusterError, Place, there};
use crate::hub::{Ask, AskEnd, AskRefusal, AskStart, Audience, Verb};

/// The delivery of an ask to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It was not handed to the connection.
    No,
    /// It was: the client has it, or will have it, if the connection lasts.
    Yes,
    /// It may have been.
    Unknown,
}

impl Delivered {
    /// Returns the word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "false",
            Self::Yes => "true",
            Self::Unknown => "unknown",
        }
    }
}

/// The outcome of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// No node has the connection.
    NotFound,
    /// The connection was not asked.
    Refused(AskRefusal),
    /// The client has answered, or its connection has ended.
    Ended(AskEnd),
    /// There was no answer in time.
    TimedOut(Delivered),
    /// The node of the connection does not answer, or has forgotten the ask.
    Silent(Delivered),
}

impl Cluster {
    /// Asks a connection and waits for its answer until `deadline`. This node is asked first, then the others.
    ///
    /// # Errors
    /// Every variant of [`ClusterError`]; nothing was asked then.
    ///
    /// # Cancel safety
    /// An ask whose future is dropped is withdrawn on this node; on another one it waits until its deadline.
    pub async fn ask(&self, ask: Ask, deadline: Instant) -> Result<Asked, ClusterError> {
        let ask = Arc::new(ask);
        match self.shards.start_ask(Arc::clone(&ask)).await? {
            AskStart::Refused(refusal) => return Ok(Asked::Refused(refusal)),
            AskStart::Delivered(ended) => return Ok(end(ended, deadline).await),
            AskStart::NotHere => {}
        }
        let audience = Audience::Connection(ask.tenant.clone(), ask.connection);
        let looking = self
            .peers
            .ask(AskScope::First, Arc::new(audience.order(Verb::Identify)));
        let Ok(looked) = timeout_at(deadline, looking).await else {
            return Ok(Asked::TimedOut(Delivered::No));
        };
        let found = there(looked, true)?.into_iter().find(|(_, outcome)| outcome.is_hit());
        match found {
            Some((Place::There(node), _)) => Ok(self.peers.ask_connection(node, ask, deadline).await),
            Some((Place::Here, _)) | None => Ok(Asked::NotFound),
        }
    }
}

/// Waits for the end of an ask on this node.
async fn end(ended: oneshot::Receiver<AskEnd>, deadline: Instant) -> Asked {
    match timeout_at(deadline, ended).await {
        // A shard that has ended takes its connections along.
        Ok(end) => Asked::Ended(end.unwrap_or(AskEnd::Lost)),
        Err(_) => Asked::TimedOut(Delivered::Yes),
    }
}
