//! An index that keeps half a hash in place of each name.
//!
//! An entry takes a few bytes, where a map of lists would take a hundred. Names that share the half share their entries: the
//! reader compares names where they are kept.

use hashbrown::HashTable;

/// The capacity below which memory is not given back: it is little, and soon used again.
const SHRINK_FROM: usize = 16;

#[derive(Debug)]
struct Entry<V> {
    half: u32,
    value: V,
}

/// Values by the halves of their names' hashes. A value may stand under several halves, and several under one.
#[derive(Debug)]
pub struct HalfIndex<V> {
    entries: HashTable<Entry<V>>,
}

impl<V> Default for HalfIndex<V> {
    fn default() -> Self {
        Self {
            entries: HashTable::new(),
        }
    }
}

impl<V: Copy + Eq> HalfIndex<V> {
    /// Adds an entry.
    pub fn insert(&mut self, half: u32, value: V) {
        let rehash = |entry: &Entry<V>| spread(entry.half);
        self.entries.insert_unique(spread(half), Entry { half, value }, rehash);
    }

    /// Removes an entry, if there is such a one.
    pub fn remove(&mut self, half: u32, value: V) {
        let is_it = |entry: &Entry<V>| entry.half == half && entry.value == value;
        if let Ok(entry) = self.entries.find_entry(spread(half), is_it) {
            entry.remove();
        }
        if self.entries.capacity() > SHRINK_FROM && self.entries.len() * 4 < self.entries.capacity() {
            let entries = self.entries.len() * 2;
            self.entries.shrink_to(entries, |entry| spread(entry.half));
        }
    }

    /// Returns the values under a half, unordered.
    pub fn find(&self, half: u32) -> impl Iterator<Item = V> {
        let entries = self.entries.iter_hash(spread(half));
        entries.filter(move |entry| entry.half == half).map(|entry| entry.value)
    }

    /// Reports whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Returns the half of a hash that an index keeps.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
pub const fn half(hash: u64) -> u32 {
    hash as u32
}

/// Spreads a half over 64 bits: a hash table looks at the lowest and at the highest bits.
const fn spread(half: u32) -> u64 {
    (half as u64) << 32 | half as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_found_until_it_is_removed() {
        let mut index = HalfIndex::default();
        for half in 0..2000 {
            index.insert(half, half);
            index.insert(half, half + 2000);
        }
        for half in 0..2000 {
            assert!(index.find(half).any(|found| found == half));
            index.remove(half, half);
            assert_eq!(index.find(half).collect::<Vec<_>>(), [half + 2000]);
            index.remove(half, half + 2000);
        }
        assert!(index.is_empty() && index.entries.capacity() <= SHRINK_FROM);
    }

    #[test]
    fn a_wrong_value_removes_nothing() {
        let mut index = HalfIndex::default();
        index.insert(1, 'a');
        index.remove(1, 'b');
        index.remove(2, 'a');
        assert_eq!(index.find(1).collect::<Vec<_>>(), ['a']);
    }
}
