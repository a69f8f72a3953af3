//! The gateway: chooses the adapters, starts the shards and the listeners, and takes them down again in order.
//!
//! The only place that knows which bus, which presence and which authenticator there is.

mod reclaim;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Context, Credentials, Health, HomeRooms};
use crate::auth::{self, Authenticator, JwtAuthenticator};
use crate::backend::{self, Backend, GrpcBackend, NoBackend};
use crate::bus::memory::{self as memory_bus, MemoryBus};
use crate::bus::{Bus, Delivery};
use crate::cluster::Everywhere;
use crate::cluster::alone::Alone;
use crate::hub::admission::{self, Admission};
use crate::hub::{Mailbox, Shards};
use crate::lease::Lease;
use crate::nats;
use crate::policy::{self, Policy, RulePolicy};
use crate::presence::Presence;
use crate::presence::memory::{self as memory_presence, MemoryPresence};
use crate::rooms::Rooms;
use crate::session::{self, Post, Services, Wire};
use crate::transport::http::{self as client_port, ClientPort};
use crate::transport::native::json::JsonWire;
use crate::transport::native::protobuf::ProtobufWire;
use crate::transport::shard::{self, Shard};

/// Clients on their way from the accept loop to a shard, at most.
const UPGRADED_MAX: usize = 256;

/// Orders on their way to a shard, at most.
const ORDERS_MAX: usize = 1024;

/// What a gateway is made of.
#[derive(Debug)]
pub struct Config {
    /// This node's name, as `Revoke` answers it.
    pub node_id: String,
    /// Threads that serve clients.
    pub shards: usize,
    /// How many connections the node serves.
    pub connections: admission::Config,
    /// What a client may do.
    pub session: session::Config,
    /// What a socket may hold.
    pub sockets: shard::Config,
    /// The port for clients.
    pub client: client_port::Config,
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
    /// Who may call it.
    pub credentials: Credentials,
    /// The rooms that stand for a user and for a tenant.
    pub home_rooms: HomeRooms,
    /// Over how long a time clients are sent away when the gateway shuts down.
    pub drain_window: Duration,
    /// Whether this is `roomcast dev`, which may run without credentials on loopback.
    pub dev: bool,
}

/// The sockets a gateway listens on, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub client: TcpListener,
    /// For backends.
    pub grpc: TcpListener,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys for client tokens cannot be used.
    #[error("auth: {0}")]
    Auth(#[from] auth::AuthConfigError),
    /// A rule cannot be used.
    #[error("policy: {0}")]
    Policy(#[from] policy::PolicyError),
    /// The application's address cannot be used.
    #[error(transparent)]
    Backend(#[from] backend::BackendConfigError),
    /// The gRPC listener may not start like this.
    #[error("grpc: {0}")]
    Api(#[from] api::ConfigError),
    /// The system refused a thread, a descriptor or an address.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    client_address: SocketAddr,
    grpc_address: SocketAddr,
    drain_window: Duration,
    admission: Arc<Admission>,
    bus: Arc<MemoryBus>,
    shards: Shards,
    health: Health,
    accepting: CancellationToken,
    serving: CancellationToken,
    tasks: TaskTracker,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts a gateway.
    ///
    /// # Errors
    /// Every variant of [`StartError`]; nothing is left running then.
    pub async fn start(config: Config, listeners: Listeners) -> Result<Self, StartError> {
        let (client_address, grpc_address) = (listeners.client.local_addr()?, listeners.grpc.local_addr()?);
        config.api.validate(grpc_address, config.dev, &config.credentials)?;
        let parts = Parts::choose(&config)?;
        let (accepting, serving, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let admission = Arc::new(Admission::new(config.connections));
        let lease = Lease::unlimited();
        let services = parts.services(&config, &admission, &lease);
        let (mut threads, mut mailboxes, mut doors) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..u16::try_from(config.shards.max(1)).unwrap_or(u16::MAX) {
            let (mailbox, letters) = Mailbox::open(index, config.bus.in_flight_events_max, ORDERS_MAX);
            let (door, upgraded) = mpsc::channel(UPGRADED_MAX);
            let post = Post {
                mailbox: Arc::clone(&mailbox),
                letters,
            };
            let serve = ShardThread {
                index,
                config: config.sockets.clone(),
                services: services.clone(),
                post,
                upgraded,
            };
            threads.push(serve.spawn(serving.clone())?);
            mailboxes.push(mailbox);
            doors.push(door);
        }
        let shards = Shards::new(mailboxes);
        parts.run(&tasks, &serving);
        tasks.spawn(reclaim::run(Arc::clone(&admission), serving.clone()));
        let port = Arc::new(ClientPort::new(config.client, Arc::clone(&admission), doors));
        tasks.spawn(client_port::serve(
            listeners.client,
            port,
            tasks.clone(),
            accepting.clone(),
        ));
        let health = Health::new().await;
        let others = Alone::new(&config.node_id, shards.clone(), Arc::clone(&services.policy));
        let context = Context {
            rooms: services.rooms.clone(),
            everywhere: Everywhere::new(shards.clone(), Arc::new(others)),
            policy: Arc::clone(&services.policy),
            credentials: config.credentials,
            home_rooms: config.home_rooms,
            health: health.clone(),
        };
        let stop_api = serving.clone();
        let api = api::serve(listeners.grpc, context, config.api, async move {
            stop_api.cancelled().await;
        });
        tasks.spawn(async move {
            if let Err(error) = api.await {
                tracing::error!(%error, "the gRPC listener failed");
            }
        });
        health.set_serving(true).await;
        tracing::info!(%client_address, %grpc_address, shards = shards.mailboxes().len(), "gateway started");
        let drain_window = config.drain_window;
        Ok(Self {
            client_address,
            grpc_address,
            drain_window,
            admission,
            bus: parts.bus,
            shards,
            health,
            accepting,
            serving,
            tasks,
            threads,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Where backends call.
    #[must_use]
    pub const fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.admission.connections()
    }

    /// What the in-process bus holds.
    #[must_use]
    pub fn bus_usage(&self) -> memory_bus::Usage {
        self.bus.usage()
    }

    /// Sends clients away, spread over the drain window, answers what is under way, and stops. Takes at most the window
    /// and a few seconds.
    pub async fn shutdown(self) {
        const GRACE: Duration = Duration::from_secs(5);
        tracing::info!(connections = self.connections(), "draining");
        self.health.set_serving(false).await;
        self.accepting.cancel();
        if self.shards.drain(self.drain_window).await.is_ok() {
            let gone = async {
                while self.admission.connections() > 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(self.drain_window + GRACE, gone).await.is_err() {
                tracing::warn!(connections = self.connections(), "not all clients went in time");
            }
        }
        self.serving.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("not all tasks ended in time");
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a shard panicked");
            }
        }
        tracing::info!("gateway stopped");
    }
}

/// The adapters of the ports.
struct Parts {
    bus: Arc<MemoryBus>,
    presence: Arc<MemoryPresence>,
    auth: Arc<JwtAuthenticator>,
    policy: Arc<RulePolicy>,
    backend: Arc<dyn Backend>,
}

impl Parts {
    fn choose(config: &Config) -> Result<Self, StartError> {
        let backend: Arc<dyn Backend> = match &config.backend {
            Some(backend) => Arc::new(GrpcBackend::new(backend)?),
            None => Arc::new(NoBackend),
        };
        Ok(Self {
            bus: Arc::new(MemoryBus::new(config.bus.clone())),
            presence: Arc::new(MemoryPresence::new(config.presence)),
            auth: Arc::new(JwtAuthenticator::new(&config.auth)?),
            policy: Arc::new(RulePolicy::new(&config.policy)?),
            backend,
        })
    }

    fn services(&self, config: &Config, admission: &Arc<Admission>, lease: &Lease) -> Services {
        // In the order of their formats: a link's wire is an index here.
        let wires: Arc<[Arc<dyn Wire>]> = Arc::new([Arc::new(JsonWire), Arc::new(ProtobufWire)]);
        assert!(wires.len() <= Delivery::FORMATS, "each wire has a slot in a delivery");
        let (bus, presence): (Arc<dyn Bus>, Arc<dyn Presence>) = (self.bus.clone(), self.presence.clone());
        Services {
            auth: self.auth.clone() as Arc<dyn Authenticator>,
            policy: self.policy.clone() as Arc<dyn Policy>,
            rooms: Rooms::new(bus, presence),
            backend: Arc::clone(&self.backend),
            lease: lease.clone(),
            admission: Arc::clone(admission),
            wires,
            config: Arc::new(config.session.clone()),
        }
    }

    /// What the adapters do by themselves: forgetting, coalescing, fetching keys.
    fn run(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        tasks.spawn(Arc::clone(&self.bus).run(stop.clone()));
        tasks.spawn(Arc::clone(&self.presence).run(stop.clone()));
        let (auth, stop) = (Arc::clone(&self.auth), stop.clone());
        tasks.spawn(async move { auth.keep_keys_fresh(stop).await });
    }
}

/// What a shard's thread is given.
struct ShardThread {
    index: u16,
    config: shard::Config,
    services: Services,
    post: Post,
    upgraded: mpsc::Receiver<shard::Upgraded>,
}

impl ShardThread {
    fn spawn(self, stop: CancellationToken) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("shard-{}", self.index);
        std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async move {
                match Shard::new(&self.config, self.services, self.post) {
                    Ok(shard) => shard.run(self.upgraded, stop).await,
                    Err(error) => tracing::error!(%error, "a shard cannot start"),
                }
            });
        })
    }
}
