//! Messages between nodes about a room, as plain values. `wire` encodes them.

use crate::event::Timestamp;
use crate::identity::UserId;
use crate::presence::Departure;
use crate::presence::memory::Share;

/// A node's current state of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    pub user: UserId,
    /// The node's share, or the manner in which its last connection left.
    pub now: Result<Share, Departure>,
}

/// A change of a node's part of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Update {
    /// Increases with every update of the node, over all rooms.
    pub version: u64,
    /// The version of the room's part that this builds on. 0: on nothing, so users that are not named are not there.
    pub previous: u64,
    pub changes: Vec<Changed>,
    /// Start of the current unbroken occupancy, if known.
    pub occupied_since: Option<Timestamp>,
    /// The node had no user there before: those it names joined with this update.
    pub begins: bool,
}

/// The announced version of a node's part of a room, with its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DigestAnnouncement {
    pub incarnation: u64,
    pub version: u64,
    pub users: u64,
    pub digest: u64,
}

/// A message about a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Update(Update),
    Stand(DigestAnnouncement),
    /// Asks for every part that differs from these stands.
    Ask(Vec<DigestAnnouncement>),
}
