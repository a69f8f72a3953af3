//! One order as data: an audience and a verb. The same value goes to the shards of a node and to the other nodes, and every
//! outcome adds up.

use std::sync::Arc;

use crate::error::CloseReason;
use crate::event::Event;
use crate::identity::{ConnectionId, Identity, UserId};
use crate::notice::Notice;
use crate::policy::Permit;
use crate::room::{Room, Tenant};

/// The connections an order is for. A connection is looked up within its tenant only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every connection of a user.
    User(Tenant, UserId),
    /// One connection.
    Connection(Tenant, ConnectionId),
}

/// The action of an order on each connection of its audience.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Puts it into the permit's room, as a backend's decision.
    Join(Permit),
    /// Takes it out of a room, with a notice for its client.
    Leave(Room, Notice),
    /// Closes it, with a notice for its client.
    Disconnect(CloseReason, Notice),
    /// Sends it an event without a position, whatever rooms it is in.
    Send(Arc<Event>),
    /// Counts it.
    Count,
    /// Identifies it; of several, any one.
    Identify,
}

/// An order to connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The connections.
    pub audience: Audience,
    /// The action on them.
    pub verb: Verb,
}

/// Reason why a connection that a backend puts into a room is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRefusal {
    /// It is in as many rooms as it may be.
    RoomLimit,
    /// The user's access to the room was withdrawn.
    Revoked,
    /// Not possible now: the bus is away, another join is under way, or the node has no lease.
    Unavailable,
}

/// The outcome of an order on some of the connections. Outcomes of shards and of nodes add up; the default is that of an
/// order that found no connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The number of connections that there are or were affected: those that are in the room now, were in it, were closed, and so on.
    pub connections: u32,
    /// Reason why another one was not affected, if there is one. Only a join is refused.
    pub refused: Option<JoinRefusal>,
    /// The identity of one connection, where the order asked for it.
    pub identity: Option<Arc<Identity>>,
}

impl Outcome {
    /// The outcome of an order that is a plain number.
    #[must_use]
    pub fn of(connections: u32) -> Self {
        Self {
            connections,
            ..Self::default()
        }
    }

    /// The outcome of looking for a connection's identity.
    #[must_use]
    pub fn identified(identity: Option<Arc<Identity>>) -> Self {
        Self {
            connections: u32::from(identity.is_some()),
            refused: None,
            identity,
        }
    }

    /// Adds another outcome of the same order.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            refused: self.refused.or(other.refused),
            identity: self.identity.or(other.identity),
        }
    }

    /// Reports whether a connection of the audience was found.
    #[must_use]
    pub const fn is_hit(&self) -> bool {
        self.connections > 0 || self.refused.is_some()
    }
}

impl Audience {
    /// The tenant whose connections they are.
    #[must_use]
    pub const fn tenant(&self) -> &Tenant {
        match self {
            Self::User(tenant, _) | Self::Connection(tenant, _) => tenant,
        }
    }

    /// An order to these connections.
    #[must_use]
    pub const fn order(self, verb: Verb) -> Order {
        Order { audience: self, verb }
    }
}
