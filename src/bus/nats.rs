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
//!   publisher may expect [`Offset::ZERO`](crate::position::Offset::ZERO) or any head reported for such a room, as long
//!   as the stream has removed nothing since.
//! - **Reads** of a room with members here reflect what was delivered here. Reads of other rooms ask the stream's
//!   leader.
//! - **Last values** are stored beside the history before the publish is acknowledged; their time is that of the
//!   publisher.
//! - **Ephemeral events** of one publisher follow its reliable ones that were acknowledged before.

mod budget;
mod chain;
mod config;
mod epochs;
mod follow;
mod gate;
mod health;
mod in_flight;
mod incarnation;
mod ingest;
mod lanes;
mod last_values;
mod live;
mod partition;
mod partitions;
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
mod tap;
#[cfg(test)]
mod tests;
mod troubles;
mod values;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
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
use crate::position::Position;
use crate::room::Room;
use crate::sync::lock;
use ingest::Feed;
use live::{LiveRoom, RoomState};
use partition::Partition;
use server::Server;
use shared::NatsBusInner;

/// The most bytes of a stored event around its payload: names, excluded receivers, headers.
pub const ENVELOPE_BYTES_MAX: usize = 16 << 10;

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
        let connects = nats.fanout().connects();
        let server = Server::new(nats, config.reads_in_flight_max.max(1));
        let streams = start::start(&server, &agreement).await?;
        let (shared, added) = NatsBusInner::new(server, agreement, streams, config, lease, connects);
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
            () = tap::run(&self.shared) => {}
        }
    }

    /// Returns what is held at this moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let shared = &self.shared;
        Usage {
            rooms: shared.partitions.rooms(),
            history_bytes: shared.budget.used(),
            in_flight_events: shared.deliveries.taken(),
            publishes: shared.publishes.taken(),
            foreign_messages: shared.intake.foreign(),
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
        shared.agreement.trouble().or_else(|| shared.health.trouble())
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
        let mut permits = shared.deliveries.take(held).await;
        let mut state = live.lock();
        state.join(live, head, &mut permits, &shared.budget);
        shared.repairs.add_if_needed(live, &mut state);
        Ok(())
    }

    async fn head(&self, room: &Room) -> Result<Position, BusUnavailable> {
        let partition = self.shared.partitions.of(room);
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
        let partition = shared.partitions.of(room);
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
        let config = &shared.config;
        let make = |partition: &Partition| {
            let limits = config.history.limits_of(room);
            let (epoch, held_max) = (partition.epoch(), config.held_events_max);
            LiveRoom::new(room.clone(), partition.number, limits, epoch, held_max)
        };
        let live = shared.partitions.begin_join(room, config.rooms_max, make)?;
        Ok(Self { shared, live })
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        let Self { shared, live } = self;
        let leave = |state: &mut RoomState| state.joins -= 1;
        shared.partitions.change(&live.room, &shared.budget, leave);
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
        let leave = |state: &mut RoomState| state.subscribers.retain(|known| known.id() != subscriber_id);
        self.shared.partitions.change(room, &self.shared.budget, leave);
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
