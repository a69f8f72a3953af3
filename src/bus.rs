//! The bus: orders and stores events, keeps histories, and delivers every event to the subscribers of its room.
//!
//! # Contract, the same for every implementation
//! - **Total order per room.** Offsets strictly increase within a room and epoch and may be sparse. Each event names
//!   its room's previous offset. For a room without known events, [`Bus::head`] may return any position that precedes
//!   all later events of the room. So a reader has missed something exactly if an event's `prev` lies after the
//!   reader's position.
//! - **Durable acknowledgement.** [`Bus::publish`] returns a position only once the event is in the history.
//! - **Delivery.** A subscriber receives every event of a room that is ordered after [`Bus::subscribe`] returned: in
//!   order, once, without a gap. Events ordered during the call may be delivered too. If the bus ever has to break
//!   that, it calls [`Subscriber::reset`] instead of delivering past the gap.
//! - **Recovery.** [`Bus::recover`] returns exactly the missed events, or [`Recovery::Lost`]; never a part. The result
//!   is proven from what this room has lost. The limits in force now and the number of events left prove nothing.
//! - **Ephemeral events** are at-most-once. They have no position, and are delivered in the order of one publisher.
//!
//! This module knows no members, no sockets and no permissions.

#[cfg(test)]
pub(crate) mod conformance;
pub mod history;
pub mod memory;
pub mod nats;
pub mod parts;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::counters::Counters;
use crate::event::{Envelope, Event, Timestamp};
use crate::position::{Offset, Position};
use crate::room::Room;

/// The outcome of a publish that the bus accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The event's position; `None` for an ephemeral one.
    pub position: Option<Position>,
    /// The event was already stored under its idempotency key; `position` is that of the first publish.
    pub duplicate: bool,
}

/// The reason why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The optimistic-concurrency check failed: the room's head is not the expected one.
    #[error("the room's head is at {current:?}")]
    VersionConflict {
        /// The room's head.
        current: Position,
    },
    /// The idempotency key was used in this room with another event.
    #[error("the idempotency key was used with another event")]
    KeyReused,
    /// The bus never accepts an event of this size; nothing was stored.
    #[error("the bus takes a payload of at most {bytes_max} bytes with this event")]
    TooLarge {
        /// The largest payload that the bus would accept with the same name, actor and receivers.
        bytes_max: usize,
    },
    /// The bus is full or unavailable; nothing was stored.
    #[error("not stored: {0}")]
    NotStored(&'static str),
    /// No acknowledgement arrived; the event may be stored. A retry with the same idempotency key settles it.
    #[error("no acknowledgement: {0}")]
    UnknownOutcome(&'static str),
}

/// The bus cannot serve the request now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bus is not available: {0}")]
pub struct BusUnavailable(pub &'static str);

/// A snapshot of what a bus holds on this node, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rooms in memory: in process all that have a history or members, over NATS those with members here.
    pub rooms: usize,
    /// Bytes of all histories and last values in memory, bookkeeping included.
    pub history_bytes: usize,
    /// Events received but not yet released by every subscriber.
    pub in_flight_events: usize,
    /// Publishes that wait for an acknowledgement; none in process.
    pub publishes: usize,
    /// Messages on rooms' subjects that no node has written, since the start; none in process.
    pub foreign_messages: u64,
}

/// The result of [`Bus::recover`].
#[derive(Debug, Clone)]
pub enum Recovery {
    /// The complete list of events after the given position; the last one's position is the reader's new one.
    Exact(Vec<Arc<Event>>),
    /// The epoch differs, the history no longer reaches back that far, or too much was missed.
    Lost,
}

/// The bounds of one recovery or page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBounds {
    /// The most events.
    pub events_max: usize,
    /// The most payload bytes, summed.
    pub bytes_max: usize,
}

impl ReadBounds {
    /// Returns the same bounds with another `events_max`.
    #[must_use]
    pub const fn with_events_max(self, events_max: usize) -> Self {
        Self { events_max, ..self }
    }
}

/// A part of a room's history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryPage {
    /// The events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// A bound cut the page: the room keeps more events in the direction of the read.
    pub more: bool,
    /// With [`Page::After`]: everything after the offset is kept, in this page and those that follow it.
    pub complete: bool,
}

/// The part of a room's history that a reader requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The newest events.
    Newest,
    /// The oldest events after an offset.
    After(Offset),
    /// The newest events before an offset.
    Before(Offset),
}

/// The size and the head of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryStats {
    /// The room's head.
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
    /// The span that records the event's way through the bus.
    pub span: Span,
}

/// An event on its way to this node's members. All of them share it and its encoded forms (fan-out, encode once).
#[derive(Debug)]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    /// The form that was requested first, and its slot. Most events need no other.
    first: OnceLock<(usize, Bytes)>,
    others: OnceLock<Box<[OnceLock<Bytes>; Self::FORMATS]>>,
    /// Open until the last shard has released the delivery; a child of the publish, and the only span of a fan-out.
    span: Span,
    members: AtomicU32,
    /// The counters of the node whose shards have got it, and when the first one did, where that is recorded.
    counted: OnceLock<(Counters, Option<Instant>)>,
    /// Flow control: held until the last reader has released the delivery. Bounds the events in flight.
    _in_flight: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    /// The maximum number of encoded forms of one event: one slot for each protocol that is registered, with room for more.
    pub const FORMATS: usize = 16;

    /// Wraps an ordered event.
    #[must_use]
    pub fn new(event: Arc<Event>, in_flight: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Self::traced(event, in_flight, |span| span)
    }

    /// Wraps an ordered event. `adopt` receives the span of the delivery, to make it part of the publisher's trace
    /// where the publisher was another process.
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
            counted: OnceLock::new(),
            _in_flight: in_flight,
        })
    }

    /// Counts the fan-out here when it ends. Every shard of a node says so; a reader that is no shard does not.
    pub fn counted_in(&self, counters: &Counters) {
        self.counted.get_or_init(|| {
            let begun = counters.fanouts.is_recorded().then(Instant::now);
            (Arc::clone(counters), begun)
        });
    }

    /// Returns the time since a gateway accepted the event: to the millisecond, as its time is; finer where this node did.
    fn age(&self, begun: Option<Instant>) -> Duration {
        let anywhere = self.event.time.age(Timestamp::now());
        let Some(begun) = begun else { return anywhere };
        let here = begun.elapsed();
        // Both clocks' milliseconds may have changed in between.
        let elsewhere = anywhere.saturating_sub(here) > Duration::from_millis(1);
        if elsewhere { anywhere } else { here }
    }

    /// Adds to the number of members in the delivery's span.
    pub fn handed_to(&self, members: usize) {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        self.members.fetch_add(members, Ordering::Relaxed);
    }

    /// Returns the form in slot `format` (below [`Self::FORMATS`]). The first call for a slot encodes it.
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
        let members = *self.members.get_mut();
        self.span.record("roomcast.members", i64::from(members));
        if let Some((counters, begun)) = self.counted.get() {
            counters.fanned_out(members, || self.age(*begun));
        }
    }
}

/// Receives the events of rooms. Each shard of the node is one.
pub trait Subscriber: Send + Sync + 'static {
    /// Identifies the subscriber; two subscriptions of one id to one room are one.
    fn id(&self) -> u16;

    /// Reports whether the subscription keeps a room without history in memory.
    fn holds_room(&self) -> bool {
        true
    }

    /// Receives an event. The bus calls it in order, possibly under a lock: it must not block or call the bus.
    fn deliver(&self, delivery: Arc<Delivery>);

    /// Reports that the room's continuity is lost: its members start afresh at `head`. The rules of [`Self::deliver`]
    /// apply.
    fn reset(&self, room: Room, head: Position);
}

/// Orders, stores and delivers events.
pub trait Bus: parts::Parts {
    /// Publishes an event; see the module's contract.
    ///
    /// # Errors
    /// Every variant of [`PublishError`].
    ///
    /// # Cancel safety
    /// A dropped future leaves the outcome unknown; the idempotency key makes a retry harmless.
    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Published, PublishError>>;

    /// Publishes several events in their order. Each has its own outcome, as if they were published one after the
    /// other. An implementation does shared work once for many of them.
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

    /// Subscribes to a room and returns the room's head. Every event that is ordered after the return is delivered.
    ///
    /// # Errors
    /// [`BusUnavailable`]: nothing is subscribed then.
    fn subscribe<'a>(
        &'a self,
        room: &'a Room,
        subscriber: Arc<dyn Subscriber>,
    ) -> BoxFuture<'a, Result<Position, BusUnavailable>>;

    /// Ends a subscription. Deliveries in progress may still arrive.
    fn unsubscribe(&self, room: &Room, subscriber_id: u16);

    /// Returns the room's head: the position of its newest event or, if none is known, one that precedes all later
    /// events.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn head<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Position, BusUnavailable>>;

    /// Returns the events after a position: all of them, or [`Recovery::Lost`].
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn recover<'a>(
        &'a self,
        room: &'a Room,
        since: Position,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<Recovery, BusUnavailable>>;

    /// Returns a page of the history, oldest first. It has at least one event if there is one and the bounds allow any.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn history<'a>(
        &'a self,
        room: &'a Room,
        page: Page,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<HistoryPage, BusUnavailable>>;

    /// Returns the newest event of each name of retention [`crate::event::Retention::LastValue`], oldest first.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn last_values<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Vec<Arc<Event>>, BusUnavailable>>;

    /// Returns the head and the size of the room's history.
    ///
    /// # Errors
    /// [`BusUnavailable`].
    fn stats<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<HistoryStats, BusUnavailable>>;
}
