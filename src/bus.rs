//! The bus: orders and stores events, keeps histories, and hands every event to who subscribed to its room.
//!
//! # Contract, the same for every implementation
//! - **Order.** Per room there is one total order. Offsets strictly increase within a room and epoch, may be sparse, and
//!   each event names its room's previous offset. The head told of a room of which no event is known may be any position
//!   that the room's later events come after; so a reader has missed something exactly if an event's `prev` lies after
//!   what the reader holds.
//! - **Acknowledged means stored.** [`Bus::publish`] answers a position only once the event is in the history.
//! - **Delivery.** A subscriber gets every event of a room that is ordered after [`Bus::subscribe`] returned, in order,
//!   once, without a gap; what is ordered while it is called may be delivered too. If the bus ever has to break that, it
//!   calls [`Subscriber::reset`] instead of delivering past the gap.
//! - **Recovery.** [`Bus::recover`] answers exactly the missed events or says that it cannot; never a part. What it answers
//!   is proven from what this room has lost: the limits that hold now, and how many events there are, prove nothing.
//! - **Ephemeral events** have no position, and are delivered in the order of one publisher.
//!
//! Nothing here knows members, sockets or permissions.

#[cfg(test)]
pub(crate) mod conformance;
pub mod history;
pub mod memory;
pub mod nats;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::event::{Envelope, Event};
use crate::position::{Offset, Position};
use crate::room::Room;

/// What the bus answers to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Where the event stands; `None` for an ephemeral one.
    pub position: Option<Position>,
    /// The event was already stored under its idempotency key; `position` is that of the first time.
    pub duplicate: bool,
}

/// Why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The room's head is not the expected one.
    #[error("the room's head is at {current:?}")]
    VersionConflict {
        /// Where the head is.
        current: Position,
    },
    /// The idempotency key was used for this room with another event.
    #[error("the idempotency key was used with another event")]
    KeyReused,
    /// The bus never takes an event of this size; nothing was stored.
    #[error("the bus takes a payload of at most {bytes_max} bytes with this event")]
    TooLarge {
        /// The largest payload that it would take with the same name, actor and receivers.
        bytes_max: usize,
    },
    /// The bus is full or away; nothing was stored.
    #[error("not stored: {0}")]
    NotStored(&'static str),
    /// The acknowledgement did not come; the event may be stored. A retry with its key settles it.
    #[error("no acknowledgement: {0}")]
    UnknownOutcome(&'static str),
}

/// The bus cannot answer now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bus is not available: {0}")]
pub struct BusUnavailable(pub &'static str);

/// The answer to "what have I missed since".
#[derive(Debug, Clone)]
pub enum Recovery {
    /// These events and no others came after the given position; the last one's position is the reader's new one.
    Exact(Vec<Arc<Event>>),
    /// The epoch is another, the history no longer reaches back that far, or too much was missed.
    Lost,
}

/// How much one recovery or page may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBounds {
    /// The most events.
    pub events_max: usize,
    /// The most payload bytes, summed.
    pub bytes_max: usize,
}

impl ReadBounds {
    /// The same, with at most so many events.
    #[must_use]
    pub const fn with_events_max(self, events_max: usize) -> Self {
        Self { events_max, ..self }
    }
}

/// A part of a room's history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryPage {
    /// From old to new.
    pub events: Vec<Arc<Event>>,
    /// A bound has cut the page: the room keeps more events in the direction it was read.
    pub more: bool,
    /// With [`Page::After`]: everything after the offset is kept, in this page and those that follow it.
    pub complete: bool,
}

/// Which part of a room's history is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest events.
    Newest,
    /// The oldest events after an offset.
    After(Offset),
    /// The newest events before an offset.
    Before(Offset),
}

/// What is known of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryStats {
    /// Where the room stands.
    pub head: Position,
    /// Events kept.
    pub events: usize,
    /// Their payload bytes.
    pub bytes: usize,
}

/// One of several events that are published together.
#[derive(Debug)]
pub struct Parcel {
    /// The event.
    pub envelope: Envelope,
    /// What its way through the bus is noted in.
    pub span: Span,
}

/// An event on its way to the members of this node, shared by all of them, with its encoded forms.
#[derive(Debug)]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    /// The form that was asked for first, and its slot. Most events need no other.
    first: OnceLock<(usize, Bytes)>,
    others: OnceLock<Box<[OnceLock<Bytes>; Self::FORMATS]>>,
    /// From here until the last shard is done with it; a child of the publish, and the only span of a fan-out.
    span: Span,
    members: AtomicU32,
    /// Held until the last reader is done: bounds the events that are in flight at once.
    _in_flight: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    /// How many encoded forms an event may have at once.
    pub const FORMATS: usize = 8;

    /// Wraps an ordered event.
    #[must_use]
    pub fn new(event: Arc<Event>, in_flight: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Self::traced(event, in_flight, |span| span)
    }

    /// Wraps an ordered event. `adopt` is given the span of the delivery, to make it part of the publisher's trace where
    /// the publisher was another process.
    #[must_use]
    pub fn traced(
        event: Arc<Event>,
        in_flight: Option<OwnedSemaphorePermit>,
        adopt: impl FnOnce(Span) -> Span,
    ) -> Arc<Self> {
        Arc::new(Self {
            event,
            first: OnceLock::new(),
            others: OnceLock::new(),
            span: adopt(tracing::debug_span!("hub.deliver", roomcast.members = Empty)),
            members: AtomicU32::new(0),
            _in_flight: in_flight,
        })
    }

    /// Counts members it was handed to, for its span.
    pub fn handed_to(&self, members: usize) {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        self.members.fetch_add(members, Ordering::Relaxed);
    }

    /// The form in slot `format` (below [`Self::FORMATS`]), encoded by the first who asks.
    pub fn frame(&self, format: usize, encode: impl FnOnce(&Event) -> Bytes) -> &Bytes {
        let mut encode = Some(encode);
        let mut encoded = || (encode.take().expect("only one slot is filled"))(&self.event);
        let (first, frame) = self.first.get_or_init(|| (format, encoded()));
        if *first == format {
            return frame;
        }
        self.others.get_or_init(Box::default)[format].get_or_init(encoded)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // Signed: the OpenTelemetry layer writes unsigned numbers as text.
        self.span.record("roomcast.members", i64::from(*self.members.get_mut()));
    }
}

/// Receives the events of rooms. One per shard of the node.
pub trait Subscriber: Send + Sync + 'static {
    /// Distinguishes subscribers; two subscriptions of one id to one room are one.
    fn id(&self) -> u16;

    /// Takes an event. Called in order, possibly under a lock: must not block or call the bus.
    fn deliver(&self, delivery: Arc<Delivery>);

    /// The room's continuity is lost: its members start afresh at `head`. Same rules as [`Self::deliver`].
    fn reset(&self, room: Room, head: Position);
}

/// Orders, stores and hands out events.
pub trait Bus: Send + Sync + 'static {
    /// Publishes an event; see the module's contract.
    ///
    /// # Errors
    /// Every variant of [`PublishError`].
    ///
    /// # Cancel safety
    /// A dropped future leaves the outcome unknown; the idempotency key makes the retry harmless.
    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Published, PublishError>>;

    /// Publishes several events in their order. Each has its own outcome, as if they were published one after the other;
    /// what an implementation can do once for many of them, it does once.
    ///
    /// # Cancel safety
    /// A dropped future leaves the outcome of each unknown.
    fn publish_all(&self, parcels: Vec<Parcel>) -> BoxFuture<'_, Vec<Result<Published, PublishError>>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(parcels.len());
            for Parcel { envelope, span } in parcels {
                outcomes.push(self.publish(envelope).instrument(span).await);
            }
            outcomes
        })
    }

    /// Subscribes to a room. When this returns, everything ordered later is delivered; the answer is the room's head.
    ///
    /// # Errors
    /// [`BusUnavailable`]: nothing is subscribed then.
    fn subscribe<'a>(
        &'a self,
        room: &'a Room,
        subscriber: Arc<dyn Subscriber>,
    ) -> BoxFuture<'a, Result<Position, BusUnavailable>>;

    /// Ends a subscription. Deliveries under way may still arrive.
    fn unsubscribe(&self, room: &Room, subscriber_id: u16);

    /// Where the room stands: the position of its newest event or, if none is known, one that all later events come after.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn head<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Position, BusUnavailable>>;

    /// The events after a position, exactly or not at all.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn recover<'a>(
        &'a self,
        room: &'a Room,
        since: Position,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<Recovery, BusUnavailable>>;

    /// A page of the history, oldest first. It has at least one event if there is one and the bounds allow any.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn history<'a>(
        &'a self,
        room: &'a Room,
        page: Page,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<HistoryPage, BusUnavailable>>;

    /// The newest event of each name of retention [`crate::event::Retention::LastValue`], oldest first.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn last_values<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Vec<Arc<Event>>, BusUnavailable>>;

    /// What is known of the room's history.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn stats<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<HistoryStats, BusUnavailable>>;
}
