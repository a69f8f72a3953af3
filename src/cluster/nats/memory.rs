//! The orders that were carried out (deduplication): a repeated one is answered and not carried out again.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// The state of an order that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is new, and now under way.
    New,
    /// It is under way; whoever carries it out will answer.
    UnderWay,
    /// It was carried out, with this answer.
    Done(Bytes),
}

/// The newest orders, up to a bound.
#[derive(Debug)]
pub(super) struct Memory {
    max: usize,
    answers: HashMap<u128, Option<Bytes>>,
    order: VecDeque<u128>,
}

impl Memory {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            answers: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Takes an order in.
    pub(super) fn begin(&mut self, id: u128) -> Seen {
        match self.answers.get(&id) {
            Some(Some(answer)) => return Seen::Done(answer.clone()),
            Some(None) => return Seen::UnderWay,
            None => {}
        }
        if self.order.len() == self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.order.push_back(id);
        self.answers.insert(id, None);
        Seen::New
    }

    /// The order was carried out.
    pub(super) fn done(&mut self, id: u128, answer: Bytes) {
        if let Some(own) = self.answers.get_mut(&id) {
            *own = Some(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_order_is_new_once() {
        let mut memory = Memory::new(4);
        assert_eq!((memory.begin(1), memory.begin(1)), (Seen::New, Seen::UnderWay));
        memory.done(1, Bytes::from_static(b"answer"));
        assert_eq!(memory.begin(1), Seen::Done(Bytes::from_static(b"answer")));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bound_and_knows_the_newest(ids in proptest::collection::vec(0u128..20, 1..200)) {
            let mut memory = Memory::new(5);
            for id in &ids {
                memory.begin(*id);
                prop_assert!(memory.order.len() <= 5 && memory.order.len() == memory.answers.len());
                prop_assert_ne!(memory.begin(*id), Seen::New);
            }
        }
    }
}
