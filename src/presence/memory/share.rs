//! What one node has of a user in a room, as other nodes are told of it.

use crate::event::Timestamp;
use crate::json::Json;

/// What a connection said about its user, and when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stated {
    /// When. Never before what it replaced, whatever the clock says.
    pub at: Timestamp,
    /// What.
    pub value: Json,
}

impl Stated {
    /// Whether this counts and not the other: the newer one, and of two at one time the same one everywhere.
    #[must_use]
    pub fn wins_over(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> (Timestamp, &[u8]) {
        (self.at, self.value.bytes())
    }
}

/// A user's connections of one node in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// How many connections, at least 1.
    pub connections: u32,
    /// When the user came to the room, by whichever node.
    pub since: Timestamp,
    /// The state that one of them set last, of those that are still there.
    pub state: Option<Box<Stated>>,
}

/// Where a share comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The node, by its incarnation.
    pub node: u64,
    /// Everything the node had before is known here, so a user that is not has just come. Otherwise observers are told
    /// that it is there, and not that it came.
    pub is_news: bool,
}

/// The one of two that counts.
#[must_use]
pub fn newer<'s>(one: Option<&'s Stated>, other: Option<&'s Stated>) -> Option<&'s Stated> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.wins_over(one) { other } else { one }),
        (one, other) => one.or(other),
    }
}
