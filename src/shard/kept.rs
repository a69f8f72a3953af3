//! Sessions that are kept, so that their clients can come back to them: the record of each, written before a client is told of
//! what it says.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::clients::{Key, MembershipRight};
use super::entry::{Entering, EntryCause, EntryFacts, RoomEntry};
use super::members::before_replay;
use crate::json::Json;
use crate::recovery::{Record, RecordKey, RoomRecord, RoomRight, Store, StoreUnavailable, Stored};
use crate::room::Room;
use crate::session::recovery::{Pid, RecoveryTicket};
use crate::session::{PresenceMode, RoomChange};

/// Reason why the record of a session was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotKept {
    /// Another connection has taken the session over.
    Taken,
    /// Not possible now; it may have been written.
    Unavailable,
    /// A session that was taken over cannot go on exactly where it was.
    Inexact,
}

/// The coming back of a client to a session, until it is told.
#[derive(Debug)]
pub(super) struct Restoring {
    /// The token with which it came.
    pub token: String,
    /// [`crate::session::recovery::Claim::digest`].
    pub shown: u64,
    /// The number of rooms it is to be in.
    pub rooms: usize,
}

/// The rooms that a record has gained, each with what it said of them before.
pub(super) type Replaced = Vec<(Room, Option<RoomRecord>)>;

/// A kept session.
pub(super) struct Kept {
    pub ticket: RecoveryTicket,
    pub restoring: RefCell<Option<Restoring>>,
    store: Arc<dyn Store>,
    key: RecordKey,
    record: RefCell<Record>,
    /// Version and revision of what is written.
    written: Cell<(u64, u64)>,
    written_at: Cell<Instant>,
    /// One write at a time; changes meanwhile go along with the next.
    writing: Mutex<()>,
}

impl Kept {
    /// A session that was not kept before.
    pub fn begun(store: Arc<dyn Store>, record: Record) -> Self {
        let pid = Pid::random();
        let stored = Stored { record, revision: 0 };
        Self::new(store, pid, stored, 0)
    }

    /// A session that was taken over.
    pub fn taken(store: Arc<dyn Store>, pid: Pid, stored: Stored, restoring: Restoring) -> Self {
        let version = stored.record.version;
        let kept = Self::new(store, pid, stored, version);
        kept.restoring.replace(Some(restoring));
        kept
    }

    fn new(store: Arc<dyn Store>, pid: Pid, stored: Stored, written: u64) -> Self {
        Self {
            ticket: pid.into(),
            restoring: RefCell::default(),
            store,
            key: pid.hash(),
            written: Cell::new((written, stored.revision)),
            written_at: Cell::new(Instant::now()),
            record: RefCell::new(stored.record),
            writing: Mutex::default(),
        }
    }

    pub fn version(&self) -> u64 {
        self.record.borrow().version
    }

    /// Waits until the record is written as it is now.
    pub async fn saved(&self) -> Result<(), NotKept> {
        let wanted = self.version();
        let _turn = self.writing.lock().await;
        if self.written.get().0 >= wanted && !self.is_old() {
            return Ok(());
        }
        if self.write().await? {
            return Ok(());
        }
        // An earlier write whose outcome was not heard may stand there: that is no other's.
        let read = Arc::clone(&self.store).read(self.key).await;
        let revision = match read.map_err(|StoreUnavailable| NotKept::Unavailable)? {
            Some(stored) if stored.record.holder == self.record.borrow().holder => stored.revision,
            Some(_) => return Err(NotKept::Taken),
            // The store has lost it.
            None => 0,
        };
        self.written.set((self.written.get().0, revision));
        if self.write().await? {
            Ok(())
        } else {
            Err(NotKept::Taken)
        }
    }

    async fn write(&self) -> Result<bool, NotKept> {
        let record = self.record.borrow().clone();
        let (version, (_, revision)) = (record.version, self.written.get());
        let writing = Arc::clone(&self.store).write(self.key, record, revision);
        let written = writing.await.map_err(|StoreUnavailable| NotKept::Unavailable)?;
        if let Some(revision) = written {
            self.written.set((version, revision));
            self.written_at.set(Instant::now());
        }
        Ok(written.is_some())
    }

    /// Reports whether the record is to be written again, lest it be dropped for its age.
    pub fn is_old(&self) -> bool {
        let refresh_after = self.store.refresh_after();
        refresh_after.is_some_and(|after| self.written_at.get().elapsed() >= after)
    }

    /// Writes the record with rooms that are about to be entered, before the client is told of them. Returns what it said of
    /// them before, for those that are not entered after all.
    pub async fn entering(&self, entering: &Entering, cause: &EntryCause) -> Result<Replaced, NotKept> {
        let is_inexact = |(entry, found): &(RoomEntry, EntryFacts)| {
            let start = found.start.as_ref();
            entry.options.since.is_some() && !start.is_ok_and(|start| start.recovered)
        };
        let restoring = self.restoring.borrow().as_ref().map(|one| (one.shown, one.rooms));
        if restoring.is_some_and(|(_, rooms)| rooms != entering.len() || entering.iter().any(is_inexact)) {
            return Err(NotKept::Inexact);
        }
        let replaced = self.add(entering, cause, restoring.map(|(shown, _)| shown));
        if replaced.is_empty() && !matches!(cause, EntryCause::Opening(_)) {
            return Ok(replaced);
        }
        match self.saved().await {
            Ok(()) => Ok(replaced),
            Err(error) => {
                self.put_back(replaced);
                Err(error)
            }
        }
    }

    fn add(&self, entering: &Entering, cause: &EntryCause, shown: Option<u64>) -> Replaced {
        let record = &mut *self.record.borrow_mut();
        record.version += 1;
        let (connection, user) = (record.connection, record.user.clone());
        let (mut replaced, mut is_resent) = (Replaced::new(), false);
        for (entry, found) in entering {
            let Ok(start) = &found.start else { continue };
            let room = entry.permit.room();
            let is_sent = |event: &Arc<crate::event::Event>| !event.except.covers(connection, &user);
            is_resent |= start.replay.iter().any(is_sent);
            let index = record.rooms.iter().position(|known| known.room == *room);
            let before = index.map(|index| record.rooms.remove(index));
            record.rooms.push(RoomRecord {
                room: room.clone(),
                right: before
                    .as_ref()
                    .map(|before| before.right)
                    .filter(|right| *right != RoomRight::Own)
                    .unwrap_or_else(|| right(entry, cause)),
                presence: entry.options.presence,
                state: entry
                    .options
                    .state
                    .clone()
                    .or_else(|| entry.permit.terms().state.clone()),
                baseline: before_replay(start, entry.options.since),
                version: record.version,
            });
            replaced.push((room.clone(), before));
        }
        if let Some(shown) = shown {
            record.unconfirmed = is_resent.then_some(shown);
        }
        replaced
    }

    /// Undoes [`Self::entering`] for rooms; to be written with what comes next.
    pub fn put_back(&self, replaced: Replaced) {
        let record = &mut *self.record.borrow_mut();
        if replaced.is_empty() {
            return;
        }
        record.version += 1;
        for (room, before) in replaced {
            record.rooms.retain(|known| known.room != room);
            record.rooms.extend(before);
        }
    }

    /// Keeps of the rooms those of which `now` knows the present wish for presence. Reports whether anything has changed.
    pub fn retain(&self, now: impl Fn(&RoomRecord) -> Option<PresenceMode>) -> bool {
        let record = &mut *self.record.borrow_mut();
        let mut changed = false;
        record.rooms.retain_mut(|known| {
            let presence = now(known);
            changed |= presence != Some(known.presence);
            known.presence = presence.unwrap_or_default();
            presence.is_some()
        });
        record.version += u64::from(changed);
        changed
    }

    /// Sets what the client says about itself in a room.
    pub fn set_state(&self, room: &Room, state: Option<Json>) {
        let record = &mut *self.record.borrow_mut();
        if let Some(known) = record.rooms.iter_mut().find(|known| known.room == *room) {
            known.state = state;
            record.version += 1;
        }
    }

    /// Removes the record: the session has ended for good.
    pub async fn removed(&self) {
        let _turn = self.writing.lock().await;
        let (_, revision) = self.written.get();
        Arc::clone(&self.store).remove(self.key, revision).await;
    }
}

/// From the end of its last write on, the time of a session runs for which its client may be away.
impl Drop for Kept {
    fn drop(&mut self) {
        self.store.left(self.key, self.written.get().1);
    }
}

fn right(entry: &RoomEntry, cause: &EntryCause) -> RoomRight {
    match (entry.right(), cause) {
        (MembershipRight::Own, _) => RoomRight::Own,
        (
            MembershipRight::Backend,
            EntryCause::Server {
                change: RoomChange::Backend,
                ..
            },
        ) => RoomRight::Backend,
        _ => RoomRight::Home,
    }
}

/// The kept sessions of a shard.
#[derive(Default)]
pub(super) struct KeptSessions(HashMap<Key, Rc<Kept>>);

impl KeptSessions {
    pub fn get(&self, key: Key) -> Option<Rc<Kept>> {
        // Most gateways keep none: spares a hash.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&key).cloned()
    }

    /// The sessions whose records are to be written again.
    pub fn old(&self) -> Vec<(Key, Rc<Kept>)> {
        let old = self.0.iter().filter(|(_, kept)| kept.is_old());
        old.map(|(key, kept)| (*key, Rc::clone(kept))).collect()
    }

    pub fn insert(&mut self, key: Key, kept: Rc<Kept>) {
        self.0.insert(key, kept);
    }

    pub fn remove(&mut self, key: Key) -> Option<Rc<Kept>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.remove(&key)
    }
}
