//! Requests of clients that reach a node which does not serve the client: relayed to the node that does, and its answer back.
//!
//! [`Relay`] is the port; [`mod@nats`] is its adapter. What a request means is the matter of its two ends: here it is bytes.
//!
//! # Contract
//! - A request is carried out at most once. After [`NotRelayed::NoNode`] it was not, after [`NotRelayed::Failed`] it may have been.
//! - An answer arrives whole or not at all. A connection to NATS that breaks on the asking side fails every request under way; one that
//!   breaks on the other side loses no answer.
//! - A node that has ended fails the requests to it, and ends the wait for the answers that it asked for ([`Relayed::answer`]).
//! - What one node sends to another arrives in order, unless it is repeated.

pub mod nats;
mod parts;

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

/// Bounds of what is relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The most requests that wait for an answer of other nodes, and the most of others that wait here.
    pub in_flight_max: usize,
    /// The largest request and the largest answer, in bytes.
    pub message_bytes_max: usize,
}

/// The reason why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRelayed {
    /// The node is unknown, or has ended. Nothing was carried out.
    #[error("no such node")]
    NoNode,
    /// The request or its answer was lost, or there are too many under way. It may have been carried out.
    #[error("request not relayed")]
    Failed,
}

/// The way to other nodes.
pub trait Relay: fmt::Debug + Send + Sync + 'static {
    /// Relays a request to a node, by its incarnation, and returns the answer. Has no deadline: its caller has one.
    ///
    /// # Errors
    /// Every variant of [`NotRelayed`].
    fn ask(&self, node: u64, request: Bytes) -> BoxFuture<'_, Result<Bytes, NotRelayed>>;

    /// Relays a message that may arrive more than once, and whose answer does not matter. It is repeated until it has arrived, for a
    /// minute at most.
    fn tell(&self, node: u64, message: Bytes);
}

/// A request of another node.
#[derive(Debug)]
pub struct Relayed {
    /// The request.
    pub request: Bytes,
    /// The destination of its answer. Closed once nobody waits for it any more; dropped, it refuses the request.
    pub answer: oneshot::Sender<Bytes>,
}
