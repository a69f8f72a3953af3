//! Presence: who is in which room, counted per user over all connections.
//!
//! # Contract
//! - A user joins a room when the first of its connections enters and leaves when the last one has left (and, where that
//!   one was lost, the grace period is over); each is shown once.
//! - Within the grace period a user is still shown, with one connection. Who comes back in it has never left.
//! - Observers of a room see changes in order, after the roster they were given, each once; changes of a few
//!   milliseconds come as one, and what cancels out does not come at all. Applied to the roster in order of version they
//!   give the later rosters. A roster shows what the room's observers have been told, so who has just entered may come
//!   with the next change.
//! - Above a number of users a room is told in counts only.
//!
//! Nothing here knows events, sockets or permissions.

pub mod memory;
pub mod nats;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;

use crate::error::CloseReason;
use crate::event::{Except, Timestamp};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::room::{Room, Tenant};

/// One connection of one user, as a member of a room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// The connection.
    pub connection: ConnectionId,
    /// Its user. The tenant is the room's.
    pub user: UserId,
}

/// One user in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The user.
    pub user: UserId,
    /// The presence state: the one set last by a connection that is still there.
    pub state: Option<Json>,
    /// How many connections it has in the room, at least 1.
    pub connections: u32,
    /// When the user came.
    pub since: Timestamp,
}

/// How many are in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Users.
    pub users: u32,
    /// Connections.
    pub connections: u32,
}

/// How many are in a room, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occupancy {
    /// How many.
    pub counts: Counts,
    /// Since when somebody has been there without a break; `None` when nobody is.
    pub since: Option<Timestamp>,
}

/// Who is in a room at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// Increases with every change of the room's presence; at least 1.
    pub version: u64,
    /// How many there are.
    pub counts: Counts,
    /// Who they are; `None` above the size at which only counts are told.
    pub members: Option<Vec<Present>>,
}

/// How a connection left a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Departure {
    /// It was told to go, or asked to: it does not come back by itself.
    Left,
    /// It ended; the client may be on its way back.
    Lost,
}

/// What changed in a room between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The room.
    pub room: Room,
    /// The version after the change.
    pub version: u64,
    /// How many there are now.
    pub counts: Counts,
    /// Who came; empty when only counts are told. Everybody, in the first change that tells more than counts again.
    pub joined: Vec<Present>,
    /// Whose state or number of connections changed; empty when only counts are told.
    pub updated: Vec<Present>,
    /// Who went; empty when only counts are told.
    pub left: Vec<UserId>,
    /// Whether only the counts are told.
    pub counts_only: bool,
}

/// What a backend that watches is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// A user's first connection entered a room.
    Joined(Room, UserId),
    /// A user's last connection left a room.
    Left(Room, UserId),
    /// The first member entered a room.
    Occupied(Room),
    /// The last member left a room.
    Vacated(Room),
    /// A client connected.
    Opened(Tenant, Member),
    /// A client's connection ended, and why.
    Closed(Tenant, Member, CloseReason),
}

/// A page of the users of a room, by user id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterPage {
    /// How many there are in all.
    pub counts: Counts,
    /// The users of this page.
    pub members: Vec<Present>,
    /// Where the next page starts: after this user; `None` on the last page.
    pub next_after: Option<UserId>,
}

/// Sees the changes of rooms. One per shard of the node.
pub trait Observer: Send + Sync + 'static {
    /// Distinguishes observers; two observations of one room by one id are one.
    fn id(&self) -> u16;

    /// Takes a change; the future is the back-pressure.
    fn observe(&self, change: Arc<Change>) -> BoxFuture<'_, ()>;
}

/// The state is larger than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the presence state is larger than {max} bytes")]
pub struct StateTooLarge {
    /// The bound, in bytes.
    pub max: usize,
}

/// Keeps who is where.
pub trait Presence: Send + Sync + 'static {
    /// Enters a connection into a room, or sets its state there (`None`: no state). The state ends with the connection; of
    /// several connections of a user the one that set its state last counts.
    ///
    /// # Errors
    /// [`StateTooLarge`]: nothing has changed then.
    fn enter(&self, room: &Room, member: &Member, state: Option<Json>) -> Result<(), StateTooLarge>;

    /// Takes a connection out of a room. Unknown members are ignored.
    fn leave(&self, room: &Room, member: &Member, departure: Departure);

    /// Starts to show the room's changes to an observer; the answer is the roster they build on.
    fn observe(&self, room: &Room, observer: Arc<dyn Observer>) -> Roster;

    /// Ends an observation. Changes under way may still arrive.
    fn unobserve(&self, room: &Room, observer_id: u16);

    /// A page of the room's users after `after`, at most `size` of them, over all nodes.
    fn page<'a>(&'a self, room: &'a Room, after: Option<&'a UserId>, size: usize) -> BoxFuture<'a, RosterPage>;

    /// The rooms a user is in and how it is shown there, over all nodes, by name.
    fn rooms_of<'a>(&'a self, tenant: &'a Tenant, user: &'a UserId) -> BoxFuture<'a, Vec<(Room, Present)>>;

    /// How many are in the room and since when, over all nodes.
    fn occupancy<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Occupancy>;

    /// How many connections an event to the room reaches, when these are left out, as far as this node knows: an
    /// estimate where there are other nodes.
    fn reached(&self, room: &Room, except: &Except) -> u32;

    /// Tells that a client connected or went, for those who watch.
    fn announce(&self, activity: Activity);

    /// What happens from now on. A reader that falls behind is told how far ([`broadcast::error::RecvError::Lagged`]).
    fn activity(&self) -> broadcast::Receiver<Activity>;
}
