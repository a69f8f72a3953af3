//! Ephemeral events that were left behind: a server that was stopped may pass on what it was handed over a connection
//! that its sender has long given up. They come after newer ones of the same publisher, and are dropped.

use std::collections::HashMap;
use std::sync::Mutex;

use super::partition::lock;

/// The most senders remembered. When there are more all are forgotten: a late event may come through then, once.
const SENDERS_MAX: usize = 4096;

/// Over which of its connections each sender was last heard.
#[derive(Debug, Default)]
pub(super) struct Senders(Mutex<HashMap<u64, u64>>);

impl Senders {
    /// Whether what was sent over this connection is not late. What comes over one connection comes in order.
    pub(super) fn is_current(&self, sender: u64, connection: u64) -> bool {
        let mut latest = lock(&self.0);
        if let Some(latest) = latest.get_mut(&sender) {
            let is_current = connection >= *latest;
            *latest = connection.max(*latest);
            return is_current;
        }
        if latest.len() >= SENDERS_MAX {
            latest.clear();
        }
        latest.insert(sender, connection);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_over_an_older_connection_than_before_is_late() {
        let senders = Senders::default();
        for (sender, connection, is_current) in [
            (1, 1, true),
            (1, 1, true),
            (1, 3, true),
            (1, 2, false),
            (2, 1, true),
            (1, 3, true),
            (1, 4, true),
        ] {
            assert_eq!(
                senders.is_current(sender, connection),
                is_current,
                "{sender} {connection}"
            );
        }
    }

    #[test]
    fn senders_are_bounded() {
        let senders = Senders::default();
        for sender in 0..3 * SENDERS_MAX as u64 {
            senders.is_current(sender, 1);
        }
        assert!(lock(&senders.0).len() <= SENDERS_MAX);
    }
}
