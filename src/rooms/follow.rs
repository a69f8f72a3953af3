//! Following rooms: every event from a position on, in order and without a gap, for a reader that is no session.
//!
//! A follower is a subscriber of the bus like a shard is. Its queue is bounded: a reader that falls too far behind is told
//! [`TooSlow`], and goes on later from the positions of its last step. Continuity that cannot be kept is reported as a
//! [`Resync`], never guessed. Nothing of it runs, and no room is held, without a follower.

mod ids;
mod matching;
mod named;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::bus::parts::{Place, RoomSet};
use crate::bus::{Bus, BusUnavailable, ReadBounds};
use crate::event::Event;
use crate::position::Position;
use crate::room::{Room, Tenant};
use matching::MatchingRooms;
use named::NamedRooms;

pub(super) use ids::SubscriberIds;
pub(super) use tail::Tail;

/// The bounds of a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowBounds {
    /// The most events that wait for the reader, and their bytes.
    pub waiting: ReadBounds,
    /// The most events of one step, and their payload bytes. A single event may be larger.
    pub step: ReadBounds,
    /// Time without events after which a step is returned all the same.
    pub idle_max: Duration,
}

/// The reader is too far behind: more waits than the bounds allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader is too far behind")]
pub struct TooSlow;

/// A room that goes on at another position: events before it may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resync {
    /// The room.
    pub room: Room,
    /// The position after which its events are complete.
    pub head: Position,
}

/// A part of the stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Rooms that begin anew. They precede the events.
    pub resyncs: Vec<Resync>,
    /// The events, each room's in order.
    pub events: Vec<Arc<Event>>,
    /// Rooms that match a pattern may miss events, and are not named in `resyncs`.
    pub partial: bool,
    /// Payload bytes of the events.
    bytes: usize,
}

impl Step {
    /// Reports whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.resyncs.is_empty() && self.events.is_empty() && !self.partial
    }

    const fn is_full(&self, bounds: ReadBounds) -> bool {
        self.events.len() >= bounds.events_max || self.bytes >= bounds.bytes_max
    }

    /// Reports whether a resync of the room may be added: none of its events may precede that.
    fn takes_resync_of(&self, room: &Room) -> bool {
        self.events.iter().all(|event| event.room != *room)
    }

    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.payload.bytes_len();
        self.events.push(event);
    }
}

/// The rooms to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Rooms by name, each once.
    Named(Vec<Room>),
    /// All rooms that match a pattern, now and later.
    Matching(RoomSet),
}

impl Selection {
    /// Reports whether all rooms are of this tenant.
    pub(super) fn is_of(&self, tenant: &Tenant) -> bool {
        match self {
            Self::Named(rooms) => rooms.iter().all(|room| room.tenant() == tenant.as_str()),
            Self::Matching(rooms) => rooms.tenant == *tenant,
        }
    }
}

/// A follower of rooms. Ends its subscriptions when it is dropped.
#[derive(Debug)]
pub struct Follow(Source);

#[derive(Debug)]
enum Source {
    Named(NamedRooms),
    Matching(MatchingRooms),
}

impl Follow {
    pub(super) async fn begin(
        bus: Arc<dyn Bus>,
        tail: Tail,
        selection: Selection,
        since: Option<Vec<Place>>,
        bounds: FollowBounds,
    ) -> Result<Self, BusUnavailable> {
        Ok(Self(match (selection, since) {
            (Selection::Named(rooms), Some(since)) => {
                Source::Named(NamedRooms::from_positions(bus, tail, rooms, &since, bounds))
            }
            (Selection::Named(rooms), None) => Source::Named(NamedRooms::from_now(bus, tail, rooms, bounds).await?),
            (Selection::Matching(rooms), since) => {
                Source::Matching(MatchingRooms::follow(bus, tail, rooms, since, bounds).await?)
            }
        }))
    }

    /// Waits for the next step. An empty one means that nothing happened for [`FollowBounds::idle_max`].
    ///
    /// # Errors
    /// [`TooSlow`]; the follower is of no more use then.
    ///
    /// # Cancel safety
    /// A dropped future loses no event.
    pub async fn next(&mut self) -> Result<Step, TooSlow> {
        match &mut self.0 {
            Source::Named(rooms) => rooms.next().await,
            Source::Matching(rooms) => rooms.next().await,
        }
    }

    /// Waits until more waits than the bounds allow: [`Self::next`] fails then.
    pub async fn overflowed(&self) {
        match &self.0 {
            Source::Named(rooms) => rooms.overflowed().await,
            Source::Matching(rooms) => rooms.overflowed().await,
        }
    }

    /// Returns the places behind the last step: one for each named room, in their order, or one for each part of the bus.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        match &self.0 {
            Source::Named(rooms) => rooms.places().collect(),
            Source::Matching(rooms) => rooms.places().collect(),
        }
    }
}
