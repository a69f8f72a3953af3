//! The sessions of one shard, found by their users or their tokens.

use std::hash::{BuildHasher, Hash, RandomState};

use super::Key;
use crate::half_index::{HalfIndex, half};

/// Sessions by name. Names hash as tuples or texts do.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    keys: HalfIndex<Key>,
    hasher: RandomState,
}

impl KeyIndex {
    pub(super) fn insert(&mut self, name: &impl Hash, key: Key) {
        self.keys.insert(self.half(name), key);
    }

    pub(super) fn remove(&mut self, name: &impl Hash, key: Key) {
        self.keys.remove(self.half(name), key);
    }

    /// Returns the sessions of this name, and perhaps of others.
    pub(super) fn candidates(&self, name: &impl Hash) -> impl Iterator<Item = Key> {
        self.keys.find(self.half(name))
    }

    fn half(&self, name: &impl Hash) -> u32 {
        half(self.hasher.hash_one(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_is_found_by_its_name_until_it_is_removed() {
        let mut index = KeyIndex::default();
        index.insert(&("t", "ada"), 1);
        index.insert(&("t", "ada"), 2);
        index.remove(&("t", "ada"), 1);
        assert!(index.candidates(&("t", "ada")).any(|found| found == 2));
        assert!(!index.candidates(&("t", "ada")).any(|found| found == 1));
    }
}
