//! Operations on rooms: the only access to the bus and to presence. Every publish and every read of a room takes a
//! [`Permit`]; [`Rooms::exit`], [`Rooms::presence`] and [`Rooms::rooms_of`] take none.
//!
//! Sessions and the gRPC API both use it; neither has another way to publish or to read.

mod follow;
mod homes;

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::{Instrument as _, Span};

use crate::bus::parts::Place;
use crate::bus::{
    Bus, BusUnavailable, HistoryPage, HistoryStats, Page, Parcel, PublishError, Published, ReadBounds, Recovery,
    Subscriber,
};
use crate::counters::{Counters, PublishOutcome};
use crate::event::{Envelope, Event, Publish};
use crate::identity::UserId;
use crate::policy::{Action, Permit, TenantPermit};
use crate::position::Position;
use crate::presence::{Occupancy, Presence, Reach, RosterPage, UserRooms};
use crate::room::{Room, Tenant};

pub use follow::{Follow, FollowBounds, Resync, Selection, Step, TooSlow};
pub use homes::{HomeRoomError, HomeRooms};

use follow::{SubscriberIds, Tail};

/// The outcome of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The bus's result.
    pub published: Published,
    /// The number of connections in the room, excluded ones not counted. `None` when it is unknown: a living node has
    /// not responded in time, or the event is a duplicate that another call delivered.
    pub reached: Option<u32>,
}

/// One of several events that are published together.
#[derive(Debug)]
pub struct Permitted {
    /// The permit to publish it.
    pub permit: Permit,
    /// The event.
    pub publish: Publish,
    /// The span that records it.
    pub span: Span,
}

/// The history that a reader requests when it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catchup {
    /// None: live events, and the last values.
    Live,
    /// The events after this position.
    Since(Position),
    /// The newest events.
    Newest(usize),
}

/// The start of a new member.
#[derive(Debug, Clone)]
pub struct Start {
    /// The room's head: `replay` ends at or before it; later events are live.
    pub head: Position,
    /// The events that the member receives before it goes live.
    pub replay: Vec<Arc<Event>>,
    /// `replay` is exactly what was missed since the requested position.
    pub recovered: bool,
}

/// The rooms of a gateway.
#[derive(Clone)]
pub struct Rooms {
    bus: Arc<dyn Bus>,
    presence: Arc<dyn Presence>,
    counters: Counters,
    subscriber_ids: Arc<SubscriberIds>,
}

impl Rooms {
    /// Creates the rooms over these two ports.
    pub fn new(bus: Arc<dyn Bus>, presence: Arc<dyn Presence>) -> Self {
        Self {
            bus,
            presence,
            counters: Counters::default(),
            subscriber_ids: Arc::default(),
        }
    }

    /// The same, counting into these.
    #[must_use]
    pub fn with_counters(self, counters: Counters) -> Self {
        Self { counters, ..self }
    }

    /// Returns the presence port, for joins and leaves of members. The session takes the permit to see presence.
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
        // Counted before the publish: a member may receive the event and leave before the bus returns. Other nodes
        // count while the event is published.
        let reach = self.presence.reach(&publish.room, &publish.except);
        let publishing = self.bus.publish(seal(permit, publish));
        let published = publishing.instrument(tracing::debug_span!("bus.publish")).await;
        self.counters.publishes.add(label(&published));
        Ok(outcome(published?, reach.count().await))
    }

    /// Publishes several events in their order, each with its own outcome.
    ///
    /// # Panics
    /// As [`Self::publish`].
    pub async fn publish_all(&self, events: Vec<Permitted>) -> Vec<Result<Outcome, PublishError>> {
        // Maps each event to its count: consecutive events in a room share one.
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
            .map(|(published, count)| {
                self.counters.publishes.add(label(&published));
                Ok(outcome(published?, reached[count]))
            })
            .collect()
    }

    /// Subscribes a shard to a room, and reads the start of a new member. Events delivered to the shard since the call
    /// and after [`Start::head`] are the member's live events.
    ///
    /// # Errors
    /// [`BusUnavailable`]; the subscription may exist then.
    pub async fn enter(
        &self,
        permit: &Permit,
        subscriber: Arc<dyn Subscriber>,
        catchup: Catchup,
        bounds: ReadBounds,
    ) -> Result<Start, BusUnavailable> {
        let room = permit.room();
        // The subscription goes before every read: an event between the two would be in neither.
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
        // The head is read before the replay. Later events are live, so no replayed event may lie after the head,
        // unless the replay reaches beyond it without a gap.
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

    /// Follows rooms of a tenant from these places on, or from now on. There is one place for each named room, or those that
    /// [`Follow::places`] returned.
    ///
    /// # Errors
    /// [`BusUnavailable`]: nothing is subscribed then.
    ///
    /// # Panics
    /// When a room is of another tenant than the permit, or the places are not as many as the named rooms: defects of the
    /// caller.
    pub async fn follow(
        &self,
        permit: &TenantPermit,
        selection: Selection,
        since: Option<Vec<Place>>,
        bounds: FollowBounds,
    ) -> Result<Follow, BusUnavailable> {
        assert!(selection.is_of(permit.tenant()), "a permit is good for its own tenant");
        let tail = Tail::open(&self.subscriber_ids, bounds.waiting)?;
        Follow::begin(Arc::clone(&self.bus), tail, selection, since, bounds).await
    }

    /// Returns a room's head.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    pub async fn head(&self, permit: &Permit) -> Result<Position, BusUnavailable> {
        self.bus.head(permit.room()).await
    }

    /// Returns a page of the history, oldest first.
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

    /// Returns the head and the size of the room's history.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    pub async fn stats(&self, permit: &Permit) -> Result<HistoryStats, BusUnavailable> {
        self.bus.stats(permit.room()).await
    }

    /// Returns a page of the room's users.
    pub async fn members(&self, permit: &Permit, after: Option<&UserId>, size: usize) -> RosterPage {
        self.presence.page(permit.room(), after, size).await
    }

    /// Returns the counts of the room, and since when it has been occupied.
    pub async fn occupancy(&self, permit: &Permit) -> Occupancy {
        self.presence.occupancy(permit.room()).await
    }

    /// Returns the rooms of a user and the user's presence in them. Each still needs a permit before a client may see it.
    pub async fn rooms_of(&self, tenant: &Tenant, user: &UserId) -> UserRooms {
        self.presence.rooms_of(tenant, user).await
    }
}

/// Combines a permit and its event.
fn seal(permit: &Permit, publish: Publish) -> Envelope {
    assert_eq!(permit.room(), &publish.room, "a permit is good for its own room");
    assert!(
        matches!(permit.action(), Action::Publish(name) if *name == publish.name),
        "a permit is good for its own event",
    );
    Envelope(publish)
}

/// Returns the name that a publish is counted under.
const fn label(published: &Result<Published, PublishError>) -> PublishOutcome {
    match published {
        Ok(Published { duplicate: false, .. }) => PublishOutcome::Accepted,
        Ok(Published { duplicate: true, .. }) => PublishOutcome::Duplicate,
        Err(PublishError::VersionConflict { .. }) => PublishOutcome::VersionConflict,
        Err(PublishError::KeyReused) => PublishOutcome::KeyReused,
        Err(PublishError::TooLarge { .. }) => PublishOutcome::TooLarge,
        Err(PublishError::NotStored(_)) => PublishOutcome::NotStored,
        Err(PublishError::UnknownOutcome(_)) => PublishOutcome::Unknown,
    }
}

fn outcome(published: Published, reached: Option<u32>) -> Outcome {
    let reached = reached.filter(|_| !published.duplicate);
    Outcome { published, reached }
}

fn last_position(events: &[Arc<Event>]) -> Option<Position> {
    events.last().and_then(|event| event.link).map(|link| link.position)
}
