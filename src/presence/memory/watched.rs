//! The state that the observers of one room know, and the changes due to them. Pure: time is an argument.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::config::Config;
use super::room::RoomPresence;
use super::users::Users;
use crate::identity::UserId;
use crate::presence::{Change, Counts, Detail, Observer, Present, Roster};
use crate::room::Room;
use crate::units::millis;

/// The most rosters of different versions between two flushes. A later observer gets the newest of these, and the rest
/// with the next change.
const BATCHES_MAX: usize = 64;

/// State in which an observer knows a user that has changed since.
#[derive(Debug, Clone)]
enum Before {
    /// Unknown: the user was not in the room.
    Absent,
    /// Unknown, though the user may have been in the room.
    Unheard,
    Shown(Present),
}

/// The users changed since a version, as known to observers with a roster of it.
#[derive(Debug)]
struct Batch {
    version: u64,
    before: HashMap<UserId, Before>,
}

impl Batch {
    fn at(version: u64) -> Self {
        Self {
            version,
            before: HashMap::new(),
        }
    }
}

/// Form in which observers of members see the room.
#[derive(Debug)]
enum View {
    /// There is no such observer.
    Unseen,
    /// By name. Without a batch nothing has changed. The first batch is for all observers older than the second's version.
    Listed(Vec<Batch>),
    /// In counts: these, unless observers differ (`None`), and not again before this time.
    Counted { told: Option<Counts>, not_before_ms: u64 },
}

/// State known to the observers that see only counts.
#[derive(Debug)]
struct Counting {
    /// The counts; `None` when observers differ.
    told: Option<Counts>,
    not_before_ms: u64,
}

/// An observer with the details it has asked for.
struct Watcher {
    observer: Arc<dyn Observer>,
    members: bool,
    counts: bool,
}

/// A room's observers and the state known to them.
pub(super) struct Watched {
    watchers: Vec<Watcher>,
    /// Version of the last change or roster. Drawn from one sequence of the process, so that a late change of a room that
    /// was empty for a while is never taken for a new one.
    version: u64,
    view: View,
    counting: Option<Box<Counting>>,
    /// Set while the room is in the dirty set.
    pub(super) queued: bool,
}

/// The changes that are due.
#[derive(Debug, Default)]
pub(super) struct Telling {
    pub changes: Vec<Change>,
    /// Set when more will be due later.
    pub is_later: bool,
}

impl Watched {
    fn new(version: u64) -> Self {
        Self {
            watchers: Vec::new(),
            version,
            view: View::Unseen,
            counting: None,
            queued: false,
        }
    }

    /// Keeps the user as the observers know it, unless it has changed before. With `is_news`, a user unknown to them was not
    /// in the room.
    pub(super) fn keep(&mut self, user: &UserId, is_news: bool, shown: impl FnOnce() -> Option<Present>) {
        let View::Listed(batches) = &mut self.view else { return };
        if batches.is_empty() {
            batches.push(Batch::at(self.version));
        }
        let mut waiting = batches.iter_mut().filter(|batch| !batch.before.contains_key(user));
        let Some(first) = waiting.next() else { return };
        let before = match shown() {
            Some(present) => Before::Shown(present),
            None if is_news => Before::Absent,
            None => Before::Unheard,
        };
        for batch in waiting {
            batch.before.insert(user.clone(), before.clone());
        }
        first.before.insert(user.clone(), before);
    }

    /// Returns the observers of a detail.
    pub(super) fn observers(&self, detail: Detail) -> Vec<Arc<dyn Observer>> {
        let sees = |watcher: &&Watcher| match detail {
            Detail::Members => watcher.members,
            Detail::Counts => watcher.counts,
        };
        let watchers = self.watchers.iter().filter(sees);
        watchers.map(|watcher| Arc::clone(&watcher.observer)).collect()
    }

    fn admit(&mut self, observer: Arc<dyn Observer>, detail: Detail) {
        let id = observer.id();
        let index = self.watchers.iter().position(|known| known.observer.id() == id);
        let index = index.unwrap_or_else(|| {
            self.watchers.push(Watcher {
                observer: Arc::clone(&observer),
                members: false,
                counts: false,
            });
            self.watchers.len() - 1
        });
        let watcher = &mut self.watchers[index];
        watcher.observer = observer;
        match detail {
            Detail::Members => watcher.members = true,
            Detail::Counts => watcher.counts = true,
        }
    }

    fn draw(&mut self, versions: &AtomicU64) -> u64 {
        self.version = next(versions);
        self.version
    }

    /// Returns the roster for observers of members.
    fn roster(&mut self, users: &Users, counts: Counts, listed_max: u32, versions: &AtomicU64) -> Roster {
        if matches!(self.view, View::Unseen) {
            let told = Some(counts);
            self.view = if counts.users <= listed_max {
                View::Listed(Vec::new())
            } else {
                View::Counted { told, not_before_ms: 0 }
            };
        }
        let mut members = None;
        match &mut self.view {
            View::Listed(batches) => match batches.last() {
                Some(newest) if batches.len() >= BATCHES_MAX => {
                    members = Some(as_of(users, &newest.before));
                }
                Some(newest) if !newest.before.is_empty() => {
                    self.version = next(versions);
                    batches.push(Batch::at(self.version));
                }
                _ => {}
            },
            // The newcomer knows other counts than the rest: no common value, so the next flush reports to all.
            View::Counted { told, .. } => *told = told.filter(|told| *told == counts),
            View::Unseen => {}
        }
        if matches!(self.view, View::Listed(_)) {
            members.get_or_insert_with(|| users.iter().map(|(user, there)| there.shown(user)).collect());
        }
        Roster {
            version: self.version,
            counts,
            members,
            partial: false,
        }
    }

    /// Returns the roster for observers of counts.
    fn figures(&mut self, counts: Counts) -> Roster {
        let told = Some(counts);
        let counting = self
            .counting
            .get_or_insert_with(|| Box::new(Counting { told, not_before_ms: 0 }));
        counting.told = counting.told.filter(|told| *told == counts);
        Roster {
            version: self.version,
            counts,
            members: None,
            partial: false,
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("watchers", &self.watchers.len())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl RoomPresence {
    /// Adds or replaces an observer. Returns the current roster.
    pub(super) fn observe(
        &mut self,
        observer: Arc<dyn Observer>,
        detail: Detail,
        config: &Config,
        versions: &AtomicU64,
    ) -> Roster {
        let counts = self.counts();
        let watched = self
            .watched
            .get_or_insert_with(|| Box::new(Watched::new(next(versions))));
        watched.admit(observer, detail);
        match detail {
            Detail::Members => watched.roster(&self.users, counts, config.listed_max, versions),
            Detail::Counts => watched.figures(counts),
        }
    }

    pub(super) fn unobserve(&mut self, observer_id: u16) {
        if let Some(watched) = &mut self.watched {
            watched.watchers.retain(|known| known.observer.id() != observer_id);
            if watched.watchers.is_empty() {
                self.watched = None;
            }
        }
    }

    /// Returns the changes that are due to the observers.
    pub(super) fn tell(&mut self, room: &Room, now_ms: u64, config: &Config, versions: &AtomicU64) -> Telling {
        let counts = self.counts();
        let mut telling = Telling::default();
        let Some(watched) = &mut self.watched else {
            return telling;
        };
        let empty = Change {
            room: room.clone(),
            version: 0,
            known: 0..0,
            detail: Detail::Members,
            counts,
            joined: Vec::new(),
            present: Vec::new(),
            updated: Vec::new(),
            left: Vec::new(),
            counts_only: false,
        };
        watched.tell_members(&self.users, &empty, now_ms, config, versions, &mut telling);
        watched.tell_counts(&empty, now_ms, config, versions, &mut telling);
        telling
    }
}

impl Watched {
    fn tell_members(
        &mut self,
        users: &Users,
        empty: &Change,
        now_ms: u64,
        config: &Config,
        versions: &AtomicU64,
        telling: &mut Telling,
    ) {
        let counts = empty.counts;
        let again_ms = after(now_ms, config.counts_interval);
        match &mut self.view {
            View::Unseen => {}
            View::Listed(_) if counts.users > config.listed_max => {
                self.view = View::Counted {
                    told: Some(counts),
                    not_before_ms: again_ms,
                };
                telling.changes.push(self.counts_only(empty, Detail::Members, versions));
            }
            View::Listed(batches) => {
                let batches = std::mem::take(batches);
                if !batches.is_empty() {
                    self.tell_batches(users, batches, empty, versions, telling);
                }
            }
            View::Counted { told, .. } if *told == Some(counts) && counts.users > config.relisted_max() => {}
            View::Counted { not_before_ms, .. } if now_ms < *not_before_ms => telling.is_later = true,
            View::Counted { .. } if counts.users <= config.relisted_max() => {
                self.view = View::Listed(Vec::new());
                let version = self.draw(versions);
                telling.changes.push(Change {
                    version,
                    known: 0..version,
                    present: users.iter().map(|(user, there)| there.shown(user)).collect(),
                    ..empty.clone()
                });
            }
            View::Counted { told, not_before_ms } => {
                (*told, *not_before_ms) = (Some(counts), again_ms);
                telling.changes.push(self.counts_only(empty, Detail::Members, versions));
            }
        }
    }

    /// Turns each batch into a change of its own, for the observers older than the next batch.
    fn tell_batches(
        &mut self,
        users: &Users,
        batches: Vec<Batch>,
        empty: &Change,
        versions: &AtomicU64,
        telling: &mut Telling,
    ) {
        let version = self.draw(versions);
        let ends: Vec<u64> = batches
            .iter()
            .skip(1)
            .map(|next| next.version)
            .chain([version])
            .collect();
        let mut from = 0;
        for (batch, end) in batches.into_iter().zip(ends) {
            let mut change = Change {
                version,
                known: from..end,
                ..empty.clone()
            };
            from = end;
            for (user, was) in batch.before {
                let is = users.find(&user).map(|there| there.shown(&user));
                add_difference(&mut change, user, was, is);
            }
            // Changes that cancel out leave nothing to report.
            if change.lists_users() {
                sort(&mut change);
                telling.changes.push(change);
            }
        }
    }

    fn tell_counts(
        &mut self,
        empty: &Change,
        now_ms: u64,
        config: &Config,
        versions: &AtomicU64,
        telling: &mut Telling,
    ) {
        let Some(counting) = &mut self.counting else { return };
        if counting.told == Some(empty.counts) {
            return;
        }
        if now_ms < counting.not_before_ms {
            telling.is_later = true;
            return;
        }
        let is_large = empty.counts.users > config.listed_max;
        let interval = if is_large {
            config.counts_interval
        } else {
            config.counts_interval.min(config.counts_coalesce_interval)
        };
        counting.told = Some(empty.counts);
        counting.not_before_ms = after(now_ms, interval);
        telling.changes.push(self.counts_only(empty, Detail::Counts, versions));
    }

    fn counts_only(&mut self, empty: &Change, detail: Detail, versions: &AtomicU64) -> Change {
        let version = self.draw(versions);
        Change {
            version,
            known: 0..version,
            detail,
            counts_only: true,
            ..empty.clone()
        }
    }
}

/// Returns the users as they were, with every later change undone.
fn as_of(users: &Users, before: &HashMap<UserId, Before>) -> Vec<Present> {
    let unchanged = users.iter().filter(|(user, _)| !before.contains_key(*user));
    let mut shown: Vec<Present> = unchanged.map(|(user, there)| there.shown(user)).collect();
    shown.extend(before.values().filter_map(|before| match before {
        Before::Shown(present) => Some(present.clone()),
        Before::Absent | Before::Unheard => None,
    }));
    shown.sort_unstable_by(|one, other| one.user.cmp(&other.user));
    shown
}

fn after(now_ms: u64, interval: Duration) -> u64 {
    now_ms.saturating_add(millis(interval))
}

fn next(versions: &AtomicU64) -> u64 {
    versions.fetch_add(1, Ordering::Relaxed) + 1
}

fn add_difference(change: &mut Change, user: UserId, was: Before, is: Option<Present>) {
    match (was, is) {
        (Before::Absent, Some(is)) => change.joined.push(is),
        (Before::Unheard, Some(is)) => change.present.push(is),
        (Before::Shown(_), None) => change.left.push(user),
        (Before::Shown(was), Some(is)) if was != is => change.updated.push(is),
        (Before::Shown(_), Some(_)) | (Before::Absent | Before::Unheard, None) => {}
    }
}

fn sort(change: &mut Change) {
    let by_user = |one: &Present, other: &Present| one.user.cmp(&other.user);
    change.joined.sort_unstable_by(by_user);
    change.present.sort_unstable_by(by_user);
    change.updated.sort_unstable_by(by_user);
    change.left.sort_unstable();
}
