//! The bus put together from its parts, and the operations that need several of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::budget::HistoryBudget;
use super::epochs::{Settled, Wrote};
use super::health::StreamHealth;
use super::in_flight::InFlight;
use super::incarnation::Incarnation;
use super::ingest::{Feed, Intake};
use super::last_values::ValueStream;
use super::live::LiveRoom;
use super::partition::Partition;
use super::partitions::Partitions;
use super::read::ColdReads;
use super::repair::RepairQueue;
use super::server::{Server, StreamState};
use super::start::Started;
use super::streams::Shape;
use super::tap::Tap;
use super::{Config, epochs, last_values, streams};
use crate::bus::BusUnavailable;
use crate::event::Timestamp;
use crate::lease::Lease;
use crate::nats::NatsError;
use crate::nats::agreement::Agreement;
use crate::nats::request::RequestFailed;
use crate::room::Room;

/// The reason why a node whose settings differ from the cluster's serves nothing.
pub(super) const REFUSED: &str = "the node's settings differ from the cluster's";

/// The parts of the bus. Each keeps its state to itself.
pub(super) struct NatsBusInner {
    pub config: Config,
    lease: Lease,
    /// The settings that all nodes share.
    pub agreement: Arc<Agreement>,
    pub server: Server,
    /// The random number by which this bus identifies itself to other nodes.
    pub sender: u64,
    pub partitions: Partitions,
    /// The stream of last values.
    pub values: ValueStream,
    pub health: StreamHealth,
    pub budget: HistoryBudget,
    /// Events on their way to this node's members.
    pub deliveries: InFlight,
    /// Unacknowledged publishes.
    pub publishes: InFlight,
    pub intake: Intake,
    pub repairs: RepairQueue,
    /// Reads of rooms without members here.
    pub cold: ColdReads,
    /// The live events of all rooms, while there is a follower by pattern.
    pub tap: Tap,
}

impl NatsBusInner {
    /// Puts the parts together. Also returns the queue of subscriptions that [`super::ingest::run`] reads.
    pub(super) fn new(
        server: Server,
        agreement: Arc<Agreement>,
        streams: Started,
        config: Config,
        lease: Lease,
        connects: u64,
    ) -> (Self, mpsc::Receiver<Feed>) {
        let (intake, added) = Intake::new();
        let shared = Self {
            lease,
            agreement,
            sender: rand::random(),
            tap: Tap::new(streams.partitions.len()),
            partitions: Partitions::new(streams.partitions, connects),
            values: ValueStream::new(streams.values, connects),
            health: StreamHealth::default(),
            budget: HistoryBudget::new(config.history_bytes_max, config.last_value_names_max),
            deliveries: InFlight::new(config.in_flight_events_max),
            publishes: InFlight::new(server.nats.config().publishes_in_flight_max),
            intake,
            repairs: RepairQueue::default(),
            cold: ColdReads::default(),
            server,
            config,
        };
        (shared, added)
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
        self.intake.add(feed).await?;
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
        self.health.observe(stream, &state);
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
                self.repairs.add_if_needed(&live, &mut room);
            }
        }
        partition.is_in(&settled.state);
        Ok(settled.state)
    }

    /// Settles the epoch of a stream that was known before. A new one is announced to the other nodes at once.
    pub(super) async fn settle(&self, of: &Incarnation) -> Result<Settled, RequestFailed> {
        let known = of.known();
        let settled = epochs::settle(&self.server, (&of.stream, &of.record), Some(&known)).await?;
        if let Some(wrote) = settled.wrote {
            self.health.wrote(wrote);
        }
        if matches!(settled.wrote, Some(Wrote::First | Wrote::New)) {
            self.agreement.announce().await;
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
        for partition in self.partitions.iter() {
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
