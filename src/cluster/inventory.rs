//! The records that the control log held when it was read, to find out whether it has lost any. Pure: it knows no NATS.
//!
//! A stream can be lost: deleted, purged, made anew after a server that kept it in memory ended, or replaced by an older copy
//! of it. What it said is in the nodes that have read it, so they write it back. Two facts show that something is missing:
//!
//! - Each record has a subject of its own or replaces the one before it on its subject, and nothing is ever taken away. So a
//!   log with fewer subjects than were read has lost some.
//! - A log that was made at another moment, or ends before where it was read, is another one or an older state of it.
//!
//! Then it is read again from its beginning, and what is not found there is missing.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use crate::units::millis;

/// The state of the log, as a server reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The time at which the stream was created; it tells streams of one name apart.
    pub created: u64,
    /// The sequence of its last record.
    pub last: u64,
    /// The number of subjects that it holds.
    pub subjects: u64,
}

/// A reading from the beginning that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reread {
    /// The log has all that was read of it before.
    SameLog,
    /// The log has lost records, or is another one.
    OtherLog,
}

/// From where the log is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// From its first record.
    Beginning,
    /// From what was stored at that moment, and at any rate from behind the last record that was read. A log that was set back
    /// while nobody looked has other records under sequences that were read: they are newer.
    Moment(u64),
}

/// The records read of the control log, by subject.
#[derive(Debug, Default)]
pub struct Inventory {
    created: Option<u64>,
    read: u64,
    /// The time at which the newest record was stored, of this reading and those before it.
    newest_ms: u64,
    known_ms: u64,
    /// By a hash of each subject, its newest record.
    subjects: HashMap<u64, Found>,
    hasher: RandomState,
    /// The end that a reading from the beginning has to reach.
    again: Option<Again>,
}

/// The sequence and time of a stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    sequence: u64,
    stored_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Again {
    until: u64,
    /// The log was known before, and is another one now.
    is_other: bool,
}

impl Inventory {
    /// The sequence up to which the log is read.
    #[must_use]
    pub const fn read_up_to(&self) -> u64 {
        self.read
    }

    /// Begins to read the log, or goes on. `difference` is how far servers' clocks may be apart; records older than `age`
    /// may have gone by themselves. Reports from where, and whether the log has lost something.
    pub fn open(&mut self, now: Condition, difference: Duration, aged_ms: u64) -> (ReadFrom, bool) {
        let known = self.created.replace(now.created);
        let is_other = known.is_some_and(|known| known != now.created)
            || now.last < self.read
            || now.subjects < self.subjects_since(aged_ms);
        if known.is_none() || is_other {
            let was_other = self.again.is_some_and(|again| again.is_other);
            self.again = Some(Again {
                until: now.last,
                is_other: is_other || was_other,
            });
            self.read = 0;
            self.known_ms = self.known_ms.max(std::mem::take(&mut self.newest_ms));
            self.subjects.clear();
        }
        if self.read == 0 {
            return (ReadFrom::Beginning, is_other);
        }
        let back = millis(difference);
        (ReadFrom::Moment(self.newest_ms.saturating_sub(back)), false)
    }

    /// Reports whether the log holds everything that was read of it.
    #[must_use]
    pub fn is_whole(&self, now: Condition, aged_ms: u64) -> bool {
        self.created == Some(now.created) && now.last >= self.read && now.subjects >= self.subjects_since(aged_ms)
    }

    /// A record was read.
    pub fn take(&mut self, subject: &str, sequence: u64, stored_ms: u64) {
        self.read = self.read.max(sequence);
        self.newest_ms = self.newest_ms.max(stored_ms);
        let found = Found { sequence, stored_ms };
        self.subjects.insert(self.hasher.hash_one(subject), found);
    }

    /// Reports whether a record of this subject was read.
    #[must_use]
    pub fn holds(&self, subject: &str) -> bool {
        self.subjects.contains_key(&self.hasher.hash_one(subject))
    }

    /// Reports whether this very record was read: of a log that was set back, another one may have its sequence.
    #[must_use]
    pub fn has(&self, subject: &str, sequence: u64, stored_ms: u64) -> bool {
        let found = Found { sequence, stored_ms };
        self.subjects.get(&self.hasher.hash_one(subject)) == Some(&found)
    }

    /// Reports whether the log is being read from its beginning.
    #[must_use]
    pub const fn is_being_read(&self) -> bool {
        self.again.is_some()
    }

    /// Reports whether a record of this time was read in an earlier reading. Clocks differ: in doubt it was not.
    #[must_use]
    pub fn was_read(&self, stored_ms: u64, difference: Duration) -> bool {
        let difference_ms = millis(difference);
        stored_ms.saturating_add(difference_ms) < self.known_ms
    }

    /// Returns the reading from the beginning that has come to where the log ended when it was opened. Returns it once.
    pub fn caught_up(&mut self) -> Option<Reread> {
        let again = self.again.take_if(|again| self.read >= again.until)?;
        Some(if again.is_other {
            Reread::OtherLog
        } else {
            Reread::SameLog
        })
    }

    fn subjects_since(&self, aged_ms: u64) -> u64 {
        let young = self.subjects.values().filter(|found| found.stored_ms >= aged_ms);
        young.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFFERENCE: Duration = Duration::from_secs(5);

    fn condition(created: u64, last: u64, subjects: u64) -> Condition {
        Condition {
            created,
            last,
            subjects,
        }
    }

    /// Three records under two subjects were read of log 1.
    fn inventory() -> Inventory {
        let mut inventory = Inventory::default();
        let first = inventory.open(condition(1, 3, 2), DIFFERENCE, 0);
        assert_eq!(first, (ReadFrom::Beginning, false));
        for (sequence, subject) in [(1, "a"), (2, "b")] {
            inventory.take(subject, sequence, 10_000 + sequence);
            assert_eq!(inventory.caught_up(), None);
        }
        inventory.take("a", 3, 10_003);
        assert_eq!(inventory.caught_up(), Some(Reread::SameLog));
        inventory
    }

    #[test]
    fn a_whole_log_is_read_on_from_a_moment_before_the_newest() {
        let mut inventory = inventory();
        assert!(inventory.is_whole(condition(1, 9, 4), 0));
        let opened = inventory.open(condition(1, 9, 4), DIFFERENCE, 0);
        assert_eq!(opened, (ReadFrom::Moment(5_003), false));
        assert_eq!(inventory.caught_up(), None);
    }

    #[test]
    fn a_log_that_lost_something_is_read_again_and_what_is_missing_is_known() {
        for lost in [condition(2, 9, 9), condition(1, 2, 2), condition(1, 9, 1)] {
            let mut inventory = inventory();
            assert!(!inventory.is_whole(lost, 0), "{lost:?}");
            assert_eq!(inventory.open(lost, DIFFERENCE, 0), (ReadFrom::Beginning, true));
            for sequence in 1..=lost.last {
                assert_eq!(inventory.caught_up(), None);
                inventory.take("b", sequence, 20_000);
            }
            assert_eq!(inventory.caught_up(), Some(Reread::OtherLog));
            assert!(inventory.holds("b") && !inventory.holds("a"));
            assert!(inventory.was_read(5_002, DIFFERENCE) && !inventory.was_read(5_003, DIFFERENCE));
        }
    }

    #[test]
    fn an_empty_log_is_read_at_once() {
        let mut inventory = inventory();
        inventory.open(condition(2, 0, 0), DIFFERENCE, 0);
        assert_eq!(inventory.caught_up(), Some(Reread::OtherLog));
        assert_eq!(inventory.caught_up(), None);
    }

    #[test]
    fn a_loss_is_not_forgotten_when_reading_again_is_interrupted() {
        let mut inventory = inventory();
        inventory.open(condition(2, 3, 2), DIFFERENCE, 0);
        inventory.take("a", 1, 20_000);
        let opened = inventory.open(condition(2, 4, 2), DIFFERENCE, 0);
        assert_eq!(opened, (ReadFrom::Moment(15_000), false));
        inventory.take("b", 3, 20_000);
        assert_eq!(inventory.caught_up(), Some(Reread::OtherLog));
    }

    #[test]
    fn what_went_by_its_age_is_not_lost() {
        let inventory = inventory();
        assert!(inventory.is_whole(condition(1, 9, 1), 10_003));
    }
}
