//! The sessions of one shard, found by their users.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::hub::local::Key;
use crate::identity::UserId;
use crate::room::Tenant;

/// A session and half a hash of its tenant and user. Users that share it are told apart by whoever asks.
#[derive(Debug)]
struct Entry {
    user: u32,
    key: Key,
}

/// The index: 9 bytes an entry, where a map of lists would take a hundred.
#[derive(Debug, Default)]
pub(super) struct ByUser {
    entries: HashTable<Entry>,
    hasher: RandomState,
}

impl ByUser {
    pub(super) fn insert(&mut self, tenant: &Tenant, user: &UserId, key: Key) {
        let user = self.hash(tenant, user);
        self.entries
            .insert_unique(spread(user), Entry { user, key }, |entry| spread(entry.user));
    }

    pub(super) fn remove(&mut self, tenant: &Tenant, user: &UserId, key: Key) {
        let user = self.hash(tenant, user);
        if let Ok(entry) = self.entries.find_entry(spread(user), |entry| entry.key == key) {
            entry.remove();
        }
        if self.entries.capacity() > 1024 && self.entries.len() * 4 < self.entries.capacity() {
            let entries = self.entries.len() * 2;
            self.entries.shrink_to(entries, |entry| spread(entry.user));
        }
    }

    /// The sessions of this user, and perhaps of others.
    pub(super) fn candidates(&self, tenant: &Tenant, user: &UserId) -> impl Iterator<Item = Key> {
        let user = self.hash(tenant, user);
        let entries = self.entries.iter_hash(spread(user));
        entries.filter(move |entry| entry.user == user).map(|entry| entry.key)
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
    fn hash(&self, tenant: &Tenant, user: &UserId) -> u32 {
        self.hasher.hash_one((tenant, user)) as u32
    }
}

/// The table looks at the lowest and at the highest bits of a hash.
const fn spread(half: u32) -> u64 {
    (half as u64) << 32 | half as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_is_found_by_its_user_until_it_is_removed() {
        let tenant = Tenant::default();
        let users: Vec<UserId> = (0..2000).map(|n| UserId::parse(&format!("u{n}")).unwrap()).collect();
        let mut index = ByUser::default();
        for (key, user) in (0..).zip(users.iter().chain(&users)) {
            index.insert(&tenant, user, key);
        }
        for (key, user) in (0..).zip(&users) {
            assert!(index.candidates(&tenant, user).any(|found| found == key));
            index.remove(&tenant, user, key);
            assert!(!index.candidates(&tenant, user).any(|found| found == key));
            assert!(index.candidates(&tenant, user).any(|found| found == key + 2000));
        }
        for (key, user) in (2000..).zip(&users) {
            index.remove(&tenant, user, key);
        }
        assert!(index.entries.is_empty() && index.entries.capacity() <= 1024);
    }
}
