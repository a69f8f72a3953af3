//! What the observers of one room know, and what they have to be told next. Pure: time is handed in.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::config::Config;
use super::room::Attended;
use super::users::Users;
use crate::identity::UserId;
use crate::presence::{Change, Counts, Observer, Present, Roster};
use crate::room::Room;

/// How a room is told.
#[derive(Debug)]
enum View {
    /// By name. Holds how the observers know each user that has changed since they were told; `None`: not at all.
    Listed(HashMap<UserId, Option<Present>>),
    /// In counts, and not again before this time.
    Counted { not_before_ms: u64 },
}

/// A room's observers and what they have been told.
pub(super) struct Watched {
    observers: Vec<Arc<dyn Observer>>,
    /// Of the last change. Drawn from one sequence of the process, so that a late change of a room that was empty for a
    /// while is never taken for a new one.
    version: u64,
    counts: Counts,
    view: View,
    /// Whether the room is in line to be told.
    pub(super) queued: bool,
}

/// What there is to tell.
#[derive(Debug)]
pub(super) enum Telling {
    /// Nothing.
    Nothing,
    /// Something, but not yet.
    Later,
    /// This.
    Now(Arc<Change>),
}

impl Watched {
    /// Remembers how the observers know a user, unless it has changed before.
    pub(super) fn keep(&mut self, user: &UserId, shown: impl FnOnce() -> Option<Present>) {
        if let View::Listed(before) = &mut self.view
            && !before.contains_key(user)
        {
            before.insert(user.clone(), shown());
        }
    }

    pub(super) fn observers(&self) -> &[Arc<dyn Observer>] {
        &self.observers
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("observers", &self.observers.len())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Attended {
    /// Adds or replaces an observer; the answer is what all of them know.
    pub(super) fn observe(&mut self, observer: Arc<dyn Observer>, config: &Config, versions: &AtomicU64) -> Roster {
        let counts = self.counts();
        let watched = self.watched.get_or_insert_with(|| {
            let listed = counts.users <= config.listed_max;
            let view = if listed {
                View::Listed(HashMap::new())
            } else {
                View::Counted { not_before_ms: 0 }
            };
            Box::new(Watched {
                observers: Vec::new(),
                version: next(versions),
                counts,
                view,
                queued: false,
            })
        });
        let id = observer.id();
        match watched.observers.iter_mut().find(|known| known.id() == id) {
            Some(known) => *known = observer,
            None => watched.observers.push(observer),
        }
        Roster {
            version: watched.version,
            counts: watched.counts,
            members: match &watched.view {
                View::Listed(before) => Some(told(&self.users, before)),
                View::Counted { .. } => None,
            },
        }
    }

    pub(super) fn unobserve(&mut self, observer_id: u16) {
        if let Some(watched) = &mut self.watched {
            watched.observers.retain(|known| known.id() != observer_id);
            if watched.observers.is_empty() {
                self.watched = None;
            }
        }
    }

    /// What the observers have to be told now.
    pub(super) fn tell(&mut self, room: &Room, now_ms: u64, config: &Config, versions: &AtomicU64) -> Telling {
        let counts = self.counts();
        let Some(watched) = &mut self.watched else {
            return Telling::Nothing;
        };
        let mut change = Change {
            room: room.clone(),
            version: 0,
            counts,
            joined: Vec::new(),
            updated: Vec::new(),
            left: Vec::new(),
            counts_only: false,
        };
        let again_ms = now_ms.saturating_add(u64::try_from(config.counts_interval.as_millis()).unwrap_or(u64::MAX));
        match &mut watched.view {
            View::Listed(_) if counts.users > config.listed_max => {
                change.counts_only = true;
                watched.view = View::Counted {
                    not_before_ms: again_ms,
                };
            }
            View::Listed(before) => {
                for (user, was) in std::mem::take(before) {
                    let is = self.users.find(&user).map(|attendance| attendance.shown(&user));
                    add_difference(&mut change, was, is);
                }
                if change.joined.is_empty() && change.updated.is_empty() && change.left.is_empty() {
                    return Telling::Nothing;
                }
                sort(&mut change);
            }
            View::Counted { .. } if counts == watched.counts && counts.users > config.relisted_max() => {
                return Telling::Nothing;
            }
            View::Counted { not_before_ms } if now_ms < *not_before_ms => return Telling::Later,
            View::Counted { .. } if counts.users <= config.relisted_max() => {
                change.joined = self
                    .users
                    .iter()
                    .map(|(user, attendance)| attendance.shown(user))
                    .collect();
                watched.view = View::Listed(HashMap::new());
            }
            View::Counted { not_before_ms } => {
                change.counts_only = true;
                *not_before_ms = again_ms;
            }
        }
        watched.version = next(versions);
        watched.counts = counts;
        change.version = watched.version;
        Telling::Now(Arc::new(change))
    }
}

/// The users as the observers know them: what has changed since is taken back.
fn told(users: &Users, before: &HashMap<UserId, Option<Present>>) -> Vec<Present> {
    let unchanged = users.iter().filter(|(user, _)| !before.contains_key(*user));
    let mut told: Vec<Present> = unchanged.map(|(user, attendance)| attendance.shown(user)).collect();
    if !before.is_empty() {
        told.extend(before.values().flatten().cloned());
        told.sort_unstable_by(|one, other| one.user.cmp(&other.user));
    }
    told
}

fn next(versions: &AtomicU64) -> u64 {
    versions.fetch_add(1, Ordering::Relaxed) + 1
}

fn add_difference(change: &mut Change, was: Option<Present>, is: Option<Present>) {
    match (was, is) {
        (None, Some(is)) => change.joined.push(is),
        (Some(was), None) => change.left.push(was.user),
        (Some(was), Some(is)) if was != is => change.updated.push(is),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn sort(change: &mut Change) {
    change.joined.sort_unstable_by(|one, other| one.user.cmp(&other.user));
    change.updated.sort_unstable_by(|one, other| one.user.cmp(&other.user));
    change.left.sort_unstable();
}
