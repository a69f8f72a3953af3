//! What a node knows of one partition: its epoch, how far its stream has come, which of its rooms have members here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::gate::Gate;
use super::incarnation::{Identity, Incarnation};
use super::live::LiveRoom;
use super::proof::Removed;
use super::server::{Silence, StreamState};
use crate::position::{Epoch, Offset, Position};
use crate::room::Room;

/// How far the sweeps have come.
#[derive(Debug, Default)]
struct Swept {
    /// Through where the last sweep, and the one before it, knew the stream.
    through: [u64; 2],
    at: Option<Instant>,
}

/// One partition.
pub(super) struct Partition {
    pub number: u16,
    pub stream: String,
    /// Its stream's epoch, and how far that has come.
    pub incarnation: Incarnation,
    /// The oldest sequence that was there when the stream was last looked at.
    first: AtomicU64,
    /// How many sequences after that it had removed then.
    removed_count: AtomicU64,
    /// For which connection it was last checked that nothing was missed.
    verified_connects: AtomicU64,
    /// Whether a room saw something that must not be.
    doubted: AtomicBool,
    swept: Mutex<Swept>,
    /// Counts sweeps.
    sweeps: AtomicU32,
    rooms: Mutex<HashMap<Room, Arc<LiveRoom>>>,
    /// A barrier and then how the stream is.
    pub joins: Gate<Result<StreamState, Silence>>,
    /// How the stream is.
    pub states: Gate<Result<StreamState, Silence>>,
    /// What the stream holds no more.
    pub removed: Gate<Result<Arc<Removed>, Silence>>,
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
            joins: Gate::default(),
            states: Gate::default(),
            removed: Gate::default(),
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

    /// This sequence exists.
    pub(super) fn has(&self, seq: u64) {
        self.incarnation.has(seq);
    }

    /// Takes in how the stream is.
    pub(super) fn is_in(&self, state: &StreamState) {
        self.has(state.last);
        self.first.fetch_max(state.first, Ordering::SeqCst);
        self.removed_count.store(state.removed, Ordering::SeqCst);
    }

    /// The oldest sequence that the stream held, and how many it had removed after that, when it was last looked at.
    pub(super) fn removals(&self) -> (u64, u64) {
        (
            self.first.load(Ordering::SeqCst),
            self.removed_count.load(Ordering::SeqCst),
        )
    }

    /// Takes another epoch. What was known of the stream is not true any more.
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

    /// Nothing at or before this has to be asked for. A room whose first member came while the last sweep was under way
    /// was not part of it, so it is where the sweep before that one was.
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

    /// The number of sweeps so far.
    pub(super) fn sweeps(&self) -> u32 {
        self.sweeps.load(Ordering::SeqCst)
    }

    /// How long ago all rooms were last looked at.
    pub(super) fn unswept(&self) -> Duration {
        lock(&self.swept).at.map_or(Duration::MAX, |at| at.elapsed())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
