//! Messages that need no answer, repeated until the other node has confirmed them. Pure.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// The time after which a message is given up. What it is about has ended by its own deadlines then.
const TELL_MAX: Duration = Duration::from_secs(60);

/// A message that is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Untold {
    pub node: u64,
    pub number: u64,
    pub message: Bytes,
}

/// The messages that are not confirmed.
#[derive(Debug, Default)]
pub(super) struct Telling(HashMap<u64, (Untold, Instant)>);

impl Telling {
    /// Adds a message that is sent for the first time.
    pub(super) fn add(&mut self, untold: Untold, now: Instant) {
        self.0.insert(untold.number, (untold, now));
    }

    /// Removes a message that was confirmed; returns whether there was one of this number.
    pub(super) fn confirm(&mut self, number: u64) -> bool {
        self.0.remove(&number).is_some()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the messages to send again, and gives those up that are too old.
    pub(super) fn again(&mut self, now: Instant) -> Vec<Untold> {
        self.0.retain(|_, (_, since)| now.duration_since(*since) < TELL_MAX);
        self.0.values().map(|(untold, _)| untold.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_repeated_until_it_is_confirmed_or_old() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        let untold = |number| Untold {
            node: 1,
            number,
            message: Bytes::from_static(b"m"),
        };
        telling.add(untold(1), now);
        telling.add(untold(2), now + Duration::from_secs(1));
        assert!(telling.confirm(2) && !telling.confirm(2));
        assert_eq!(telling.again(now + Duration::from_secs(59)), [untold(1)]);
        assert_eq!(telling.again(now + TELL_MAX), []);
        assert_eq!(telling.len(), 0);
    }
}
