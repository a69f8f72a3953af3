//! The connections to NATS, and the names everything has there. Shared by the adapters that speak NATS; it knows no
//! event, no room's content and no member.
//!
//! A node has two connections: `fanout` carries what rooms' subscriptions bring and whatever must stand in line behind
//! them; `control` carries publishes, requests and heartbeats, so that none of these waits behind a flood of events.
//! Both reconnect by themselves for ever, and leave a server that says it will end before it does (`relocation`): what is
//! subscribed to by [`Link::subscribe`] goes on. A `publish` that returned `Ok` may be lost with the connection: whoever
//! needs to know asks for an acknowledgement.

pub mod agreement;
mod clock;
mod config;
mod connect;
mod lame_duck;
mod link;
pub mod nodes;
mod patience;
pub mod records;
mod relocation;
mod roll_call;
mod self_test;
pub mod streams;
mod subjects;
mod subscription;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;

pub use clock::ServerClock;
pub use config::{Config, Credentials, Storage, Tls};
pub use connect::SUBSCRIPTION_MAX;
pub use link::{InOrder, Link, Moves, Standing};
pub use patience::patiently;
pub use subjects::{Live, Subjects};
pub use subscription::Subscription;

/// The oldest server that has what is used here: batched direct gets (NATS ADR-31).
pub const SERVER_VERSION_MIN: (u16, u16) = (2, 11);

/// How long it may take a cluster to make a stream: as long as an election.
const STREAM_MADE_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no connection to NATS, or not one that can be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The settings cannot be used.
    #[error("nats: {0}")]
    Config(String),
    /// No server could be reached, or it refused the credentials.
    #[error("nats: cannot connect to {servers}: {source}{hint}")]
    Connect {
        /// The addresses that were tried.
        servers: String,
        /// What may have to be changed; empty when that is not known.
        hint: &'static str,
        /// Why.
        source: async_nats::ConnectError,
    },
    /// The server is too old.
    #[error("nats: the server is version {found}; 2.11 or newer is needed, 2.12.10 or 2.14.2 and newer recommended")]
    Version {
        /// What it says of itself.
        found: String,
    },
    /// JetStream does not answer, or cannot do now what is needed.
    #[error("nats: JetStream: {0}")]
    JetStream(String),
    /// What NATS or the cluster does not allow, with the settings that have to be changed.
    #[error("nats: {0}")]
    Refused(String),
    /// It was not ready in time.
    #[error("{last}; it was waited for as nats.start_timeout says, {}", humantime::format_duration(*.waited))]
    NotReady {
        /// How long.
        waited: Duration,
        /// Why the last attempt failed.
        last: Box<NatsError>,
    },
    /// A permission is missing.
    #[error("nats: the account may not {0}; docs/nats.md has a configuration that works")]
    Permission(String),
}

impl NatsError {
    /// Returns whether waiting may help: a server that is not there yet, or not ready.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use async_nats::ConnectErrorKind::{Dns, Io, TimedOut};
        match self {
            // What there is a hint for is a matter of the configuration.
            Self::Connect { hint, source, .. } => hint.is_empty() && matches!(source.kind(), Dns | Io | TimedOut),
            Self::JetStream(_) => true,
            Self::Config(_) | Self::Version { .. } | Self::Refused(_) | Self::Permission(_) | Self::NotReady { .. } => {
                false
            }
        }
    }
}

/// The node's two connections and the names of the deployment.
#[derive(Debug)]
pub struct Nats {
    config: Config,
    subjects: Subjects,
    clock: ServerClock,
    fanout: Link,
    control: Link,
}

impl Nats {
    /// Connects twice; refuses a server that is too old, and an account that may not do what a node does.
    ///
    /// # Errors
    /// [`NatsError::Config`], [`NatsError::Connect`], [`NatsError::Version`] and [`NatsError::Permission`].
    pub async fn connect(config: &Config) -> Result<Arc<Self>, NatsError> {
        let subjects = Subjects::new(&config.deployment).map_err(NatsError::Config)?;
        let fanout = connect::link(config, &subjects, "fanout").await?;
        let control = connect::link(config, &subjects, "control").await?;
        self_test::run(config, &subjects).await?;
        Ok(Arc::new(Self {
            config: config.clone(),
            subjects,
            clock: ServerClock::default(),
            fanout,
            control,
        }))
    }

    /// The settings it was made with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How subjects and streams are called.
    #[must_use]
    pub const fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// The time by NATS. Whoever reads what a server has just stamped sets it.
    #[must_use]
    pub const fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// The most bytes of one message, headers included, by the servers this node is connected to.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        let (fanout, control) = (self.fanout.client(), self.control.client());
        fanout.max_payload().min(control.max_payload())
    }

    /// The connection of the rooms' subscriptions.
    #[must_use]
    pub const fn fanout(&self) -> &Link {
        &self.fanout
    }

    /// The connection of publishes, requests and heartbeats.
    #[must_use]
    pub const fn control(&self) -> &Link {
        &self.control
    }

    /// JetStream over the control connection as it is now. Not to be kept: the link may move.
    #[must_use]
    pub fn jetstream(&self) -> async_nats::jetstream::Context {
        let mut context = async_nats::jetstream::new(self.control.client());
        context.set_timeout(self.config.request_timeout);
        context
    }

    /// The same, with more patience: before a cluster answers that a stream is made, its servers have elected a leader for it.
    #[must_use]
    pub fn jetstream_to_make_streams(&self) -> async_nats::jetstream::Context {
        let mut context = self.jetstream();
        context.set_timeout(self.config.request_timeout.max(STREAM_MADE_WITHIN));
        context
    }

    /// Ends both connections after what was handed to them is sent, or when `within` has passed.
    pub async fn close(&self, within: Duration) {
        let (fanout, control) = (self.fanout.client(), self.control.client());
        let both = futures_util::future::join(drain(&fanout), drain(&control));
        if tokio::time::timeout(within, both).await.is_err() {
            tracing::warn!("nats drain timed out");
        }
    }
}

async fn drain(client: &Client) {
    if let Err(error) = client.drain().await {
        tracing::debug!(%error, "nats drain failed");
    }
}
