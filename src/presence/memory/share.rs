//! One node's share of a user in a room, as it is replicated to other nodes.

use crate::event::Timestamp;
use crate::json::Json;

/// A presence state and the time at which it was set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stated {
    /// Time of the write. Never before that of the replaced state, whatever the clock says.
    pub at: Timestamp,
    /// The state.
    pub value: Json,
}

impl Stated {
    /// Reports whether this state wins: the newer one, and among equal times the same one on every node.
    #[must_use]
    pub fn wins_over(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> (Timestamp, &[u8]) {
        (self.at, self.value.bytes())
    }
}

/// One node's connections of a user in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Number of connections, at least 1.
    pub connections: u32,
    /// Time at which the user joined the room, on whichever node.
    pub since: Timestamp,
    /// The state set last by one of the connections that are still there.
    pub state: Option<Box<Stated>>,
}

/// Origin of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The node, by its incarnation.
    pub node: u64,
    /// Set when everything the node had before is known here, so an unknown user has just joined. Otherwise observers
    /// learn that it is present, not that it joined.
    pub is_news: bool,
}

/// Returns the one of two states that counts.
#[must_use]
pub fn newer<'s>(one: Option<&'s Stated>, other: Option<&'s Stated>) -> Option<&'s Stated> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.wins_over(one) { other } else { one }),
        (one, other) => one.or(other),
    }
}
