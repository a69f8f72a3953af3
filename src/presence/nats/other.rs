//! This node's replica of another node's part of a room. Merges updates in any order, any number of times.

use std::collections::{BTreeMap, HashSet};

use super::book::NodeDigest;
use super::update::{Changed, DigestAnnouncement, Update};
use crate::identity::UserId;
use crate::presence::Departure;

/// The most updates that wait for their predecessor. More are dropped: the whole part is asked for anyway.
const HELD_MAX: usize = 32;

/// Another node's part of a room.
#[derive(Debug, Default)]
pub(super) struct PeerView {
    pub book: NodeDigest,
    held: BTreeMap<u64, Update>,
    /// The newest version announced.
    heard_of: u64,
    /// Time at which the node is asked for the missing part, if something is missing.
    pub ask_at_ms: Option<u64>,
    /// Time at which the part was last known to be complete.
    pub confirmed_ms: u64,
}

/// Outcome of merging a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// Shows these changes, possibly none. Nothing is missing.
    Current(Vec<Changed>),
    /// Shows these changes. Something is missing.
    Missing(Vec<Changed>),
}

impl PeerView {
    pub(super) fn update(&mut self, update: Update, now_ms: u64) -> Merged {
        let mut shown = Vec::new();
        self.heard_of = self.heard_of.max(update.version);
        if update.previous == 0 {
            // The same version once more repairs a book whose digest differed.
            if update.version >= self.book.version {
                self.replace(update, &mut shown);
            }
        } else if update.begins && self.book.is_empty() && update.version > self.book.version {
            // The node had nothing and is known to have nothing: everything in between is past.
            self.replace(update, &mut shown);
        } else if update.version > self.book.version {
            self.hold(update);
        }
        self.apply_held(&mut shown);
        self.judge(shown, now_ms)
    }

    /// Reports whether an announced version is missing.
    pub(super) const fn is_missing(&self) -> bool {
        self.ask_at_ms.is_some()
    }

    pub(super) fn stand(&mut self, stand: DigestAnnouncement, now_ms: u64) -> Merged {
        if stand.users == 0 && self.book.is_empty() {
            // Everything in between is past. A node that does not follow the room stands at any version.
            self.book.version = self.book.version.max(stand.version);
        }
        let own = self.book.stand(stand.incarnation);
        self.heard_of = self.heard_of.max(stand.version);
        // Equal versions with unequal digests: the replica is wrong, not late.
        if stand.version == own.version && stand != own {
            return Merged::Missing(Vec::new());
        }
        self.judge(Vec::new(), now_ms)
    }

    fn judge(&mut self, shown: Vec<Changed>, now_ms: u64) -> Merged {
        if self.heard_of > self.book.version {
            return Merged::Missing(shown);
        }
        self.ask_at_ms = None;
        self.confirmed_ms = now_ms;
        Merged::Current(shown)
    }

    fn hold(&mut self, update: Update) {
        self.held.insert(update.version, update);
        if self.held.len() > HELD_MAX {
            self.held.pop_first();
        }
    }

    fn apply_held(&mut self, shown: &mut Vec<Changed>) {
        while let Some(first) = self.held.first_entry() {
            let is_past = *first.key() <= self.book.version;
            if !is_past && first.get().previous != self.book.version {
                return;
            }
            let update = first.remove();
            if !is_past {
                self.book.version = update.version;
                let changed = update.changes.into_iter();
                shown.extend(changed.filter(|one| self.book.set(&one.user, one.now.as_ref().ok())));
            }
        }
    }

    /// Applies an update that builds on nothing: users that it does not name are gone, in an unknown manner.
    fn replace(&mut self, update: Update, shown: &mut Vec<Changed>) {
        self.book.version = update.version;
        let named: HashSet<&UserId> = update.changes.iter().map(|one| &one.user).collect();
        let gone: Vec<UserId> = self
            .book
            .users()
            .filter(|user| !named.contains(user))
            .cloned()
            .collect();
        for user in gone {
            self.book.set(&user, None);
            let now = Err(Departure::Lost);
            shown.push(Changed { user, now });
        }
        let changed = update.changes.into_iter();
        shown.extend(changed.filter(|one| self.book.set(&one.user, one.now.as_ref().ok())));
    }
}

#[cfg(test)]
mod tests;
