//! The sessions of one shard, found by their users or their tokens.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

use super::Key;

/// A session and half a hash of its name. Names that share it are told apart by whoever asks.
#[derive(Debug)]
struct IndexEntry {
    name: u32,
    key: Key,
}

/// An index: 9 bytes an entry, where a map of lists would take a hundred. Names hash as tuples or texts do.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    entries: HashTable<IndexEntry>,
    hasher: RandomState,
}

impl KeyIndex {
    pub(super) fn insert(&mut self, name: &impl Hash, key: Key) {
        let name = self.hash(name);
        self.entries
            .insert_unique(spread(name), IndexEntry { name, key }, |entry| spread(entry.name));
    }

    pub(super) fn remove(&mut self, name: &impl Hash, key: Key) {
        let name = self.hash(name);
        if let Ok(entry) = self.entries.find_entry(spread(name), |entry| entry.key == key) {
            entry.remove();
        }
        if self.entries.capacity() > 1024 && self.entries.len() * 4 < self.entries.capacity() {
            let entries = self.entries.len() * 2;
            self.entries.shrink_to(entries, |entry| spread(entry.name));
        }
    }

    /// The sessions of this name, and perhaps of others.
    pub(super) fn candidates(&self, name: &impl Hash) -> impl Iterator<Item = Key> {
        let name = self.hash(name);
        let entries = self.entries.iter_hash(spread(name));
        entries.filter(move |entry| entry.name == name).map(|entry| entry.key)
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
    fn hash(&self, name: &impl Hash) -> u32 {
        self.hasher.hash_one(name) as u32
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
    fn each_session_is_found_by_its_name_until_it_is_removed() {
        let users: Vec<String> = (0..2000).map(|n| format!("u{n}")).collect();
        let mut index = KeyIndex::default();
        for (key, user) in (0..).zip(users.iter().chain(&users)) {
            index.insert(user, key);
        }
        for (key, user) in (0..).zip(&users) {
            assert!(index.candidates(user).any(|found| found == key));
            index.remove(user, key);
            assert!(!index.candidates(user).any(|found| found == key));
            assert!(index.candidates(user).any(|found| found == key + 2000));
        }
        for (key, user) in (2000..).zip(&users) {
            index.remove(user, key);
        }
        assert!(index.entries.is_empty() && index.entries.capacity() <= 1024);
    }
}
