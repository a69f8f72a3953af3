//! The parts of a bus: how the rooms of a tenant are followed by a pattern, without a subscription for each.
//!
//! A bus orders its rooms in parts: a room belongs to one part for as long as an epoch lasts, and the events of a part
//! have one order, whatever their rooms. So one position for each part is a place in all rooms, also in those that are not
//! known. What a follower gets of a part is complete exactly as far as the part's position says.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::BusUnavailable;
use crate::event::Event;
use crate::position::Position;
use crate::room::{Room, RoomPattern, Tenant};

/// The rooms of one tenant that match a pattern, now and later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSet {
    /// The tenant.
    pub tenant: Tenant,
    /// The pattern of the rooms' names.
    pub pattern: RoomPattern,
}

impl RoomSet {
    /// Reports whether the room is one of them.
    #[must_use]
    pub fn contains(&self, room: &Room) -> bool {
        room.tenant() == self.tenant.as_str() && self.pattern.matches(room.name())
    }
}

/// Receives the events of a set of rooms, part by part.
pub trait Follower: Send + Sync + 'static {
    /// Identifies the follower; no subscriber has the same number.
    fn id(&self) -> u16;

    /// The rooms.
    fn rooms(&self) -> &RoomSet;

    /// Receives the part's next event in one of the rooms. The rules of [`super::Subscriber::deliver`] apply.
    fn deliver(&self, part: u16, event: Arc<Event>);

    /// Reports that the part's continuity is not known any more: nothing of it is delivered until it is followed again.
    /// The rules of [`super::Subscriber::deliver`] apply.
    fn detach(&self, part: u16);
}

/// A place in a part: everything of the rooms through the position was read, or reported as missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The position.
    pub position: Position,
    /// Messages were absent from what was read since the follower was last attached. So a room that has not appeared
    /// since then may have lost events.
    pub gapped: bool,
}

impl Place {
    /// A place behind which nothing is in doubt.
    #[must_use]
    pub const fn at(position: Position) -> Self {
        Self {
            position,
            gapped: false,
        }
    }
}

/// A room of which events are missing, and the position after which they are complete.
pub type Restart = (Room, Position);

/// The next events of one part.
#[derive(Debug, Clone, PartialEq)]
pub struct PartPage {
    /// The events, in the part's order.
    pub events: Vec<Arc<Event>>,
    /// Everything of the rooms through this place is in the page, in `restarts`, or was before.
    pub through: Place,
    /// Rooms that begin anew. They precede the events.
    pub restarts: Vec<Restart>,
    /// Rooms that are not named in `restarts` may miss events, too.
    pub partial: bool,
    /// The page reaches the end of the part. What is ordered after it is delivered to the follower, until the part is
    /// detached.
    pub attached: bool,
}

/// Follows rooms by a pattern.
///
/// # Contract
/// - **No gap.** The events of the pages from a position on and those that are delivered once a page says `attached` are
///   all events after that position, in the part's order; or the page names the room (`restarts`), or says that rooms
///   cannot be named (`partial`).
/// - **Ephemeral events** are delivered as far as the bus passes them on: the in-process bus does, the bus over NATS does
///   not.
/// - **No follower, no cost.** Without a follower nothing is done for an event.
pub trait Parts: Send + Sync + 'static {
    /// Returns the number of parts.
    fn parts(&self) -> u16;

    /// Reads the next page of a part after a place, and attaches the follower at the end. Without a place it begins at the
    /// end.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    ///
    /// # Cancel safety
    /// A dropped future may leave the follower attached; follow the part again.
    fn follow<'a>(
        &'a self,
        part: u16,
        after: Option<Place>,
        follower: &'a Arc<dyn Follower>,
    ) -> BoxFuture<'a, Result<PartPage, BusUnavailable>>;

    /// Returns a position of the part: every event through it that concerns the follower was delivered. `None` when the
    /// follower is not attached.
    fn followed(&self, part: u16, follower_id: u16) -> Option<Position>;

    /// Ends the follower's attachments. Deliveries in progress may still arrive.
    fn unfollow(&self, follower_id: u16);
}
