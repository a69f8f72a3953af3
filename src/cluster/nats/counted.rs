//! The withdrawals this node has carried out lately, for those who ask. Pure.

use std::collections::{HashMap, VecDeque};

/// The withdrawals that were carried out, each with the number of memberships that it ended here.
///
/// By what they are called, not by where they stand in the log: a log that was lost and begun anew counts from one again,
/// and what stands where in the old one says nothing of the new one.
#[derive(Debug)]
pub(super) struct Counted {
    max: usize,
    order: VecDeque<u128>,
    memberships: HashMap<u128, u32>,
}

impl Counted {
    /// Remembers so many.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            order: VecDeque::new(),
            memberships: HashMap::new(),
        }
    }

    /// One was carried out. When it is carried out again, because the log is read again, the first count stays.
    pub(super) fn add(&mut self, id: u128, memberships: u32) {
        if self.memberships.contains_key(&id) {
            return;
        }
        if self.order.len() == self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.memberships.remove(&oldest);
        }
        self.order.push_back(id);
        self.memberships.insert(id, memberships);
    }

    /// Returns the number of memberships that it has ended here; `None` when it was not carried out, or too long ago.
    pub(super) fn of(&self, id: u128) -> Option<u32> {
        self.memberships.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_carried_out_is_known_by_its_name_for_a_while() {
        let mut counted = Counted::new(2);
        assert_eq!(counted.of(1), None);
        counted.add(1, 5);
        counted.add(1, 0);
        assert_eq!(counted.of(1), Some(5));
        counted.add(2, 0);
        counted.add(3, 1);
        assert_eq!((counted.of(1), counted.of(2), counted.of(3)), (None, Some(0), Some(1)));
    }
}
