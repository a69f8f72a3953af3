//! The connections to NATS, and the names of subjects and streams. Shared by the adapters that use NATS; it knows no
//! event, no room's content and no member.
//!
//! A node has two connections. `fanout` carries the messages of rooms' subscriptions, and whatever must be ordered
//! behind them. `control` carries publishes, requests and heartbeats, so that a flood of events cannot delay them
//! (head-of-line blocking). Both reconnect without limit, and leave a server in lame duck mode before it ends
//! (`relocation`). Subscriptions made by [`ManagedConnection::subscribe`] survive both. A `publish` that returned `Ok` may be lost
//! with the connection (at-most-once); a caller that needs certainty requests an acknowledgement.

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
pub mod request;
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
pub use link::{InOrder, ManagedConnection, Moves, Standing};
pub use patience::patiently;
pub use subjects::{Live, Subjects};
pub use subscription::Subscription;

/// The oldest server version with batched direct gets (NATS ADR-31).
pub const SERVER_VERSION_MIN: (u16, u16) = (2, 11);

/// The time a cluster may take to create a stream: that of a leader election.
const STREAM_MADE_WITHIN: Duration = Duration::from_secs(10);

/// The reason why there is no usable connection to NATS.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The settings are invalid.
    #[error("nats: {0}")]
    Config(String),
    /// No server could be reached, or it refused the credentials.
    #[error("nats: cannot connect to {servers}: {source}{hint}")]
    Connect {
        /// The addresses that were tried.
        servers: String,
        /// The setting that may have to be changed; empty when that is not known.
        hint: &'static str,
        /// The cause.
        source: async_nats::ConnectError,
    },
    /// The server is too old.
    #[error("nats: the server is version {found}; 2.11 or newer is needed, 2.12.10 or 2.14.2 and newer recommended")]
    Version {
        /// The version that the server reports.
        found: String,
    },
    /// JetStream is unavailable, or cannot do what is needed now.
    #[error("nats: JetStream: {0}")]
    JetStream(String),
    /// NATS or the cluster refused, with the settings that have to be changed.
    #[error("nats: {0}")]
    Refused(String),
    /// NATS was not ready in time.
    #[error("{last}; not ready within nats.start_timeout ({})", humantime::format_duration(*.waited))]
    NotReady {
        /// The time waited.
        waited: Duration,
        /// The failure of the last attempt.
        last: Box<NatsError>,
    },
    /// A subscription cannot be made: the connection is closed, or the subject is invalid.
    #[error("nats: cannot subscribe to {subject}: {source}")]
    Subscribe {
        /// The subject.
        subject: String,
        /// The cause.
        source: async_nats::SubscribeError,
    },
    /// A permission is missing.
    #[error("nats: the account may not {0}; docs/nats.md has a configuration that works")]
    Permission(String),
}

impl NatsError {
    /// Returns the error of a subscription to this subject.
    pub(crate) fn subscribing(subject: &str) -> impl FnOnce(async_nats::SubscribeError) -> Self {
        move |source| Self::Subscribe {
            subject: subject.to_owned(),
            source,
        }
    }

    /// Reports whether waiting may help: the server is not reachable or not ready yet.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use async_nats::ConnectErrorKind::{Dns, Io, TimedOut};
        match self {
            // A failure with a hint is a matter of the configuration.
            Self::Connect { hint, source, .. } => hint.is_empty() && matches!(source.kind(), Dns | Io | TimedOut),
            Self::JetStream(_) => true,
            Self::Config(_)
            | Self::Version { .. }
            | Self::Refused(_)
            | Self::Subscribe { .. }
            | Self::Permission(_)
            | Self::NotReady { .. } => false,
        }
    }
}

/// The node's two connections and the names of the deployment.
#[derive(Debug)]
pub struct Nats {
    config: Config,
    subjects: Subjects,
    clock: ServerClock,
    fanout: ManagedConnection,
    control: ManagedConnection,
}

impl Nats {
    /// Connects twice; refuses a server that is too old, and an account that lacks a permission of a node.
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

    /// Returns the settings of the connections.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the names of subjects and streams.
    #[must_use]
    pub const fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Returns the clock of NATS. Every reader of a fresh server timestamp sets it.
    #[must_use]
    pub const fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// Returns the most bytes of one message, headers included, by the servers this node is connected to.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        let (fanout, control) = (self.fanout.client(), self.control.client());
        fanout.max_payload().min(control.max_payload())
    }

    /// Returns the connection of the rooms' subscriptions.
    #[must_use]
    pub const fn fanout(&self) -> &ManagedConnection {
        &self.fanout
    }

    /// Returns the connection of publishes, requests and heartbeats.
    #[must_use]
    pub const fn control(&self) -> &ManagedConnection {
        &self.control
    }

    /// Returns JetStream over the current control connection. Not to be kept: the link may move.
    #[must_use]
    pub fn jetstream(&self) -> async_nats::jetstream::Context {
        let mut context = async_nats::jetstream::new(self.control.client());
        context.set_timeout(self.config.request_timeout);
        context
    }

    /// Returns JetStream with a longer timeout: a cluster acknowledges a new stream only after its servers have elected
    /// a leader for it.
    #[must_use]
    pub fn jetstream_to_make_streams(&self) -> async_nats::jetstream::Context {
        let mut context = self.jetstream();
        context.set_timeout(self.config.request_timeout.max(STREAM_MADE_WITHIN));
        context
    }

    /// Returns the number of operations that a server has refused for want of a permission.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.fanout.refusals() + self.control.refusals()
    }

    /// Tests every permission of a node, over a connection of its own.
    ///
    /// # Errors
    /// [`NatsError::Permission`] with the first one that is missing; [`NatsError::Connect`] and [`NatsError::JetStream`]
    /// when that cannot be found out now.
    pub async fn test_permissions(&self) -> Result<(), NatsError> {
        self_test::run(&self.config, &self.subjects).await
    }

    /// Drains both connections: ends them after everything submitted was sent, or when `within` has passed.
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
