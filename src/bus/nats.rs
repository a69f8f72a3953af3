//! The bus of many nodes. JetStream orders and stores, its streams republish, and each node subscribes to the rooms
//! that have members there.
//!
//! - **One publish, one stream.** A reliable event is published once, into the stream of its room's partition. The
//!   stream's sequence is the offset, so offsets are sparse within a room. The stream republishes the event on the
//!   room's live subject, with its sequence and that of the room's previous event.
//! - **Republishing is a hint** (at-most-once). Delivered events are known by their sequence, and each event names its
//!   predecessor. So the sequence *chain* of a room ([`chain`]) detects a gap and has it fetched. A lost last event,
//!   which no later one reveals, is found in two ways: by a nudge of a publisher whose acknowledgement was ambiguous,
//!   and by the anti-entropy *sweep*, which reads the heads of all rooms with members here.
//! - **Joining.** A subscription is in effect once the stream's leader has refused a publish queued behind it (a
//!   barrier). Then the leader is asked for the room's head. Concurrent joins share the barrier (single-flight).
//! - **Epochs** fence histories. Each partition has one. A stream that was recreated or has gone back begins another
//!   one before any request is served, and all rooms with members start afresh.
//!
//! This bus settles what the contract of [`crate::bus`] leaves open:
//! - **Idempotency keys** count over all nodes for the streams' deduplication window. They are ignored for ephemeral
//!   events. If the room's history has dropped an event within the window, a repeated key cannot be compared with it;
//!   the repetition then counts as a duplicate.
//! - **Rooms without events** have the newest sequence of their partition at the time of the request as head. A
//!   publisher may expect [`Offset::ZERO`] or any head reported for such a room, as long as the stream has removed
//!   nothing since.
//! - **Reads** of a room with members here reflect what was delivered here. Reads of other rooms ask the stream's
//!   leader.
//! - **Last values** are stored beside the history before the publish is acknowledged; their time is that of the
//!   publisher.
//! - **Ephemeral events** of one publisher follow its reliable ones that were acknowledged before.

mod chain;
mod config;
mod epochs;
mod gate;
mod incarnation;
mod ingest;
mod lanes;
mod last_values;
mod live;
mod partition;
mod permissions;
mod proof;
mod publish;
mod read;
mod repair;
mod ring;
mod run;
mod senders;
mod server;
mod shared;
#[cfg(test)]
mod sim;
mod stand;
mod start;
mod streams;
mod sweep;
#[cfg(test)]
mod tests;
mod troubles;
mod values;
mod wire;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use streams::shared_settings;

use super::{
    Bus, BusUnavailable, HistoryPage, HistoryStats, Page, Parcel, PublishError, Published, ReadBounds, Recovery,
    Subscriber, Usage,
};
use crate::event::{Envelope, Event};
use crate::lease::Lease;
use crate::nats::agreement::Agreement;
use crate::nats::{Nats, NatsError};
use crate::position::{Offset, Position};
use crate::room::Room;
use crate::sync::lock;
use ingest::Feed;
use last_values::ValueStream;
use live::{HistoryBudget, LiveRoom};
use partition::Partition;
use senders::StaleSenderFilter;
use server::Server;
use shared::NatsBusInner;
use start::Started;

/// The most bytes of a stored event around its payload: names, excluded receivers, headers.
pub const ENVELOPE_BYTES_MAX: usize = 16 << 10;

/// The bound of the queue of subscriptions that were made and are not yet read. The reader takes them first, so it is short;
/// a join waits while it is full.
const FEEDS_MAX: usize = 1024;

/// The number of consecutive sweeps that may fail before the node reports it: one may fail while a leader is elected.
const UNCHECKED_SWEEPS_MAX: u32 = 2;

/// The bus over NATS. The module's documentation states its guarantees.
pub struct NatsBus {
    shared: NatsBusInner,
    added: Mutex<Option<mpsc::Receiver<Feed>>>,
}

impl NatsBus {
    /// Creates or updates the streams, and reads the epochs.
    ///
    /// # Errors
    /// [`NatsError::JetStream`] and [`NatsError::Refused`].
    pub async fn start(
        nats: Arc<Nats>,
        agreement: Arc<Agreement>,
        config: Config,
        lease: Lease,
    ) -> Result<Arc<Self>, NatsError> {
        let settings = nats.config().clone();
        let connects = nats.fanout().connects();
        let server = Server::new(nats, config.reads_in_flight_max.max(1));
        let Started { values, partitions } = start::start(&server, &agreement).await?;
        let partitions = partitions.into_iter().zip(0..);
        let partitions = partitions.map(|(incarnation, number)| Partition::new(number, incarnation, connects));
        let partitions = partitions.collect();
        let (feeds, added) = mpsc::channel(FEEDS_MAX);
        let shared = NatsBusInner {
            lease,
            partitions,
            keeping: HistoryBudget {
                history_bytes_max: config.history_bytes_max,
                last_value_names_max: config.last_value_names_max,
                weight: AtomicUsize::new(0),
            },
            in_flight: Arc::new(Semaphore::new(config.in_flight_events_max.max(1))),
            publishes: Arc::new(Semaphore::new(settings.publishes_in_flight_max.max(1))),
            feeds,
            repairs: Mutex::default(),
            repair_wanted: Notify::new(),
            check_wanted: Notify::new(),
            sender: rand::random(),
            senders: StaleSenderFilter::default(),
            foreign: AtomicU64::new(0),
            rooms: AtomicUsize::new(0),
            cold: Mutex::default(),
            values: ValueStream::new(values, connects),
            troubles: troubles::Troubles::default(),
            permissions: permissions::Permissions::default(),
            is_lost: AtomicBool::new(false),
            epochs_begun: AtomicU32::new(0),
            records_written_back: AtomicU32::new(0),
            agreement,
            server,
            config,
        };
        Ok(Arc::new(Self {
            shared,
            added: Mutex::new(Some(added)),
        }))
    }

    /// Reads the subscriptions, repairs gaps and maintains the streams until `stop`. Nothing is delivered without it.
    ///
    /// # Panics
    /// When it is called twice: a defect of the caller.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let added = lock(&self.added).take().expect("a bus is run once");
        tokio::select! {
            () = sweep::run(&self.shared, stop) => {}
            () = ingest::run(&self.shared, added) => {}
            () = repair::run(&self.shared) => {}
        }
    }

    /// Returns what is held at this moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let shared = &self.shared;
        let taken = |semaphore: &Semaphore, bound: usize| bound.saturating_sub(semaphore.available_permits());
        Usage {
            rooms: shared.rooms.load(Ordering::Relaxed),
            history_bytes: shared.keeping.weight.load(Ordering::Relaxed),
            in_flight_events: taken(&shared.in_flight, shared.config.in_flight_events_max),
            publishes: taken(&shared.publishes, shared.server.nats.config().publishes_in_flight_max),
            foreign_messages: shared.foreign.load(Ordering::Relaxed),
        }
    }

    /// Reports whether every room with members here was swept lately, and since the connection was last made. Then this
    /// node knows of everything that it misses.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        let shared = &self.shared;
        let settings = shared.server.nats.config();
        let lately = settings.sweep_interval * UNCHECKED_SWEEPS_MAX + settings.request_timeout;
        let connects = shared.connects();
        let checked = |partition: &Partition| partition.is_verified_for(connects) && partition.unswept() < lately;
        shared.agreement.holds() && shared.partitions.iter().all(checked)
    }

    /// Returns the reason why the node should not serve although it hears the cluster: settings that differ from the
    /// cluster's, a permission that was withdrawn, or a stream that does not heal by itself.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let shared = &self.shared;
        let settings = shared.agreement.trouble();
        settings
            .or_else(|| shared.permissions.trouble())
            .or_else(|| shared.troubles.first())
    }

    async fn subscribe(&self, room: &Room, subscriber: Arc<dyn Subscriber>) -> Result<Position, BusUnavailable> {
        let joining = Joining::enter(&self.shared, room)?;
        let live = &joining.live;
        live.joined.get_or_try_init(|| self.join(live)).await?;
        // A new epoch may restart the chain before this lock is taken: there is no head to return then.
        let mut state = live.lock();
        if state.chain.is_joining() {
            return Err(BusUnavailable("the room's history begins anew"));
        }
        Ok(state.attach(subscriber))
    }

    /// Subscribes to a room in NATS, waits until that is in effect, and reads the room's head.
    async fn join(&self, live: &Arc<LiveRoom>) -> Result<(), BusUnavailable> {
        let shared = &self.shared;
        if live.lock().feed.is_none() {
            shared.listen(live).await?;
        }
        // The barrier inside goes after the subscription: events published after the head was read then arrive live.
        let head = shared.head_for_members(live).await?;
        let held = live.lock().chain.held();
        let mut permits = shared.permits(held).await;
        let mut state = live.lock();
        state.join(live, head, &mut permits, &shared.keeping);
        shared.repair_if_needed(live, &mut state);
        Ok(())
    }

    async fn head(&self, room: &Room) -> Result<Position, BusUnavailable> {
        let partition = self.shared.partition_of(room);
        if let Some(live) = partition.room(room) {
            let state = live.lock();
            if state.is_current() {
                return Ok(state.position(state.chain.last()));
            }
        }
        Ok(self.shared.stand(partition, room).await?.head)
    }

    async fn last_values(&self, room: &Room) -> Result<Vec<Arc<Event>>, BusUnavailable> {
        let shared = &self.shared;
        let partition = shared.partition_of(room);
        let Some(live) = partition.room(room) else {
            let (values, _) = last_values::read(shared, room).await?;
            return Ok(values);
        };
        let sweep = partition.sweeps();
        let known = || {
            let state = live.lock();
            let values = state.values.whole(sweep).filter(|_| state.is_current());
            values.map(<[Arc<Event>]>::to_vec)
        };
        if let Some(values) = known() {
            return Ok(values);
        }
        // Single-flight: a caller that waited looks again before it reads.
        let _turn = live.backfill.lock().await;
        if let Some(values) = known() {
            return Ok(values);
        }
        let (read, through) = last_values::read(shared, room).await?;
        let names_max = shared.config.last_value_names_max;
        let mut state = live.lock();
        state.values.renew(&read, through, sweep, names_max);
        Ok(state.values.whole(sweep).unwrap_or_default().to_vec())
    }
}

/// A running call of `subscribe`: keeps the room while it lasts.
struct Joining<'s> {
    shared: &'s NatsBusInner,
    live: Arc<LiveRoom>,
}

impl<'s> Joining<'s> {
    fn enter(shared: &'s NatsBusInner, room: &Room) -> Result<Self, BusUnavailable> {
        let partition = shared.partition_of(room);
        let mut rooms = partition.rooms();
        let live = if let Some(live) = rooms.get(room) {
            Arc::clone(live)
        } else {
            if shared.rooms.load(Ordering::Relaxed) >= shared.config.rooms_max {
                return Err(BusUnavailable("too many rooms"));
            }
            shared.rooms.fetch_add(1, Ordering::Relaxed);
            let limits = shared.config.history.limits_of(room);
            let (epoch, held_max) = (partition.epoch(), shared.config.held_events_max);
            let live = Arc::new(LiveRoom::new(room.clone(), partition.number, limits, epoch, held_max));
            rooms.insert(room.clone(), Arc::clone(&live));
            live
        };
        live.lock().joins += 1;
        Ok(Self { shared, live })
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        leave(self.shared, &self.live.room, |state| state.joins -= 1);
    }
}

/// Changes a room's subscribers or joins, and drops the room when neither is left.
fn leave(shared: &NatsBusInner, room: &Room, change: impl FnOnce(&mut live::RoomState)) {
    let mut rooms = shared.partition_of(room).rooms();
    let Some(live) = rooms.get(room).cloned() else {
        return;
    };
    let mut state = live.lock();
    change(&mut state);
    if !state.is_forgotten() {
        return;
    }
    rooms.remove(room);
    shared.rooms.fetch_sub(1, Ordering::Relaxed);
    shared.keeping.reweigh(state.ring.weight(), 0);
    state.ring = ring::Ring::new(Arc::clone(&live.limits), Offset::ZERO);
    if let Some(feed) = state.feed.take() {
        feed.abort();
    }
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBus")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl Bus for NatsBus {
    fn publish(&self, envelope: Envelope) -> BoxFuture<'_, Result<Published, PublishError>> {
        Box::pin(publish::one(&self.shared, envelope.into_inner()))
    }

    fn publish_all(&self, parcels: Vec<Parcel>) -> BoxFuture<'_, Vec<Result<Published, PublishError>>> {
        Box::pin(lanes::all(&self.shared, parcels))
    }

    fn subscribe<'a>(
        &'a self,
        room: &'a Room,
        subscriber: Arc<dyn Subscriber>,
    ) -> BoxFuture<'a, Result<Position, BusUnavailable>> {
        Box::pin(self.subscribe(room, subscriber))
    }

    fn unsubscribe(&self, room: &Room, subscriber_id: u16) {
        leave(&self.shared, room, |state| {
            state.subscribers.retain(|known| known.id() != subscriber_id);
        });
    }

    fn head<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Position, BusUnavailable>> {
        Box::pin(self.head(room))
    }

    fn recover<'a>(
        &'a self,
        room: &'a Room,
        since: Position,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<Recovery, BusUnavailable>> {
        Box::pin(async move {
            self.shared.leased()?;
            self.shared.recover(room, since, bounds).await
        })
    }

    fn history<'a>(
        &'a self,
        room: &'a Room,
        page: Page,
        bounds: ReadBounds,
    ) -> BoxFuture<'a, Result<HistoryPage, BusUnavailable>> {
        Box::pin(async move {
            self.shared.leased()?;
            self.shared.history(room, page, bounds).await
        })
    }

    fn last_values<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<Vec<Arc<Event>>, BusUnavailable>> {
        Box::pin(async move {
            self.shared.leased()?;
            self.last_values(room).await
        })
    }

    fn stats<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Result<HistoryStats, BusUnavailable>> {
        Box::pin(self.shared.stats_of(room))
    }
}
