//! The numbers of subscribers that are no shards.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// The first number of a follower. Shards are numbered from 0, one for each thread, and stay below.
const FIRST: u16 = 1 << 15;

/// The numbers in use.
#[derive(Debug, Default)]
pub(in crate::rooms) struct SubscriberIds(Mutex<BTreeSet<u16>>);

/// A number that no other subscriber of the bus has. Returned when it is dropped.
#[derive(Debug)]
pub(super) struct SubscriberId {
    number: u16,
    all: Arc<SubscriberIds>,
}

impl SubscriberIds {
    /// Takes the lowest free number; `None` when all are in use.
    pub(super) fn take(self: &Arc<Self>) -> Option<SubscriberId> {
        let mut used = lock(&self.0);
        let number = (FIRST..=u16::MAX).find(|number| !used.contains(number))?;
        used.insert(number);
        Some(SubscriberId {
            number,
            all: Arc::clone(self),
        })
    }

    /// Returns the count of numbers in use.
    #[cfg(test)]
    pub(in crate::rooms) fn used(&self) -> usize {
        lock(&self.0).len()
    }
}

impl SubscriberId {
    pub(super) const fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for SubscriberId {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.number);
    }
}
