//! The asks that a node carries out for others (deduplication): a repeated one asks no client again.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// The most asks under way for other nodes.
const UNDER_WAY_MAX: usize = 4096;

/// The most ended asks that are remembered. An order is repeated for two seconds at most: this is thousands a second.
const ENDED_MAX: usize = 16 * 1024;

/// The most bytes of answers that are kept for nodes that have not received them.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// The reception of an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskBegun {
    /// It is new, and under way now.
    New,
    /// It was received before.
    Known,
    /// Too many are under way.
    Full,
}

/// The state of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AskKnown {
    /// Never received, or forgotten.
    Unknown,
    /// Received, and not handed to a connection yet.
    Starting,
    /// Handed to its connection.
    Delivered,
    /// Ended, with this answer.
    Ended(Bytes),
}

/// The asks under way, and the newest that have ended.
#[derive(Debug, Default)]
pub(super) struct AskBook {
    states: HashMap<u128, AskKnown>,
    ended: VecDeque<u128>,
    /// The ended asks whose answers are still kept: the newest ones of `ended`.
    kept: usize,
    kept_bytes: usize,
}

impl AskBook {
    pub(super) fn begin(&mut self, id: u128) -> AskBegun {
        if self.states.contains_key(&id) {
            return AskBegun::Known;
        }
        if self.states.len() - self.ended.len() >= UNDER_WAY_MAX {
            return AskBegun::Full;
        }
        self.states.insert(id, AskKnown::Starting);
        AskBegun::New
    }

    pub(super) fn delivered(&mut self, id: u128) {
        if let Some(state) = self.states.get_mut(&id) {
            *state = AskKnown::Delivered;
        }
    }

    pub(super) fn end(&mut self, id: u128, answer: Bytes) {
        let Some(state) = self.states.get_mut(&id) else { return };
        self.kept_bytes += answer.len();
        self.kept += 1;
        *state = AskKnown::Ended(answer);
        self.ended.push_back(id);
        while self.kept_bytes > ANSWER_BYTES_MAX {
            self.drop_answer();
        }
        while self.ended.len() > ENDED_MAX {
            if self.kept == self.ended.len() {
                self.drop_answer();
            }
            if let Some(oldest) = self.ended.pop_front() {
                self.states.remove(&oldest);
            }
        }
    }

    /// Frees the oldest answer that is kept. Its ask stays known, so that it is not carried out again.
    fn drop_answer(&mut self) {
        let oldest = self.ended.get(self.ended.len() - self.kept);
        if let Some(state) = oldest.and_then(|id| self.states.get_mut(id))
            && let AskKnown::Ended(answer) = std::mem::replace(state, AskKnown::Unknown)
        {
            self.kept_bytes -= answer.len();
        }
        self.kept -= 1;
    }

    pub(super) fn find(&self, id: u128) -> AskKnown {
        self.states.get(&id).cloned().unwrap_or(AskKnown::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_is_new_once_and_remembered_with_its_answer() {
        let mut book = AskBook::default();
        assert_eq!((book.begin(1), book.begin(1)), (AskBegun::New, AskBegun::Known));
        assert_eq!((book.find(1), book.find(2)), (AskKnown::Starting, AskKnown::Unknown));
        book.delivered(1);
        assert_eq!(book.find(1), AskKnown::Delivered);
        book.end(1, Bytes::from_static(b"answer"));
        assert_eq!(book.find(1), AskKnown::Ended(Bytes::from_static(b"answer")));
        assert_eq!(book.begin(1), AskBegun::Known);
    }

    #[test]
    fn asks_under_way_are_bounded() {
        let mut book = AskBook::default();
        for id in 0..UNDER_WAY_MAX {
            assert_eq!(book.begin(id as u128), AskBegun::New);
        }
        assert_eq!(book.begin(u128::MAX), AskBegun::Full);
        book.end(0, Bytes::new());
        assert_eq!(book.begin(u128::MAX), AskBegun::New);
    }

    #[test]
    fn ended_asks_are_bounded_in_number_and_bytes() {
        let mut book = AskBook::default();
        let answer = Bytes::from(vec![0; 64 << 10]);
        let count = ENDED_MAX + 10;
        for id in 0..count {
            book.begin(id as u128);
            book.end(id as u128, answer.clone());
            assert!(book.kept_bytes <= ANSWER_BYTES_MAX && book.ended.len() <= ENDED_MAX);
        }
        assert_eq!(book.states.len(), ENDED_MAX);
        assert_eq!(book.begin(10), AskBegun::Known, "known without its answer");
        assert_eq!((book.find(10), book.find(9)), (AskKnown::Unknown, AskKnown::Unknown));
        assert_eq!(book.find(count as u128 - 1), AskKnown::Ended(answer));
        assert_eq!(book.begin(9), AskBegun::New);
        for id in 0..ENDED_MAX {
            let id = (count + id) as u128;
            book.begin(id);
            book.end(id, Bytes::new());
        }
        assert_eq!((book.kept, book.kept_bytes), (ENDED_MAX, 0));
    }
}
