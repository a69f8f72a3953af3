//! Filters stale ephemeral events. A server that was suspended may pass on messages of a connection that its sender has
//! long given up. They arrive after newer ones of the same publisher, and are dropped.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::sync::lock;

/// The most senders remembered; a deployment has as many as nodes. Beyond it all are forgotten: a stale event may pass then, once.
const SENDERS_MAX: usize = 4096;

/// The newest connection number of each sender.
#[derive(Debug, Default)]
pub(super) struct StaleSenderFilter(Mutex<HashMap<u64, u64>>);

impl StaleSenderFilter {
    /// Reports whether a message sent over this connection is not stale. Messages of one connection arrive in order.
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
        let senders = StaleSenderFilter::default();
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
        let senders = StaleSenderFilter::default();
        for sender in 0..3 * SENDERS_MAX as u64 {
            senders.is_current(sender, 1);
        }
        assert!(lock(&senders.0).len() <= SENDERS_MAX);
    }
}
