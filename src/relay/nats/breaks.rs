//! Breaks of a connection, in which messages may have been lost.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::nats::{ManagedConnection, Standing};

/// Interval at which the number of connects is looked at beside the connection's events, of which the library may drop one.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches a connection for disconnects and reconnects.
pub(super) struct Breaks {
    standing: watch::Receiver<Standing>,
    connects: u64,
    is_connected: bool,
    look: Interval,
}

/// A change of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// It is disconnected.
    Away,
    /// It has reconnected.
    Renewed,
}

impl Breaks {
    pub(super) fn of(connection: &ManagedConnection) -> Self {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            look,
            standing: connection.standing(),
            connects: connection.connects(),
            is_connected: connection.is_connected(),
        }
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// None is lost when the future is dropped.
    pub(super) async fn next(&mut self, connection: &ManagedConnection) -> Break {
        loop {
            tokio::select! {
                changed = self.standing.changed() => if changed.is_err() {
                    // The link is gone, and this node with it.
                    std::future::pending::<()>().await;
                },
                _ = self.look.tick() => {}
            }
            let (connects, is_connected) = (connection.connects(), connection.is_connected());
            let was_connected = std::mem::replace(&mut self.is_connected, is_connected);
            if connects != self.connects {
                self.connects = connects;
                return Break::Renewed;
            }
            if was_connected && !is_connected {
                return Break::Away;
            }
        }
    }
}
