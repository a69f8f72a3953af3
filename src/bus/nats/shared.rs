//! State shared by all parts of the bus.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::epochs::{Settled, Wrote};
use super::gate::SingleFlight;
use super::incarnation::Incarnation;
use super::ingest::Feed;
use super::last_values::ValueStream;
use super::live::{HistoryBudget, LiveRoom, RoomState};
use super::partition::Partition;
use super::permissions::Permissions;
use super::read::ColdRead;
use super::senders::StaleSenderFilter;
use super::server::{Server, StreamState};
use super::streams::Shape;
use super::troubles::Troubles;
use super::{Config, epochs, last_values, streams};
use crate::bus::BusUnavailable;
use crate::event::Timestamp;
use crate::lease::Lease;
use crate::nats::agreement::Agreement;
use crate::nats::request::RequestFailed;
use crate::nats::{NatsError, Subjects};
use crate::room::Room;
use crate::sync::lock;

/// The reason why a node whose settings differ from the cluster's serves nothing.
pub(super) const REFUSED: &str = "the node's settings differ from the cluster's";

type ColdReads = HashMap<(Room, Option<u64>), Arc<SingleFlight<ColdRead>>>;

/// State shared by all parts of the bus.
pub(super) struct NatsBusInner {
    pub config: Config,
    pub lease: Lease,
    pub server: Server,
    /// The settings that all nodes share.
    pub agreement: Arc<Agreement>,
    /// The stream of last values.
    pub values: ValueStream,
    pub troubles: Troubles,
    pub permissions: Permissions,
    /// A stream is missing.
    pub is_lost: AtomicBool,
    /// Since they were last reported.
    pub epochs_begun: AtomicU32,
    pub records_written_back: AtomicU32,
    pub partitions: Box<[Partition]>,
    pub keeping: HistoryBudget,
    pub in_flight: Arc<Semaphore>,
    pub publishes: Arc<Semaphore>,
    pub feeds: mpsc::Sender<Feed>,
    /// Rooms queued for repair, each once.
    pub repairs: Mutex<VecDeque<Arc<LiveRoom>>>,
    pub repair_wanted: Notify,
    /// The connection or a stream has to be checked now.
    pub check_wanted: Notify,
    /// The random number by which this bus identifies itself to other nodes.
    pub sender: u64,
    /// The newest connection of each sender of ephemeral events.
    pub senders: StaleSenderFilter,
    /// Messages on rooms' subjects that no node has written.
    pub foreign: AtomicU64,
    /// Rooms with members here.
    pub rooms: AtomicUsize,
    /// Single-flight reads of rooms without members here, by request.
    pub cold: Mutex<ColdReads>,
}

impl NatsBusInner {
    pub(super) fn partition(&self, number: u16) -> &Partition {
        &self.partitions[usize::from(number)]
    }

    pub(super) fn partition_of(&self, room: &Room) -> &Partition {
        self.partition(Subjects::partition(room, self.server.nats.config().partitions))
    }

    /// Returns the time by which events are stored and aged.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.server.nats.clock().now_ms())
    }

    /// Returns the number of times the fan-out connection was made.
    pub(super) fn connects(&self) -> u64 {
        self.server.nats.fanout().connects()
    }

    /// Returns the shape of the streams, by the limits in force.
    pub(super) fn shape(&self) -> Shape {
        Shape::in_force(&self.agreement)
    }

    /// Returns the number of events of a room that the streams should keep. The real number may be less or more: other
    /// nodes and operators change the streams, too.
    pub(super) fn retained_max(&self) -> usize {
        self.shape().events_max
    }

    /// Returns the time within which no event that followed a sweep can have expired.
    pub(super) fn trusted_age(&self) -> Duration {
        self.shape().age_max / 2
    }

    pub(super) fn leased(&self) -> Result<(), BusUnavailable> {
        if !self.agreement.holds() {
            return Err(BusUnavailable(REFUSED));
        }
        if self.lease.holds() {
            Ok(())
        } else {
            Err(BusUnavailable("the node has no lease"))
        }
    }

    /// Takes in-flight permits for so many events, or for as many as there are at all.
    pub(super) async fn permits(&self, events: usize) -> Option<OwnedSemaphorePermit> {
        let events = u32::try_from(events.min(self.config.in_flight_events_max)).ok()?;
        Arc::clone(&self.in_flight).acquire_many_owned(events).await.ok()
    }

    /// Queues a room for repair if it has a gap.
    pub(super) fn repair_if_needed(&self, live: &Arc<LiveRoom>, state: &mut RoomState) {
        let needed = state.chain.fetch().is_some() || (state.chain.is_joining() && state.reset);
        if needed && !state.queued {
            state.queued = true;
            lock(&self.repairs).push_back(Arc::clone(live));
            self.repair_wanted.notify_one();
        }
    }

    /// Subscribes to a room in NATS. The unread messages of an earlier subscription are dropped.
    pub(super) async fn listen(&self, live: &Arc<LiveRoom>) -> Result<(), RequestFailed> {
        let subject = self.server.nats.subjects().live(&live.room);
        let subscribed = self.server.nats.fanout().subscribe(subject).await;
        let messages = subscribed.map_err(RequestFailed::unavailable)?;
        let (feed, abort) = Feed::new(Arc::clone(live), messages);
        // The old one ends first, so that no ephemeral event is delivered twice.
        if let Some(old) = live.lock().feed.take() {
            old.abort();
        }
        let fed = self.feeds.send(feed).await;
        fed.map_err(|_| RequestFailed::unavailable("the bus has ended"))?;
        live.lock().feed = Some(abort);
        Ok(())
    }

    /// Returns the state of a partition's stream. A stream that is another one than before, or has gone back, begins a
    /// new epoch first.
    pub(super) async fn state(&self, partition: &Partition) -> Result<StreamState, RequestFailed> {
        if !self.agreement.holds() {
            return Err(RequestFailed::unavailable(REFUSED));
        }
        let known = partition.highest();
        let state = self.looked_at(&partition.stream).await?;
        if state.created == partition.identity().created && state.last >= known {
            partition.is_in(&state);
            return Ok(state);
        }
        self.renew(partition).await
    }

    /// Returns the state of a stream. A lost one is queued to be recreated, and a sealed one is reported.
    pub(super) async fn looked_at(&self, stream: &str) -> Result<StreamState, RequestFailed> {
        let state = self.server.state(stream).await;
        match &state {
            Ok(state) if state.sealed => self
                .troubles
                .set(stream, "it is sealed: delete it, and it is recreated"),
            Ok(_) => self.troubles.clear(stream),
            Err(RequestFailed::NoStream) => {
                self.is_lost.store(true, Ordering::SeqCst);
                self.check_wanted.notify_one();
            }
            Err(RequestFailed::ReadOnly | RequestFailed::Unavailable(_)) => {}
        }
        state
    }

    /// Checks whether the epoch is still the same, and begins the one that holds now. On return, everything reported
    /// from then on is in that epoch.
    pub(super) async fn renew(&self, partition: &Partition) -> Result<StreamState, RequestFailed> {
        let own = &partition.incarnation;
        let _turn = own.renewal.lock().await;
        let settled = self.settle(own).await?;
        if settled.identity != partition.identity() {
            let epoch = settled.identity.epoch;
            tracing::debug!(partition = partition.number, %epoch, "epoch ended");
            partition.begin(settled.identity, &settled.state);
            for live in partition.all_rooms() {
                let mut room = live.lock();
                // A room in its first join has reported no position yet.
                if !room.chain.is_joining() {
                    room.chain.restart();
                    room.reset = true;
                }
                self.repair_if_needed(&live, &mut room);
            }
        }
        partition.is_in(&settled.state);
        Ok(settled.state)
    }

    /// Settles the epoch of a stream that was known before. A new one is announced to the other nodes at once.
    pub(super) async fn settle(&self, of: &Incarnation) -> Result<Settled, RequestFailed> {
        let known = of.known();
        let settled = epochs::settle(&self.server, (&of.stream, &of.record), Some(&known)).await?;
        match settled.wrote {
            Some(Wrote::First | Wrote::New) => {
                self.epochs_begun.fetch_add(1, Ordering::Relaxed);
                self.agreement.announce().await;
            }
            Some(Wrote::Back) => {
                self.records_written_back.fetch_add(1, Ordering::Relaxed);
            }
            None => {}
        }
        Ok(settled)
    }

    /// Creates the missing streams, and updates the others to the shape in force.
    pub(super) async fn restore_streams(&self) -> Result<(), NatsError> {
        self.agreement.make_stream().await?;
        let (settings, subjects) = (self.server.nats.config(), self.server.nats.subjects());
        let context = self.server.nats.jetstream_to_make_streams();
        streams::ensure_all(&context, settings, subjects, &self.shape()).await?;
        let failed = |failed: RequestFailed| NatsError::JetStream(failed.to_string());
        for partition in &self.partitions {
            self.state(partition).await.map_err(failed)?;
        }
        last_values::look(self).await.map_err(failed)?;
        Ok(())
    }

    /// Publishes a nudge. It costs little and is only a hint: when it is lost, the sweep finds the same.
    pub(super) async fn nudge(&self, room: &Room, seq: u64) {
        let subject = self.server.nats.subjects().live_of(room, crate::nats::Live::Nudge);
        let client = self.server.nats.control().client();
        if let Err(error) = client.publish(subject, seq.to_string().into()).await {
            tracing::debug!(%error, "nudge not sent");
        }
    }
}
