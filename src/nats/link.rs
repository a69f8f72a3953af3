//! One connection, and whether it stands.

use std::sync::atomic::Ordering;

use async_nats::Client;
use tokio::sync::watch;

/// Whether a connection stands, and which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it stands.
    pub connected: bool,
    /// Changes with every event of the connection; a lossy hint, see [`Link::connects`].
    pub events: u64,
    /// The server has said that it will end soon ("lame duck mode").
    pub lame_duck: bool,
}

/// One connection to NATS that reconnects by itself.
#[derive(Debug)]
pub struct Link {
    client: Client,
    standing: watch::Receiver<Standing>,
}

impl Link {
    pub(super) const fn new(client: Client, standing: watch::Receiver<Standing>) -> Self {
        Self { client, standing }
    }

    /// The library's client.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it stands now and from now on.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Whether it stands now, as far as the library knows.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.client.connection_state(), async_nats::connection::State::Connected)
    }

    /// How often it has been made: another number than before says that something may have been missed in between. Exact,
    /// other than events, of which the library drops some.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}
