//! Presence: the users in each room, counted over all their connections.
//!
//! # Contract
//! - A user joins a room with the first of its connections and leaves with the last. If the last one was lost, the user
//!   leaves when the grace period ends. Observers see each join and each leave once.
//! - Within the grace period a user is still shown, with one connection. A user who reconnects within it is not reported
//!   as having left.
//! - A roster shows every user in the room at its version. [`Presence::confirm`] reports beforehand whether every node
//!   has replied; if not, the roster is partial.
//! - Observers of a room see changes in order, after their roster, each once. Changes within a few milliseconds are
//!   coalesced, and those that cancel out are dropped. Applied to the roster in order of version, they yield the later
//!   rosters.
//! - A user is reported as [joined](Change::joined) only to observers whose roster is older than the join. Users that a
//!   partial roster omitted are reported as [present](Change::present).
//! - Above a number of users a room is reported in counts only. An observer of [`Detail::Counts`] always sees counts.
//!
//! This module knows no events, no sockets and no permissions.
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

/// Deadline of a roster, a page or a count for the replies of other nodes.
pub const CONFIRM_WITHIN: Duration = Duration::from_millis(250);

/// Deadline of a publish for other nodes' counts of the connections it reaches. The event is on its way meanwhile; only the
/// number in the reply waits.
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
    /// Number of its connections in the room, at least 1.
    pub connections: u32,
    /// Time at which the user joined.
    pub since: Timestamp,
}

/// Number of users and connections in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Users.
    pub users: u32,
    /// Connections.
    pub connections: u32,
}

/// Number of users and connections in a room, and the start of its occupancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occupancy {
    /// The numbers.
    pub counts: Counts,
    /// Start of the current unbroken occupancy; `None` when the room is empty.
    pub since: Option<Timestamp>,
    /// Set when not every node has been heard: there may be more.
    pub partial: bool,
}

/// The rooms a user is in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRooms {
    /// Rooms by name, with the user as shown there.
    pub rooms: Vec<(Room, Present)>,
    /// Set when not every node has been heard: there may be more.
    pub partial: bool,
}

/// Level of detail at which an observer sees a room's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Numbers only.
    Counts,
    /// The members by name.
    Members,
}

/// Number of connections that an event reaches.
pub enum Reach {
    /// The exact number.
    Known(u32),
    /// A query to the other nodes is under way. Yields the exact number, or `None` when not all of them reply in time.
    Asked(BoxFuture<'static, Option<u32>>),
}

impl Reach {
    /// Returns the number; `None` when it is not known.
    pub async fn count(self) -> Option<u32> {
        match self {
            Self::Known(count) => Some(count),
            Self::Asked(counting) => counting.await,
        }
    }
}

/// The members of a room at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// Increases with every change of the room's presence; at least 1.
    pub version: u64,
    /// Numbers of users and connections.
    pub counts: Counts,
    /// The members; `None` where only counts are reported.
    pub members: Option<Vec<Present>>,
    /// Set when not every node has been heard: there may be more, reported later as [`Change::present`].
    pub partial: bool,
}

/// The manner in which a connection left a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Departure {
    /// The connection left by command, its own or a backend's: it does not reconnect by itself.
    Left,
    /// The connection ended; the client may reconnect.
    Lost,
}

/// Difference in a room's presence between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The room.
    pub room: Room,
    /// The version after the change.
    pub version: u64,
    /// The versions it builds on. It applies to observers that know the room at one of these.
    pub known: Range<u64>,
    /// The detail it applies to: observers that see this much.
    pub detail: Detail,
    /// The numbers after the change.
    pub counts: Counts,
    /// Users that joined; empty when only counts are reported.
    pub joined: Vec<Present>,
    /// Users that are present but were not reported before: those omitted from a partial roster, and every user in the
    /// first change that lists names again after counts. Their time of joining is not known.
    pub present: Vec<Present>,
    /// Users whose state or number of connections changed; empty when only counts are reported.
    pub updated: Vec<Present>,
    /// Users that left; empty when only counts are reported.
    pub left: Vec<UserId>,
    /// Set when only the counts are reported.
    pub counts_only: bool,
}

impl Change {
    /// Reports whether the change names any user.
    #[must_use]
    pub const fn lists_users(&self) -> bool {
        let (came, there) = (self.joined.is_empty(), self.present.is_empty());
        !(came && there && self.updated.is_empty() && self.left.is_empty())
    }

    /// Returns the change without one user; `None` when it does not name that user.
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

/// Name of the client's subprotocol; empty when its node did not report it.
pub type Protocol = Cow<'static, str>;

/// An occurrence reported to backends that watch.
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
    /// A client connected, with the name of its subprotocol.
    Opened(Tenant, Member, Protocol),
    /// A client's connection ended, for this reason.
    Closed(Tenant, Member, CloseReason),
}

/// A page of the users of a room, by user id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterPage {
    /// Numbers over the whole room.
    pub counts: Counts,
    /// The users of this page.
    pub members: Vec<Present>,
    /// The user after which the next page starts; `None` on the last page.
    pub next_after: Option<UserId>,
    /// Set when not every node has been heard: there may be more.
    pub partial: bool,
}

/// Receives the changes of rooms. One per shard of the node.
pub trait Observer: Send + Sync + 'static {
    /// Identifies the observer; two observations of one room by one id are one.
    fn id(&self) -> u16;

    /// Delivers a change; the future is the back-pressure.
    fn observe(&self, change: Arc<Change>) -> BoxFuture<'_, ()>;
}

/// The state is larger than its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the presence state is larger than {max} bytes")]
pub struct StateTooLarge {
    /// The bound, in bytes.
    pub max: usize,
}

/// Tracks which users are in which rooms.
pub trait Presence: Send + Sync + 'static {
    /// Enters a connection into a room, or sets its state there (`None`: no state). The state ends with the connection.
    /// Of several connections of a user, the latest state set counts.
    ///
    /// # Errors
    /// [`StateTooLarge`]: nothing has changed.
    fn enter(&self, room: &Room, member: &Member, state: Option<Json>) -> Result<(), StateTooLarge>;

    /// Removes a connection from a room. Unknown members are ignored.
    fn leave(&self, room: &Room, member: &Member, departure: Departure);

    /// Ensures that this node knows every user now in the room, on every node. Returns within [`CONFIRM_WITHIN`]: `true`,
    /// or `false` when a live node has not replied.
    fn confirm<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, bool>;

    /// Begins an observation of the room. Returns the roster that its changes build on.
    fn observe(&self, room: &Room, observer: Arc<dyn Observer>, detail: Detail) -> Roster;

    /// Ends an observation. Changes in flight may still arrive.
    fn unobserve(&self, room: &Room, observer_id: u16);

    /// Returns a page of the room's users after `after`, at most `size` of them, over all nodes.
    fn page<'a>(&'a self, room: &'a Room, after: Option<&'a UserId>, size: usize) -> BoxFuture<'a, RosterPage>;

    /// Returns the rooms of a user, by name, with the user as shown there, over all nodes.
    fn rooms_of<'a>(&'a self, tenant: &'a Tenant, user: &'a UserId) -> BoxFuture<'a, UserRooms>;

    /// Returns the numbers of the room and the start of its occupancy, over all nodes.
    fn occupancy<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Occupancy>;

    /// Returns the number of connections that an event to the room reaches, except those left out. Other nodes are
    /// queried at once; the result is there within [`REACH_WITHIN`].
    fn reach(&self, room: &Room, except: &Except) -> Reach;

    /// Reports to watchers that a client connected or disconnected.
    fn announce(&self, activity: Activity);

    /// Subscribes to all later activity. A slow consumer learns how many it lost ([`broadcast::error::RecvError::Lagged`]).
    fn activity(&self) -> broadcast::Receiver<Activity>;
}
