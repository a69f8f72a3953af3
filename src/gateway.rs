//! The gateway: chooses the adapters, starts the shards and the listeners, and shuts them down in order.
//!
//! The only module that knows the adapters of bus, presence and authentication.

mod adapters;
mod apply;
mod backplane;
mod reclaim;
mod settings;
mod threads;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::adapters::{Adapters, Engine};
use self::apply::Swappable;
use crate::admission::{self, Admission, Tenants};
use crate::api::{self, Context, Credentials};
use crate::auth;
use crate::backend;
use crate::bus::{self, memory as memory_bus};
use crate::cluster::{Cluster, Peers};
use crate::counters::Counters;
use crate::hub::{Shards, Signal};
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

/// What a gateway is made of.
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
    /// NATS cannot be reached or used.
    #[error(transparent)]
    Nats(#[from] nats::NatsError),
    /// The system refused a thread, a descriptor or an address.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A running gateway.
pub struct Gateway {
    client_address: SocketAddr,
    grpc_address: SocketAddr,
    port: Arc<ClientPort>,
    drain_window: Duration,
    admission: Arc<Admission>,
    engine: Engine,
    peers: Arc<dyn Peers>,
    shards: Shards,
    swappable: Swappable,
    readiness: Readiness,
    counters: Counters,
    accepting: CancellationToken,
    serving: CancellationToken,
    tasks: TaskTracker,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts a gateway.
    ///
    /// # Errors
    /// Every variant of [`StartError`]; nothing is left running.
    pub async fn start(config: Config, listeners: Listeners) -> Result<Self, StartError> {
        let (client_address, grpc_address) = (listeners.client.local_addr()?, listeners.grpc.local_addr()?);
        config
            .api
            .validate(grpc_address, config.dev.is_some(), &config.credentials)?;
        let (accepting, serving, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        // Stops everything started so far when a later step fails.
        let unless_started = serving.clone().drop_guard();
        let readiness = Readiness::starting();
        let waiting = serving.child_token();
        if config.nats.is_some() {
            // NATS may be slow to become ready; probes get replies meanwhile.
            let port = twin(&listeners.grpc)?;
            let answering = api::serve_while_starting(port, config.api.clone(), readiness.clone(), waiting.clone());
            tasks.spawn(answering);
        }
        let adapters = Adapters::choose(&config, &tasks, &serving).await?;
        adapters.fetch_keys(&readiness, &tasks, &serving);
        let counters = Counters::default();
        let admission = Admission::new(config.connections)
            .with_tenants(config.dev.clone())
            .with_counters(Arc::clone(&counters));
        let admission = Arc::new(admission);
        let services = adapters.services(&config, &admission, &counters);
        let swappable = adapters.swappable(&config, &services);
        let started = threads::start(&config, &services, &serving)?;
        // Shards before the cluster: its first orders must find mailboxes.
        let shards = Shards::new(started.mailboxes);
        let peers = adapters.peers(&config, &shards, &tasks, &serving).await?;
        let cluster = Cluster::new(shards.clone(), Arc::clone(&peers));
        services.application.reaches(cluster.clone());
        waiting.cancel();
        // Only now: load balancers send clients once a probe sees this.
        readiness.set(Unready::Starting, false);
        if let Some(backplane) = adapters.backplane(&shards, &readiness) {
            tasks.spawn(backplane.watch(accepting.clone()));
        }
        tasks.spawn(reclaim::run(Arc::clone(&admission), serving.clone()));
        let port = Arc::new(ClientPort::new(
            config.client,
            Arc::clone(&admission),
            config.protocols,
            started.doors,
        ));
        tasks.spawn(client_port::serve(
            listeners.client,
            Arc::clone(&port),
            tasks.clone(),
            accepting.clone(),
        ));
        let context = Context {
            rooms: services.rooms.clone(),
            cluster,
            policy: Arc::clone(&services.policy),
            credentials: config.credentials,
            home_rooms: config.home_rooms,
            readiness: readiness.clone(),
            tenants: config.dev,
        };
        let stop_api = serving.clone();
        let api = api::serve(listeners.grpc, context, config.api, async move {
            stop_api.cancelled().await;
        });
        tasks.spawn(async move {
            if let Err(error) = api.await {
                tracing::error!(%error, "grpc listener failed");
            }
        });
        tracing::info!(%client_address, %grpc_address, shards = shards.mailboxes().len(), "gateway started");
        unless_started.disarm();
        Ok(Self {
            client_address,
            grpc_address,
            port,
            drain_window: config.drain_window,
            admission,
            engine: adapters.into_engine(),
            peers,
            shards,
            swappable,
            readiness,
            counters,
            accepting,
            serving,
            tasks,
            threads: started.threads,
        })
    }

    /// Returns the address for clients.
    #[must_use]
    pub const fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Returns the address for backends.
    #[must_use]
    pub const fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
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
        &self.readiness
    }

    /// Returns what this node has done since its start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the usage of the bus.
    #[must_use]
    pub fn bus_usage(&self) -> bus::Usage {
        self.engine.usage()
    }

    /// Drains: disconnects clients over the drain window, completes calls in flight, and stops. Takes at most the window and
    /// a few seconds.
    pub async fn shutdown(self) {
        // For clients and tasks that end late, each.
        const GRACE: Duration = Duration::from_secs(5);
        tracing::info!(connections = self.connections(), "draining");
        // No new clients first, and probes say so before any client is told to go elsewhere.
        self.accepting.cancel();
        self.readiness.set(Unready::Draining, true);
        self.engine.drain();
        if self.shards.signal(&Signal::Drain(self.drain_window)).await.is_ok() {
            let gone = async {
                while self.admission.connections() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(self.drain_window + GRACE, gone).await.is_err() {
                tracing::warn!(
                    connections = self.connections(),
                    "drain timed out, closing remaining connections"
                );
            }
        }
        // Behind the last client: its leave must still be replicated.
        self.engine.leave().await;
        self.serving.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
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
            .field("client_address", &self.client_address)
            .field("grpc_address", &self.grpc_address)
            .finish_non_exhaustive()
    }
}

/// Duplicates a listener's handle: either handle may accept the next connection.
fn twin(listener: &TcpListener) -> io::Result<TcpListener> {
    let descriptor = listener.as_fd().try_clone_to_owned()?;
    TcpListener::from_std(descriptor.into())
}
