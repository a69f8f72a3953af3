//! A node's knowledge of one partition: its epoch, the highest sequence of its stream, and its rooms with members here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::gate::SingleFlight;
use super::incarnation::{Identity, Incarnation};
use super::live::LiveRoom;
use super::proof::Removed;
use super::server::StreamState;
use crate::nats::request::RequestFailed;
use crate::position::{Epoch, Offset, Position};
use crate::room::Room;
use crate::sync::lock;

/// The progress of the sweeps.
#[derive(Debug, Default)]
struct Swept {
    /// The stream's sequence as known to the last sweep, and to the one before it.
    through: [u64; 2],
    at: Option<Instant>,
}

/// One partition.
pub(super) struct Partition {
    pub number: u16,
    pub stream: String,
    /// Its stream's epoch and highest sequence.
    pub incarnation: Incarnation,
    /// The oldest sequence in the stream when it was last checked.
    first: AtomicU64,
    /// The number of sequences removed after that, at the same time.
    removed_count: AtomicU64,
    /// The connection number for which it was last verified that nothing was missed.
    verified_connects: AtomicU64,
    /// A room observed an inconsistency.
    doubted: AtomicBool,
    swept: Mutex<Swept>,
    /// Counts sweeps.
    sweeps: AtomicU32,
    rooms: Mutex<HashMap<Room, Arc<LiveRoom>>>,
    /// Single-flight: a barrier, then the stream's state.
    pub joins: SingleFlight<Result<StreamState, RequestFailed>>,
    /// Single-flight: the stream's state.
    pub states: SingleFlight<Result<StreamState, RequestFailed>>,
    /// Single-flight: the sequences that the stream no longer holds.
    pub removed: SingleFlight<Result<Arc<Removed>, RequestFailed>>,
}

impl Partition {
    pub(super) fn new(number: u16, incarnation: Incarnation, connects: u64) -> Self {
        Self {
            number,
            stream: incarnation.stream.clone(),
            first: AtomicU64::new(0),
            removed_count: AtomicU64::new(0),
            verified_connects: AtomicU64::new(connects),
            doubted: AtomicBool::new(false),
            swept: Mutex::new(Swept {
                through: [incarnation.highest(); 2],
                at: Some(Instant::now()),
            }),
            sweeps: AtomicU32::new(1),
            rooms: Mutex::default(),
            joins: SingleFlight::default(),
            states: SingleFlight::default(),
            removed: SingleFlight::default(),
            incarnation,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.incarnation.identity()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.incarnation.epoch()
    }

    pub(super) fn position(&self, seq: u64) -> Position {
        Position {
            epoch: self.epoch(),
            offset: Offset(seq),
        }
    }

    pub(super) fn highest(&self) -> u64 {
        self.incarnation.highest()
    }

    /// Records that this sequence exists.
    pub(super) fn has(&self, seq: u64) {
        self.incarnation.has(seq);
    }

    /// Takes the stream's state.
    pub(super) fn is_in(&self, state: &StreamState) {
        self.has(state.last);
        self.first.fetch_max(state.first, Ordering::SeqCst);
        self.removed_count.store(state.removed, Ordering::SeqCst);
    }

    /// Returns the oldest sequence that the stream held, and how many it had removed after that, when it was last
    /// checked.
    pub(super) fn removals(&self) -> (u64, u64) {
        (
            self.first.load(Ordering::SeqCst),
            self.removed_count.load(Ordering::SeqCst),
        )
    }

    /// Takes another epoch. Earlier knowledge of the stream no longer holds.
    pub(super) fn begin(&self, identity: Identity, state: &StreamState) {
        self.incarnation.begin(identity, state.last);
        self.first.store(state.first, Ordering::SeqCst);
        *lock(&self.swept) = Swept {
            through: [0; 2],
            at: Some(Instant::now()),
        };
    }

    pub(super) fn rooms(&self) -> MutexGuard<'_, HashMap<Room, Arc<LiveRoom>>> {
        lock(&self.rooms)
    }

    pub(super) fn room(&self, room: &Room) -> Option<Arc<LiveRoom>> {
        self.rooms().get(room).cloned()
    }

    pub(super) fn all_rooms(&self) -> Vec<Arc<LiveRoom>> {
        self.rooms().values().cloned().collect()
    }

    pub(super) fn is_verified_for(&self, connects: u64) -> bool {
        self.verified_connects.load(Ordering::SeqCst) == connects
    }

    pub(super) fn verified_for(&self, connects: u64) {
        self.verified_connects.store(connects, Ordering::SeqCst);
    }

    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::SeqCst);
    }

    pub(super) fn take_doubt(&self) -> bool {
        self.doubted.swap(false, Ordering::SeqCst)
    }

    /// Returns the first sequence that the next sweep has to request. A room whose first member joined during the last
    /// sweep was not part of it, so the start is where the sweep before that one was.
    pub(super) fn sweep_from(&self) -> u64 {
        lock(&self.swept).through[1] + 1
    }

    pub(super) fn swept(&self, through: Option<u64>, at: Instant) {
        let mut swept = lock(&self.swept);
        let newest = swept.through[0];
        swept.through = [through.unwrap_or(newest).max(newest), newest];
        swept.at = Some(at);
        self.sweeps.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the number of sweeps so far.
    pub(super) fn sweeps(&self) -> u32 {
        self.sweeps.load(Ordering::SeqCst)
    }

    /// Returns the time since all rooms were last swept.
    pub(super) fn unswept(&self) -> Duration {
        lock(&self.swept).at.map_or(Duration::MAX, |at| at.elapsed())
    }
}
