//! What may be done with rooms: the one way to the bus and to presence. Everything here takes a [`Permit`].
//!
//! Sessions and the gRPC API both come through here; neither has another way to publish or to read.

mod homes;

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::{Instrument as _, Span};

use crate::bus::{
    Bus, BusUnavailable, HistoryPage, HistoryStats, Page, Parcel, PublishError, Published, ReadBounds, Recovery,
    Subscriber,
};
use crate::event::{Envelope, Event, Publish};
use crate::identity::UserId;
use crate::policy::{Action, Permit};
use crate::position::Position;
use crate::presence::{Occupancy, Presence, Reach, RosterPage, UserRooms};
use crate::room::{Room, Tenant};

pub use homes::{HomeRoomError, HomeRooms};

/// What a publish came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The bus's answer.
    pub published: Published,
    /// How many connections were in the room, those left out not counted. `None` when that is not known: a node that
    /// lives has not said so in time, or the event is a duplicate and was delivered by another call.
    pub reached: Option<u32>,
}

/// One of several events that are published together.
#[derive(Debug)]
pub struct Permitted {
    /// That it may be.
    pub permit: Permit,
    /// The event.
    pub publish: Publish,
    /// What it is noted in.
    pub span: Span,
}

/// What a reader asked for in the moment it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catchup {
    /// Nothing: live events, and the last values.
    Live,
    /// What came after this position.
    Since(Position),
    /// The newest events.
    Newest(usize),
}

/// Where a new member starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// The room's head: `replay` is at or before it; what comes after it is live.
    pub head: Position,
    /// What the member gets before it goes live.
    pub replay: Vec<Arc<Event>>,
    /// Whether `replay` is exactly what was missed since the position asked for.
    pub recovered: bool,
}

/// The rooms of a gateway.
#[derive(Clone)]
pub struct Rooms {
    bus: Arc<dyn Bus>,
    presence: Arc<dyn Presence>,
}

impl Rooms {
    /// The rooms over these two ports.
    pub fn new(bus: Arc<dyn Bus>, presence: Arc<dyn Presence>) -> Self {
        Self { bus, presence }
    }

    /// The presence port, for members that come and go; who may see it takes a permit at the session.
    #[must_use]
    pub fn presence(&self) -> &Arc<dyn Presence> {
        &self.presence
    }

    /// Publishes an event.
    ///
    /// # Errors
    /// Every variant of [`PublishError`].
    ///
    /// # Panics
    /// When the permit is for another room or event: a defect of the caller.
    pub async fn publish(&self, permit: &Permit, publish: Publish) -> Result<Outcome, PublishError> {
        // Counted first: somebody may get the event and be gone before the bus has answered. Other nodes count while the
        // event is published.
        let reach = self.presence.reach(&publish.room, &publish.except);
        let publishing = self.bus.publish(seal(permit, publish));
        let published = publishing.instrument(tracing::debug_span!("bus.publish")).await?;
        Ok(outcome(published, reach.count().await))
    }

    /// Publishes several events in their order, each with its own outcome.
    ///
    /// # Panics
    /// As [`Self::publish`].
    pub async fn publish_all(&self, events: Vec<Permitted>) -> Vec<Result<Outcome, PublishError>> {
        // Which of the counts is an event's: events that follow each other in a room share one.
        let mut counted = Vec::with_capacity(events.len());
        let mut reaches = Vec::new();
        let mut parcels = Vec::with_capacity(events.len());
        let mut last: Option<Room> = None;
        for Permitted { permit, publish, span } in events {
            let is_counted = publish.except.is_empty() && last.as_ref() == Some(&publish.room);
            if !is_counted {
                reaches.push(self.presence.reach(&publish.room, &publish.except));
                last = publish.except.is_empty().then(|| publish.room.clone());
            }
            counted.push(reaches.len() - 1);
            parcels.push(Parcel {
                envelope: seal(&permit, publish),
                span: tracing::debug_span!(parent: &span, "bus.publish"),
            });
        }
        let published = self.bus.publish_all(parcels).await.into_iter();
        let reached = join_all(reaches.into_iter().map(Reach::count)).await;
        let outcomes = published.zip(counted);
        outcomes
            .map(|(published, count)| Ok(outcome(published?, reached[count])))
            .collect()
    }

    /// Subscribes a shard to a room, and reads where a new member starts. Whatever the shard was delivered since the
    /// call and stands after [`Start::head`] belongs to the member's live events.
    ///
    /// # Errors
    /// [`BusUnavailable`]; the subscription may stand then.
    pub async fn enter(
        &self,
        permit: &Permit,
        subscriber: Arc<dyn Subscriber>,
        catchup: Catchup,
        bounds: ReadBounds,
    ) -> Result<Start, BusUnavailable> {
        let room = permit.room();
        self.bus.subscribe(room, subscriber).await?;
        if let Catchup::Since(since) = catchup
            && let Recovery::Exact(replay) = self.bus.recover(room, since, bounds).await?
        {
            let head = last_position(&replay).unwrap_or(since);
            return Ok(Start {
                head,
                replay,
                recovered: true,
            });
        }
        // The head is read first: what is ordered after it comes live, so nothing replayed may stand after it, unless
        // the replay reaches without a gap beyond it.
        let head = self.bus.head(room).await?;
        if let Catchup::Newest(count) = catchup {
            let bounds = ReadBounds {
                events_max: count.min(bounds.events_max),
                ..bounds
            };
            let replay = self.bus.history(room, Page::Newest, bounds).await?.events;
            let head = last_position(&replay)
                .filter(|last| last.offset > head.offset)
                .unwrap_or(head);
            return Ok(Start {
                head,
                replay,
                recovered: false,
            });
        }
        let mut replay = self.bus.last_values(room).await?;
        replay.retain(|event| event.offset() <= Some(head.offset));
        Ok(Start {
            head,
            replay,
            recovered: false,
        })
    }

    /// Ends a shard's subscription.
    pub fn exit(&self, room: &Room, subscriber_id: u16) {
        self.bus.unsubscribe(room, subscriber_id);
    }

    /// Where a room stands.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    pub async fn head(&self, permit: &Permit) -> Result<Position, BusUnavailable> {
        self.bus.head(permit.room()).await
    }

    /// A page of the history, oldest first.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    pub async fn history(
        &self,
        permit: &Permit,
        page: Page,
        bounds: ReadBounds,
    ) -> Result<HistoryPage, BusUnavailable> {
        self.bus.history(permit.room(), page, bounds).await
    }

    /// What is known of a room's history.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    pub async fn stats(&self, permit: &Permit) -> Result<HistoryStats, BusUnavailable> {
        self.bus.stats(permit.room()).await
    }

    /// A page of the room's users.
    pub async fn members(&self, permit: &Permit, after: Option<&UserId>, size: usize) -> RosterPage {
        self.presence.page(permit.room(), after, size).await
    }

    /// How many are in the room, and since when.
    pub async fn occupancy(&self, permit: &Permit) -> Occupancy {
        self.presence.occupancy(permit.room()).await
    }

    /// The rooms a user is in and how it is shown there. Each still needs a permit before it is shown to a client.
    pub async fn rooms_of(&self, tenant: &Tenant, user: &UserId) -> UserRooms {
        self.presence.rooms_of(tenant, user).await
    }
}

/// Joins a permit and its event.
fn seal(permit: &Permit, publish: Publish) -> Envelope {
    assert_eq!(permit.room(), &publish.room, "a permit is good for its own room");
    assert!(
        matches!(permit.action(), Action::Publish(name) if *name == publish.name),
        "a permit is good for its own event",
    );
    Envelope(publish)
}

fn outcome(published: Published, reached: Option<u32>) -> Outcome {
    let reached = reached.filter(|_| !published.duplicate);
    Outcome { published, reached }
}

fn last_position(events: &[Arc<Event>]) -> Option<Position> {
    events.last().and_then(|event| event.link).map(|link| link.position)
}
