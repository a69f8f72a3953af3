//! Answers that are kept: bounded in number and in time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Answer;
use crate::identity::UserId;
use crate::policy::Revocation;
use crate::proto::v1;
use crate::room::{Room, Tenant};
use crate::sync::lock;

/// The facts that an answer depends on. The connection is left out: a user's tabs share answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) tenant: Tenant,
    pub(super) user: UserId,
    /// A keyed hash of the claims: a token that says less must not profit from one that says more.
    pub(super) claims: u64,
    pub(super) action: v1::Action,
    pub(super) room: Option<Room>,
    pub(super) event: Box<str>,
}

#[derive(Debug)]
struct Kept {
    answer: Answer,
    until: Instant,
}

/// The answers kept.
#[derive(Debug)]
pub(super) struct Answers {
    entries_max: usize,
    kept: Mutex<HashMap<Key, Kept>>,
    forgotten: AtomicU64,
}

impl Answers {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            kept: Mutex::default(),
            forgotten: AtomicU64::new(0),
        }
    }

    pub(super) fn look(&self, key: &Key) -> Option<Answer> {
        let kept = lock(&self.kept);
        let entry = kept.get(key).filter(|entry| entry.until > Instant::now())?;
        Some(entry.answer.clone())
    }

    /// Returns the number of times that answers were forgotten so far; see [`Self::keep`].
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// Keeps an answer for `ttl`, unless something was forgotten since `asked`: it may have been this.
    pub(super) fn keep(&self, key: Key, answer: &Answer, ttl: Duration, asked: u64) {
        if ttl.is_zero() || self.entries_max == 0 {
            return;
        }
        let now = Instant::now();
        let mut kept = lock(&self.kept);
        if self.forgotten() != asked {
            return;
        }
        // An answer in the place of an older one needs no room.
        if kept.len() >= self.entries_max && !kept.contains_key(&key) {
            make_room(&mut kept, self.entries_max, now);
        }
        let answer = answer.clone();
        let until = now + ttl;
        kept.insert(key, Kept { answer, until });
    }

    pub(super) fn forget(&self, revocation: &Revocation) {
        let mut kept = lock(&self.kept);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        kept.retain(|key, _| {
            let room = key.room.as_ref();
            !room.is_some_and(|room| revocation.reaches(room) && revocation.may_hit(&key.user))
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.lock().unwrap().len()
    }
}

/// Drops what has expired, and a tenth of the rest if that was little: so the next calls need not look again.
fn make_room(kept: &mut HashMap<Key, Kept>, entries_max: usize, now: Instant) {
    kept.retain(|_, entry| entry.until > now);
    let mut surplus = kept.len().saturating_sub(entries_max - entries_max.div_ceil(10));
    kept.retain(|_, _| {
        let drop = surplus > 0;
        surplus -= usize::from(drop);
        !drop
    });
}
