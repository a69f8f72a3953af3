//! Presence: who is in which room, counted per user over all connections.
//!
//! # Contract
//! - A user joins a room when the first of its connections enters and leaves when the last one has left (and, where that
//!   one was lost, the grace period is over); each is shown once.
//! - Within the grace period a user is still shown, with one connection. Who comes back in it has never left.
//! - A roster shows everyone who is in the room when it is given. [`Presence::confirm`] says beforehand whether every
//!   node has been heard; if not, the roster is partial.
//! - Observers of a room see changes in order, after the roster they were given, each once; changes of a few
//!   milliseconds come as one, and what cancels out does not come at all. Applied to the roster in order of version they
//!   give the later rosters.
//! - A user is told as [joined](Change::joined) only to those who were given their roster before it came. Users that a
//!   roster left out, because it was partial, are told as [present](Change::present).
//! - Above a number of users a room is told in counts only, and so it always is to those who ask for [`Detail::Counts`].
//!
//! Nothing here knows events, sockets or permissions.

pub mod memory;
pub mod nats;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;

use crate::error::CloseReason;
use crate::event::{Except, Timestamp};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::room::{Room, Tenant};

/// How long a roster, a page or a count waits for other nodes.
pub const CONFIRM_WITHIN: Duration = Duration::from_millis(250);

/// How long a publish waits for other nodes to say how many connections it reaches.
pub const REACH_WITHIN: Duration = Duration::from_millis(250);

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
    /// Not every node has been heard: there may be more.
    pub partial: bool,
}

/// The rooms a user is in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRooms {
    /// By name, with how the user is shown there.
    pub rooms: Vec<(Room, Present)>,
    /// Not every node has been heard: there may be more.
    pub partial: bool,
}

/// How much of a room's presence an observer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// How many there are.
    Counts,
    /// Who they are.
    Members,
}

/// How many connections an event reaches.
pub enum Reach {
    /// Exactly so many.
    Known(u32),
    /// The nodes are asked: exactly so many, or `None` when not all of them have answered in time.
    Asked(BoxFuture<'static, Option<u32>>),
}

impl Reach {
    /// The number; `None` when it is not known.
    pub async fn count(self) -> Option<u32> {
        match self {
            Self::Known(count) => Some(count),
            Self::Asked(counting) => counting.await,
        }
    }
}

/// Who is in a room at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// Increases with every change of the room's presence; at least 1.
    pub version: u64,
    /// How many there are.
    pub counts: Counts,
    /// Who they are; `None` where only counts are told.
    pub members: Option<Vec<Present>>,
    /// Not every node has been heard: there may be more, who come as [`Change::present`].
    pub partial: bool,
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
    /// The versions it builds on. It is for those who know the room at one of these.
    pub known: Range<u64>,
    /// It is for those who see this much.
    pub detail: Detail,
    /// How many there are now.
    pub counts: Counts,
    /// Who came; empty when only counts are told.
    pub joined: Vec<Present>,
    /// Who is there, though not told before: those whom a partial roster left out, and everyone in the first change that
    /// tells more than counts again. When they came is not known.
    pub present: Vec<Present>,
    /// Whose state or number of connections changed; empty when only counts are told.
    pub updated: Vec<Present>,
    /// Who went; empty when only counts are told.
    pub left: Vec<UserId>,
    /// Whether only the counts are told.
    pub counts_only: bool,
}

impl Change {
    /// Whether it names somebody.
    #[must_use]
    pub const fn lists_users(&self) -> bool {
        let (came, there) = (self.joined.is_empty(), self.present.is_empty());
        !(came && there && self.updated.is_empty() && self.left.is_empty())
    }

    /// The same without one user; `None` when it does not name it.
    #[must_use]
    pub fn without(&self, user: &UserId) -> Option<Self> {
        let lists = [&self.joined, &self.present, &self.updated];
        let is_named = |list: &&Vec<Present>| list.binary_search_by(|one| one.user.cmp(user)).is_ok();
        if !lists.iter().any(is_named) && self.left.binary_search(user).is_err() {
            return None;
        }
        let mut change = self.clone();
        for list in [&mut change.joined, &mut change.present, &mut change.updated] {
            list.retain(|one| one.user != *user);
        }
        change.left.retain(|one| one != user);
        Some(change)
    }
}

/// What a client speaks, by name; empty when a node did not tell.
pub type Protocol = Cow<'static, str>;

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
    /// A client connected, and what it speaks: the name of its subprotocol.
    Opened(Tenant, Member, Protocol),
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
    /// Not every node has been heard: there may be more.
    pub partial: bool,
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

    /// Makes sure that this node knows everyone who is in the room now, on whichever node. Returns within
    /// [`CONFIRM_WITHIN`]: `true`, or `false` when a node that lives has not answered.
    fn confirm<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, bool>;

    /// Starts to show the room's changes to an observer; the answer is the roster they build on.
    fn observe(&self, room: &Room, observer: Arc<dyn Observer>, detail: Detail) -> Roster;

    /// Ends an observation. Changes under way may still arrive.
    fn unobserve(&self, room: &Room, observer_id: u16);

    /// A page of the room's users after `after`, at most `size` of them, over all nodes.
    fn page<'a>(&'a self, room: &'a Room, after: Option<&'a UserId>, size: usize) -> BoxFuture<'a, RosterPage>;

    /// The rooms a user is in and how it is shown there, over all nodes, by name.
    fn rooms_of<'a>(&'a self, tenant: &'a Tenant, user: &'a UserId) -> BoxFuture<'a, UserRooms>;

    /// How many are in the room and since when, over all nodes.
    fn occupancy<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Occupancy>;

    /// How many connections an event to the room reaches, when these are left out. Where there are other nodes they are
    /// asked at once; the answer comes within [`REACH_WITHIN`].
    fn reach(&self, room: &Room, except: &Except) -> Reach;

    /// Tells that a client connected or went, for those who watch.
    fn announce(&self, activity: Activity);

    /// What happens from now on. A reader that falls behind is told how far ([`broadcast::error::RecvError::Lagged`]).
    fn activity(&self) -> broadcast::Receiver<Activity>;
}
