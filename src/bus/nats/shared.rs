//! What all parts of the bus share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::gate::Gate;
use super::ingest::Feed;
use super::live::{Keeping, LiveRoom, RoomState};
use super::partition::{Partition, lock};
use super::read::ColdRead;
use super::senders::Senders;
use super::server::{Server, Silence, StreamState};
use super::{Config, epochs, streams};
use crate::bus::BusUnavailable;
use crate::event::Timestamp;
use crate::lease::Lease;
use crate::nats::{NatsError, Subjects};
use crate::room::Room;

type ColdReads = HashMap<(Room, Option<u64>), Arc<Gate<ColdRead>>>;

/// What all parts of the bus share.
pub(super) struct Shared {
    pub config: Config,
    pub lease: Lease,
    pub server: Server,
    pub partitions: Box<[Partition]>,
    pub keeping: Keeping,
    pub in_flight: Arc<Semaphore>,
    pub publishes: Arc<Semaphore>,
    pub feeds: mpsc::Sender<Feed>,
    /// Rooms in line to be repaired, each once.
    pub repairs: Mutex<VecDeque<Arc<LiveRoom>>>,
    pub repair_wanted: Notify,
    /// The connection or a stream has to be looked at now.
    pub check_wanted: Notify,
    /// This bus, as it names itself to others.
    pub sender: u64,
    /// Who sent ephemeral events, over which connection.
    pub senders: Senders,
    /// Messages on rooms' subjects that no node has written.
    pub foreign: AtomicU64,
    /// Rooms with members here.
    pub rooms: AtomicUsize,
    /// Reads of rooms without members here, by what is asked.
    pub cold: Mutex<ColdReads>,
}

impl Shared {
    pub(super) fn partition(&self, number: u16) -> &Partition {
        &self.partitions[usize::from(number)]
    }

    pub(super) fn partition_of(&self, room: &Room) -> &Partition {
        self.partition(Subjects::partition(room, self.server.nats.config().partitions))
    }

    /// The time by which events are stored, and get old.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.server.nats.clock().now_ms())
    }

    /// How often the fan-out connection has been made.
    pub(super) fn connects(&self) -> u64 {
        self.server.nats.fanout().connects()
    }

    /// How many events of a room the streams are to keep. What they do keep may be less or more: other nodes and operators
    /// change them, too.
    pub(super) fn retained_max(&self) -> usize {
        streams::events_max(&self.config)
    }

    /// For how long nothing that came after a look can have been dropped for its age.
    pub(super) fn trusted_age(&self) -> Duration {
        streams::age_max(self.server.nats.config(), &self.config) / 2
    }

    pub(super) fn leased(&self) -> Result<(), BusUnavailable> {
        if self.lease.holds() {
            Ok(())
        } else {
            Err(BusUnavailable("the node has no lease"))
        }
    }

    /// So many places among the events in flight, or as many as there are at all.
    pub(super) async fn permits(&self, events: usize) -> Option<OwnedSemaphorePermit> {
        let events = u32::try_from(events.min(self.config.in_flight_events_max)).ok()?;
        Arc::clone(&self.in_flight).acquire_many_owned(events).await.ok()
    }

    /// Puts a room in line if something of it is missing.
    pub(super) fn repair_if_needed(&self, live: &Arc<LiveRoom>, state: &mut RoomState) {
        let needed = state.chain.fetch().is_some() || (state.chain.is_joining() && state.reset);
        if needed && !state.queued {
            state.queued = true;
            lock(&self.repairs).push_back(Arc::clone(live));
            self.repair_wanted.notify_one();
        }
    }

    /// Subscribes to a room in NATS. What an earlier subscription still has to read is dropped.
    pub(super) async fn listen(&self, live: &Arc<LiveRoom>) -> Result<(), Silence> {
        let subject = self.server.nats.subjects().live(&live.room);
        let subscribed = self.server.nats.fanout().subscribe(subject).await;
        let messages = subscribed.map_err(|_| Silence::Away)?;
        let (feed, abort) = Feed::new(Arc::clone(live), messages);
        // Ended first, so that nothing ephemeral comes twice.
        if let Some(old) = live.lock().feed.take() {
            old.abort();
        }
        self.feeds.send(feed).await.map_err(|_| Silence::Away)?;
        live.lock().feed = Some(abort);
        Ok(())
    }

    /// How a partition's stream is. A stream that is another one than before, or has gone back, begins a new epoch first.
    pub(super) async fn state(&self, partition: &Partition) -> Result<StreamState, Silence> {
        let known = partition.highest();
        let state = self.server.state(&partition.stream).await?;
        if state.created == partition.identity().created && state.last >= known {
            partition.is_in(&state);
            return Ok(state);
        }
        self.renew(partition).await
    }

    /// Looks whether the epoch is still the same, and begins the one that holds now. Returns once everything that is
    /// said from now on is said in it.
    pub(super) async fn renew(&self, partition: &Partition) -> Result<StreamState, Silence> {
        let _turn = partition.renewal.lock().await;
        let (own, known) = (partition.identity(), partition.highest());
        let state = self.server.state(&partition.stream).await?;
        let identity = epochs::settle(&self.server, partition.number, &state, Some((own.epoch, known))).await?;
        if identity != own {
            tracing::warn!(partition = partition.number, epoch = %identity.epoch, "an epoch ended");
            partition.begin(identity, &state);
            for live in partition.all_rooms() {
                let mut room = live.lock();
                // One that is joining for the first time has promised nothing yet.
                if !room.chain.is_joining() {
                    room.chain.restart();
                    room.reset = true;
                }
                self.repair_if_needed(&live, &mut room);
            }
        }
        partition.is_in(&state);
        Ok(state)
    }

    /// Makes the streams that are not there.
    pub(super) async fn restore_streams(&self) -> Result<(), NatsError> {
        streams::ensure_all(
            &self.server.context(),
            self.server.nats.config(),
            self.server.nats.subjects(),
            &self.config,
        )
        .await?;
        for partition in &self.partitions {
            let renewed = self.state(partition).await;
            renewed.map_err(|silence| NatsError::JetStream(silence.to_string()))?;
        }
        Ok(())
    }

    /// A nudge costs little and is only a hint: when it does not arrive, the sweep finds what it would have said.
    pub(super) async fn nudge(&self, room: &Room, seq: u64) {
        let subject = self.server.nats.subjects().live_of(room, crate::nats::Live::Nudge);
        let client = self.server.nats.control().client();
        if let Err(error) = client.publish(subject, seq.to_string().into()).await {
            tracing::debug!(%error, "a nudge was not sent");
        }
    }
}
