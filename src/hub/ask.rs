//! An ask: one question of a backend to one connection, and its course. No order: it has two answers, and the second one
//! takes as long as a client thinks.

use tokio::sync::oneshot;

use crate::event::{EventName, Payload};
use crate::identity::ConnectionId;
use crate::notice::Notice;
use crate::room::Tenant;

/// A question to one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The tenant, within which the connection is looked up.
    pub tenant: Tenant,
    /// The connection.
    pub connection: ConnectionId,
    /// The method, which a Socket.IO client sees as an event.
    pub method: EventName,
    /// The content.
    pub payload: Payload,
}

/// Reason why a connection was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskRefusal {
    /// Its client speaks a protocol without answers, or has not said that it answers.
    CannotAnswer,
    /// As many asks as it may have wait for its answer.
    TooMany,
    /// Not possible now: it is not open yet, its access is withdrawn, or the node has no lease or drains.
    Unavailable,
}

/// The end of an ask that was handed to its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskEnd {
    /// The client's answer.
    Answered(Payload),
    /// The client's refusal.
    Error(Notice),
    /// The client's answer cannot be relayed: it is too large, or no payload.
    Unreadable,
    /// The connection ended, or its access was withdrawn, before it answered.
    Lost,
}

/// The beginning of an ask on one shard.
#[derive(Debug)]
pub enum AskStart {
    /// The shard has no such connection.
    NotHere,
    /// The connection was not asked.
    Refused(AskRefusal),
    /// The ask was handed to the connection. Dropping the receiver withdraws it: a later answer is ignored.
    Delivered(oneshot::Receiver<AskEnd>),
}
