//! The gateway: chooses the adapters, starts the shards and the listeners, and shuts them down in order.
//!
//! The only module that knows the adapters of bus, presence and authentication.

mod adapters;
mod apply;
mod backplane;
mod reclaim;
mod settings;
mod start;
mod threads;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;

use self::adapters::Engine;
use self::apply::Swappable;
use self::start::{Addresses, Run};
use crate::admission::{self, Admission, Tenants};
use crate::api::{self, Credentials};
use crate::auth;
use crate::backend;
use crate::bus::{self, memory as memory_bus};
use crate::cluster::Peers;
use crate::counters::Counters;
use crate::hub::{Shards, Signal};
use crate::metrics::MetricsError;
use crate::nats;
use crate::policy;
use crate::presence::memory as memory_presence;
use crate::readiness::{Readiness, Unready};
use crate::rooms::HomeRooms;
use crate::session;
use crate::transport::http::{self as client_port, ClientPort};
use crate::transport::protocol::Protocols;
use crate::transport::shard;

pub use apply::{Applied, ApplyError, Settings};

/// The settings of a gateway, by component.
#[derive(Debug)]
pub struct Config {
    /// The node's name, as in the reply of `Revoke`.
    pub node_id: String,
    /// Threads that serve clients.
    pub shards: usize,
    /// Limits on the node's connections.
    pub connections: admission::Config,
    /// Limits of a client.
    pub session: session::Config,
    /// Limits of a socket.
    pub sockets: shard::Config,
    /// The port for clients.
    pub client: client_port::Config,
    /// The protocols that clients may use.
    pub protocols: Protocols,
    /// The in-process bus and its histories.
    pub bus: memory_bus::Config,
    /// The NATS cluster, if this node is one of several.
    pub nats: Option<nats::Config>,
    /// Presence.
    pub presence: memory_presence::Config,
    /// Tokens of clients.
    pub auth: auth::Config,
    /// Permissions of clients.
    pub policy: policy::Config,
    /// The application that validates client events and answers requests, if any.
    pub backend: Option<backend::Config>,
    /// The port for backends.
    pub api: api::Config,
    /// The credentials of its callers.
    pub credentials: Credentials,
    /// The home rooms of users and tenants.
    pub home_rooms: HomeRooms,
    /// Drain window: time over which clients are disconnected at shutdown.
    pub drain_window: Duration,
    /// Set for `roomcast dev`, which may run without credentials on loopback, and reports publishes to absent tenants.
    pub dev: Option<Tenants>,
}

/// The sockets a gateway listens on, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub client: TcpListener,
    /// For backends.
    pub grpc: TcpListener,
    /// For probes and metrics, if they are served.
    pub admin: Option<TcpListener>,
}

/// Reason why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys for client tokens are unusable.
    #[error("auth: {0}")]
    Auth(#[from] auth::AuthConfigError),
    /// A rule is unusable.
    #[error("policy: {0}")]
    Policy(#[from] policy::PolicyError),
    /// The application's address is unusable.
    #[error(transparent)]
    Backend(#[from] backend::BackendConfigError),
    /// The gRPC listener's settings are refused.
    #[error("grpc: {0}")]
    Api(#[from] api::ConfigError),
    /// NATS cannot be reached or used, or its streams cannot.
    #[error(transparent)]
    Bus(#[from] nats::NatsError),
    /// The node has connected to NATS and cannot become one of the cluster's.
    #[error("{0}, while joining the cluster")]
    Cluster(#[source] nats::NatsError),
    /// The node's metrics cannot be exported.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The system refused an address or a descriptor of a listener.
    #[error("listeners: {0}")]
    Listeners(#[source] io::Error),
    /// The system refused a thread or a descriptor of a shard.
    #[error("shards: {0}")]
    Shards(#[source] io::Error),
}

/// A running gateway.
pub struct Gateway {
    addresses: Addresses,
    port: Arc<ClientPort>,
    drain_window: Duration,
    admission: Arc<Admission>,
    engine: Engine,
    peers: Arc<dyn Peers>,
    shards: Shards,
    swappable: Swappable,
    run: Run,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts a gateway.
    ///
    /// # Errors
    /// Every variant of [`StartError`]; nothing is left running.
    pub async fn start(config: Config, listeners: Listeners) -> Result<Self, StartError> {
        // Boxed: a start is long and rare, and what it holds would be part of every caller's future.
        Box::pin(start::start(config, listeners)).await
    }

    /// Returns the address for clients.
    #[must_use]
    pub const fn client_address(&self) -> SocketAddr {
        self.addresses.client
    }

    /// Returns the address for backends.
    #[must_use]
    pub const fn grpc_address(&self) -> SocketAddr {
        self.addresses.grpc
    }

    /// Returns the address for probes and metrics.
    #[must_use]
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.addresses.admin
    }

    /// Returns the entry for connections that do not use the client port's HTTP.
    #[must_use]
    pub const fn client_port(&self) -> &Arc<ClientPort> {
        &self.port
    }

    /// Returns the number of connected clients.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.admission.connections()
    }

    /// Returns the node's readiness.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.run.readiness
    }

    /// Returns what this node has done since its start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.run.counters
    }

    /// Returns the usage of the bus.
    #[must_use]
    pub fn bus_usage(&self) -> bus::Usage {
        self.engine.usage()
    }

    /// Drains: disconnects clients over the drain window, completes calls in flight, and stops. Takes at most the window and
    /// a few seconds.
    pub async fn shutdown(self) {
        // For clients and tasks that end late, each: longer than the last heartbeat and the close frames of a wave take.
        const GRACE: Duration = Duration::from_secs(5);
        tracing::info!(connections = self.connections(), "draining");
        // No new clients first, and probes say so before any client is told to go elsewhere.
        self.run.accepting.cancel();
        self.run.readiness.set(Unready::Draining, true);
        self.engine.drain();
        if self.shards.signal(&Signal::Drain(self.drain_window)).await.is_ok() {
            let gone = tokio::time::timeout(self.drain_window + GRACE, self.admission.emptied());
            if gone.await.is_err() {
                tracing::warn!(
                    connections = self.connections(),
                    "drain timed out, closing remaining connections"
                );
            }
        }
        // Other nodes' clients that have reached this one: their polls were released when it stopped accepting.
        if tokio::time::timeout(GRACE, self.port.drained()).await.is_err() {
            tracing::warn!("drain timed out, forwarded requests cut off");
        }
        // Behind the last client: its leave must still be replicated.
        self.engine.leave().await;
        self.run.serving.cancel();
        self.run.tasks.close();
        if tokio::time::timeout(GRACE, self.run.tasks.wait()).await.is_err() {
            tracing::warn!("shutdown timed out, tasks still running");
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("shard panicked");
            }
        }
        self.peers.release().await;
        self.engine.close().await;
        tracing::info!("gateway stopped");
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("client_address", &self.addresses.client)
            .field("grpc_address", &self.addresses.grpc)
            .finish_non_exhaustive()
    }
}
