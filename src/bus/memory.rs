//! The in-process bus: one node, histories in memory, a new epoch at every start.
//!
//! Rooms are spread over stripes. Each stripe has a lock that is never held over an await. Everything that happens to a
//! room happens under its stripe's lock, deliveries included: that makes the room's total order. Offsets come from one
//! sequence of the process, so they are sparse within a room.
//!
//! This bus settles what the contract of [`crate::bus`] leaves open:
//! - **Idempotency keys** count for ephemeral events too; a repeated one returns no position and `duplicate`. The key
//!   is looked up before the expected version: a repeated conditional publish is a duplicate, not a conflict.
//! - **Rooms without events** have the head [`crate::position::Offset::ZERO`].
//! - **Forgotten rooms.** A room without subscribers whose history has expired leaves memory. Its head is remembered,
//!   so resuming and expected versions work as before. Of the rooms forgotten longest ago only a bound is known. A
//!   reader or publisher before that bound may have missed something and gets [`Recovery::Lost`] or
//!   [`PublishError::VersionConflict`]; one at or after it has not. The head reported for such a room is the newest
//!   offset of the whole bus, which is valid for resuming and as an expected version.
//! - **Continuity** never breaks here: [`Subscriber::reset`] is not called.

mod clock;
mod config;
mod heads;
mod keys;
mod live;
mod log;
#[cfg(test)]
mod model;
mod parts;
mod past;
mod shared;
mod stripe;
#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::iter;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use config::Config;

use super::{
    Bus, BusUnavailable, HistoryPage, HistoryStats, Page, Parcel, PublishError, Published, ReadBounds, Recovery,
    Subscriber, Usage,
};
use crate::event::{Envelope, Event};
use crate::position::{Epoch, Position};
use crate::room::Room;
use crate::sync::lock;
use clock::Clock;
use keys::Fingerprints;
use log::RoomLog;
use shared::MemoryBusInner;
use stripe::{Full, Request, Stripe};

/// The number of lock stripes: more than threads will ever publish at once, few enough that a stripe's share of the
/// bounds is still a number.
const STRIPES: usize = 64;

const TOO_MANY_ROOMS: BusUnavailable = BusUnavailable("too many rooms");

/// The in-process bus. The module's documentation states its guarantees.
pub struct MemoryBus {
    shared: MemoryBusInner,
    stripes: Box<[Mutex<Stripe>]>,
    in_flight: Arc<Semaphore>,
}

impl MemoryBus {
    /// Creates an empty bus with a new epoch.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_clock(config, Clock::system())
    }

    fn with_clock(config: Config, clock: Clock) -> Self {
        let stripe = |_| Mutex::new(Stripe::share_of(&config, STRIPES));
        Self {
            stripes: (0..STRIPES).map(stripe).collect(),
            in_flight: Arc::new(Semaphore::new(config.in_flight_events_max)),
            shared: MemoryBusInner {
                config,
                epoch: Epoch::random(),
                clock,
                fingerprints: Fingerprints::default(),
                hasher: RandomState::new(),
                sequence: AtomicU64::new(0),
                rooms: AtomicUsize::new(0),
                weight: AtomicUsize::new(0),
            },
        }
    }

    /// Drops expired events, keys and rooms until `shutdown`, one stripe after the other so that no publisher waits
    /// long. Without this task memory stays within its bounds, but is released only where a room is used.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let turns = u32::try_from(self.stripes.len()).unwrap_or(u32::MAX);
        let mut turn = interval((self.shared.config.sweep_interval / turns).max(std::time::Duration::from_millis(1)));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for stripe in self.stripes.iter().cycle() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = turn.tick() => lock(stripe).sweep(&self.shared),
            }
        }
    }

    /// Drops expired events, keys and rooms now.
    pub fn sweep(&self) {
        for stripe in &self.stripes {
            lock(stripe).sweep(&self.shared);
        }
    }

    /// Returns what is held at this moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let bound = self.shared.config.in_flight_events_max;
        Usage {
            rooms: self.shared.rooms.load(Ordering::Relaxed),
            history_bytes: self.shared.weight.load(Ordering::Relaxed),
            in_flight_events: bound.saturating_sub(self.in_flight.available_permits()),
            ..Usage::default()
        }
    }

    /// Locks the room's stripe and returns it with the hash that chose it.
    fn enter(&self, room: &Room) -> (u64, MutexGuard<'_, Stripe>) {
        let room_hash = self.shared.hasher.hash_one(room);
        let index = usize::try_from(room_hash % STRIPES as u64).expect("it is less than the number of stripes");
        (room_hash, lock(&self.stripes[index]))
    }

    async fn admit(&self) -> Result<OwnedSemaphorePermit, PublishError> {
        const REFUSED: PublishError = PublishError::NotStored("too many events in flight");
        let in_flight = Arc::clone(&self.in_flight);
        if let Ok(permit) = in_flight.try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = Arc::clone(&self.in_flight).acquire_owned();
        match timeout(self.shared.config.in_flight_wait_max, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(REFUSED),
        }
    }

    /// Takes in-flight permits for this many events, if they are available now.
    fn try_admit(&self, events: usize) -> Option<OwnedSemaphorePermit> {
        let events = u32::try_from(events).ok()?;
        Arc::clone(&self.in_flight).try_acquire_many_owned(events).ok()
    }

    fn request(&self, envelope: Envelope, in_flight: OwnedSemaphorePermit) -> Request {
        let publish = envelope.into_inner();
        Request {
            key: self.shared.fingerprints.read(&publish),
            publish,
            room_hash: 0,
            in_flight,
        }
    }

    /// Publishes events that were admitted together. Consecutive events of one room are ordered under one lock.
    fn publish_admitted(
        &self,
        parcels: Vec<Parcel>,
        mut in_flight: OwnedSemaphorePermit,
    ) -> Vec<Result<Published, PublishError>> {
        let mut outcomes = Vec::with_capacity(parcels.len());
        let requests = parcels.into_iter().map(|Parcel { envelope, span }| {
            let own = in_flight.split(1).expect("as many were taken as there are events");
            (self.request(envelope, own), span)
        });
        // Before any lock: the fingerprint of a key hashes the whole payload.
        let requests: Vec<_> = requests.collect();
        let mut requests = requests.into_iter().peekable();
        while let Some((first, _)) = requests.peek() {
            let room = first.publish.room.clone();
            let (room_hash, mut stripe) = self.enter(&room);
            let run = iter::from_fn(|| {
                let (request, span) = requests.next_if(|(next, _)| next.publish.room == room)?;
                Some((Request { room_hash, ..request }, span))
            });
            stripe.publish_run(&self.shared, &room, run, &mut outcomes);
        }
        outcomes
    }

    fn missed(&self, room: &Room, since: Position, bounds: ReadBounds) -> Option<Vec<Arc<Event>>> {
        let (room_hash, mut stripe) = self.enter(room);
        // Another epoch is another history. An offset beyond the newest was never given out by this process.
        if since.epoch != self.shared.epoch || since.offset > self.shared.newest() {
            return None;
        }
        match stripe.log(&self.shared, room) {
            Some(log) => log.since(since.offset, bounds),
            None => (since.offset >= stripe.head(room, room_hash).bound()).then(Vec::new),
        }
    }

    fn page(&self, room: &Room, page: Page, bounds: ReadBounds) -> HistoryPage {
        let (room_hash, mut stripe) = self.enter(room);
        let (mut cut, begins) = match stripe.log(&self.shared, room) {
            Some(log) => (log.page(page, bounds), log.begins()),
            None => (HistoryPage::default(), stripe.head(room, room_hash).bound()),
        };
        if let Page::After(offset) = page {
            cut.complete = (begins..=self.shared.newest()).contains(&offset);
        }
        cut
    }
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = self.shared.epoch;
        f.debug_struct("MemoryBus")
            .field("epoch", &epoch)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl Bus for MemoryBus {
    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Published, PublishError>> {
        Box::pin(async move {
            let in_flight = self.admit().await?;
            let request = self.request(envelope, in_flight);
            let (room_hash, mut stripe) = self.enter(&request.publish.room);
            stripe.publish(&self.shared, Request { room_hash, ..request })
        })
    }

    fn publish_all(&self, parcels: Vec<Parcel>) -> BoxFuture<'_, Vec<Result<Published, PublishError>>> {
        Box::pin(async move {
            if let Some(in_flight) = self.try_admit(parcels.len()) {
                return self.publish_admitted(parcels, in_flight);
            }
            // Too few permits for all at once: each event waits for its own.
            let mut outcomes = Vec::with_capacity(parcels.len());
            for Parcel { envelope, span } in parcels {
                outcomes.push(self.publish(envelope).instrument(span).await);
            }
            outcomes
        })
    }

    fn subscribe<'a>(
        &'a self,
        room: &'a Room,
        subscriber: Arc<dyn Subscriber>,
    ) -> BoxFuture<'a, Result<Position, BusUnavailable>> {
        Box::pin(async move {
            let (room_hash, mut stripe) = self.enter(room);
            let head = stripe.subscribe(&self.shared, room, room_hash, subscriber);
            head.map_err(|Full| TOO_MANY_ROOMS)
        })
    }

    fn unsubscribe(&self, room: &Room, subscriber_id: u16) {
        self.enter(room).1.unsubscribe(&self.shared, room, subscriber_id);
    }

    fn head<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Position, BusUnavailable>> {
        Box::pin(async move {
            let (room_hash, stripe) = self.enter(room);
            Ok(self.shared.stands_at(stripe.head(room, room_hash)))
        })
    }

    fn recover<'a>(
        &'a self,
        room: &'a Room,
        since: Position,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<Recovery, BusUnavailable>> {
        Box::pin(async move {
            let missed = self.missed(room, since, bounds);
            Ok(missed.map_or(Recovery::Lost, Recovery::Exact))
        })
    }

    fn history<'a>(
        &'a self,
        room: &'a Room,
        page: Page,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<HistoryPage, BusUnavailable>> {
        Box::pin(async move { Ok(self.page(room, page, bounds)) })
    }

    fn last_values<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Vec<Arc<Event>>, BusUnavailable>> {
        Box::pin(async move {
            let (_, mut stripe) = self.enter(room);
            let values = stripe.log(&self.shared, room).map(RoomLog::last_values);
            Ok(values.unwrap_or_default())
        })
    }

    fn stats<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<HistoryStats, BusUnavailable>> {
        Box::pin(async move {
            let (room_hash, mut stripe) = self.enter(room);
            Ok(stripe.stats(&self.shared, room, room_hash))
        })
    }
}
