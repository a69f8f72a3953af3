//! The start of a gateway, in phases. Each waits for the facts that the next one relies on, and has its own error.
//!
//! What fails without waiting goes first: a wrong setting ends the start before NATS is waited for.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::adapters::{Engine, Joined, Judges};
use super::{Config, Gateway, Listeners, StartError, reclaim, threads};
use crate::admin::{self, Shown};
use crate::admission::Admission;
use crate::api::{self, Context};
use crate::auth::Authenticator as _;
use crate::cluster::Cluster;
use crate::counters::Counters;
use crate::hub::Shards;
use crate::lease::Lease;
use crate::metrics::{Metrics, Sources};
use crate::readiness::{Readiness, Unready};
use crate::relay::{Relay, Relayed};
use crate::shard::Services;
use crate::transport::http::{self as client_port, ClientPort};
use crate::transport::shard::Visit;
use crate::transport::socketio::{self, Forwarding};

/// The tokens, tasks and gauges that every phase uses, and that the gateway stops with.
pub(super) struct Run {
    /// Cancelled first: no new clients.
    pub accepting: CancellationToken,
    /// Cancelled once the clients are gone: everything else ends.
    pub serving: CancellationToken,
    pub tasks: TaskTracker,
    pub readiness: Readiness,
    pub counters: Counters,
}

/// The addresses of the listeners.
pub(super) struct Addresses {
    pub client: SocketAddr,
    pub grpc: SocketAddr,
    pub admin: Option<SocketAddr>,
}

/// Starts a gateway.
///
/// # Errors
/// Every variant of [`StartError`]; nothing is left running.
pub(super) async fn start(config: Config, mut listeners: Listeners) -> Result<Gateway, StartError> {
    let run = Run {
        accepting: CancellationToken::new(),
        serving: CancellationToken::new(),
        tasks: TaskTracker::new(),
        readiness: Readiness::starting(),
        counters: Counters::default(),
    };
    // Stops everything started so far when a later phase fails.
    let unless_started = run.serving.clone().drop_guard();
    let addresses = check_listeners(&config, &listeners)?;
    let admission = admission(&config, &run);
    if let Some(listener) = listeners.admin.take() {
        serve_admin(listener, &config, &admission, &run)?;
    }
    let judges = load_keys(&config, &run)?;
    let probed = answer_probes(&config, &listeners, &run).map_err(StartError::Listeners)?;
    let engine = connect_bus(&config, &judges.lease, &run).await?;
    let services = judges.services(&config, &engine, &admission, &run.counters);
    if let Some(store) = engine.store(&config).await? {
        services.application.keeps(store);
    }
    let started = threads::start(&config, &services, engine.incarnation(), &run.serving).map_err(StartError::Shards)?;
    // Shards before the cluster: its first orders must find mailboxes.
    let shards = Shards::new(started.mailboxes);
    let Joined { peers, relayed } = join_cluster(&config, &judges, &engine, &shards, &run).await?;
    let swappable = judges.swappable(&config, &services);
    let drain_window = config.drain_window;
    let opening = Opening {
        services: &services,
        cluster: Cluster::new(shards.clone(), Arc::clone(&peers)),
        doors: started.doors,
        node: engine.incarnation(),
        relayed,
    };
    // Before the ports open: both would accept from one socket.
    probed.cancel();
    let port = open_ports(config, listeners, opening, &run);
    ready(&engine, &judges.lease, &shards, &admission, &run);
    let (client_address, grpc_address) = (addresses.client, addresses.grpc);
    tracing::info!(%client_address, %grpc_address, admin_address = addresses.admin.map(tracing::field::display), shards = shards.mailboxes().len(), "gateway started");
    unless_started.disarm();
    Ok(Gateway {
        addresses,
        port,
        drain_window,
        admission,
        engine,
        peers,
        shards,
        swappable,
        run,
        threads: started.threads,
    })
}

/// Checks the listeners and the settings of the gRPC port against each other.
fn check_listeners(config: &Config, listeners: &Listeners) -> Result<Addresses, StartError> {
    let address = |listener: &TcpListener| listener.local_addr().map_err(StartError::Listeners);
    let addresses = Addresses {
        client: address(&listeners.client)?,
        grpc: address(&listeners.grpc)?,
        admin: listeners.admin.as_ref().map(address).transpose()?,
    };
    let is_dev = config.dev.is_some();
    config.api.validate(addresses.grpc, is_dev, &config.credentials)?;
    Ok(addresses)
}

/// Serves probes and metrics, before anything is waited for.
fn serve_admin(
    listener: TcpListener,
    config: &Config,
    admission: &Arc<Admission>,
    run: &Run,
) -> Result<(), StartError> {
    let encoders = config.protocols.encoders();
    let metrics = Metrics::start(&Sources {
        counters: Arc::clone(&run.counters),
        readiness: run.readiness.clone(),
        admission: Arc::clone(admission),
        protocols: encoders.iter().map(|encoder| encoder.name()).collect(),
    })?;
    let shown = Shown {
        readiness: run.readiness.clone(),
        metrics: Arc::new(metrics),
    };
    run.tasks
        .spawn(admin::serve(listener, shown, run.tasks.clone(), run.serving.clone()));
    Ok(())
}

/// Reads keys and rules, and begins to fetch the keys that issuers publish. The node is not ready before each issuer's were
/// fetched, or could not be, once: a token that is shown earlier waits for its key.
fn load_keys(config: &Config, run: &Run) -> Result<Judges, StartError> {
    let judges = Judges::read(config)?;
    let (auth, stop) = (Arc::clone(&judges.auth), run.serving.clone());
    run.tasks.spawn(async move { auth.keep_keys_fresh(stop).await });
    let (auth, readiness, stop) = (Arc::clone(&judges.auth), run.readiness.clone(), run.serving.clone());
    readiness.set(Unready::KeysPending, true);
    run.tasks.spawn(async move {
        stop.run_until_cancelled(auth.first_fetch()).await;
        readiness.set(Unready::KeysPending, false);
    });
    Ok(judges)
}

/// Answers probes until the token is cancelled, and tells backends to come back: NATS may be slow to become ready.
fn answer_probes(config: &Config, listeners: &Listeners, run: &Run) -> io::Result<CancellationToken> {
    let until_open = run.serving.child_token();
    if config.nats.is_some() {
        let port = twin(&listeners.grpc)?;
        let (readiness, stop) = (run.readiness.clone(), until_open.clone());
        run.tasks
            .spawn(api::serve_while_starting(port, config.api.clone(), readiness, stop));
    }
    Ok(until_open)
}

/// Duplicates a listener's handle: either handle may accept the next connection.
fn twin(listener: &TcpListener) -> io::Result<TcpListener> {
    let descriptor = listener.as_fd().try_clone_to_owned()?;
    TcpListener::from_std(descriptor.into())
}

/// Connects bus and presence. When it returns, streams and epochs are known.
async fn connect_bus(config: &Config, lease: &Lease, run: &Run) -> Result<Engine, StartError> {
    match &config.nats {
        // Boxed, so that the future of a start stays small.
        Some(nats) => Box::pin(Engine::over_nats(config, nats, lease, run)).await,
        None => Ok(Engine::alone(config, run)),
    }
}

fn admission(config: &Config, run: &Run) -> Arc<Admission> {
    let admission = Admission::new(config.connections)
        .with_tenants(config.dev.clone())
        .with_counters(Arc::clone(&run.counters));
    Arc::new(admission)
}

/// Joins the other nodes. When it returns, every revocation is known here, and the node has its first lease.
async fn join_cluster(
    config: &Config,
    judges: &Judges,
    engine: &Engine,
    shards: &Shards,
    run: &Run,
) -> Result<Joined, StartError> {
    let joined = engine.join(config, judges, shards, run).await;
    joined.map_err(StartError::Cluster)
}

/// The components that the ports hand their work to.
struct Opening<'a> {
    services: &'a Services,
    cluster: Cluster,
    doors: Vec<mpsc::Sender<Visit>>,
    node: u64,
    relayed: Option<(Arc<dyn Relay>, mpsc::Receiver<Relayed>)>,
}

/// Serves the client port and the gRPC port.
fn open_ports(config: Config, listeners: Listeners, opening: Opening<'_>, run: &Run) -> Arc<ClientPort> {
    let Opening {
        services,
        cluster,
        doors,
        node,
        relayed,
    } = opening;
    services.application.reaches(cluster.clone());
    let admission = Arc::clone(&services.admission);
    let (forwarding, arriving) = match relayed {
        Some((relay, arriving)) => (Forwarding::over(relay, node, run.accepting.clone()), Some(arriving)),
        None => (Forwarding::alone(node), None),
    };
    let port = ClientPort::new(config.client, admission, config.protocols, doors, forwarding);
    let port = Arc::new(port);
    if let Some(arriving) = arriving {
        run.tasks
            .spawn(socketio::serve(Arc::clone(&port), arriving, run.serving.clone()));
    }
    run.tasks.spawn(client_port::serve(
        listeners.client,
        Arc::clone(&port),
        run.tasks.clone(),
        run.accepting.clone(),
    ));
    let context = Context {
        rooms: services.rooms.clone(),
        cluster,
        policy: Arc::clone(&services.policy),
        credentials: config.credentials,
        home_rooms: config.home_rooms,
        lease: services.lease.clone(),
        readiness: run.readiness.clone(),
        tenants: config.dev,
    };
    let stop = run.serving.clone().cancelled_owned();
    let api = api::serve(listeners.grpc, context, config.api, stop);
    run.tasks.spawn(async move {
        if let Err(error) = api.await {
            tracing::error!(%error, "grpc listener failed");
        }
    });
    port
}

/// Makes the node ready, and starts what watches over it. Last: load balancers send clients once a probe sees it.
fn ready(engine: &Engine, lease: &Lease, shards: &Shards, admission: &Arc<Admission>, run: &Run) {
    run.readiness.set(Unready::Starting, false);
    if let Some(backplane) = engine.backplane(lease, shards, &run.readiness) {
        run.tasks.spawn(backplane.watch(run.accepting.clone()));
    }
    run.tasks
        .spawn(reclaim::run(Arc::clone(admission), run.serving.clone()));
}
