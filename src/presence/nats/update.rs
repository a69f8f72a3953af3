//! What nodes tell each other of a room: plain values, see `wire` for how they are written.

use crate::event::Timestamp;
use crate::identity::UserId;
use crate::presence::Departure;
use crate::presence::memory::Share;

/// One user, as a node has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    pub user: UserId,
    /// What the node has of it, or how the last of it left.
    pub now: Result<Share, Departure>,
}

/// What a node's part of a room became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Update {
    /// Increases with every update of the node, over all rooms.
    pub version: u64,
    /// The version of the room's part that this builds on; 0: on nothing, so whoever is not named is not there.
    pub previous: u64,
    pub changes: Vec<Changed>,
    /// Since when somebody is there, if it is known.
    pub occupied_since: Option<Timestamp>,
    /// The node had nobody there before: those it names have come with this update.
    pub begins: bool,
}

/// Where a node's part of a room stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand {
    pub incarnation: u64,
    pub version: u64,
    pub users: u64,
    pub digest: u64,
}

/// What is said about a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Update(Update),
    Stand(Stand),
    /// Asks for what is not known so.
    Ask(Vec<Stand>),
}
