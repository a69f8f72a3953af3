//! The adapters of the ports: alone with everything in this process, or one of several nodes over NATS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::apply::{Settings, Swappable};
use super::backplane::Backplane;
use super::{Config, StartError, settings};
use crate::admission::Admission;
use crate::auth::{Authenticator, JwtAuthenticator};
use crate::backend::{Backend, GrpcBackend, NoBackend};
use crate::bus::memory::MemoryBus;
use crate::bus::nats::{self as nats_bus, NatsBus};
use crate::bus::{Bus, Usage};
use crate::cluster::no_peers::NoPeers;
use crate::cluster::{self, Peers};
use crate::counters::Counters;
use crate::hub::Shards;
use crate::lease::Lease;
use crate::nats::agreement::Agreement;
use crate::nats::nodes::Nodes;
use crate::nats::{self, Nats};
use crate::policy::{Policy, RulePolicy};
use crate::presence::Presence;
use crate::presence::memory::MemoryPresence;
use crate::presence::nats::NatsPresence;
use crate::readiness::{Readiness, Unready};
use crate::rooms::Rooms;
use crate::shard::{Application, Services};

/// Time for which the NATS connections may flush before they close.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Time for the replies to a node's first heartbeat.
const INTRODUCTION: Duration = Duration::from_millis(200);

/// The adapters of the ports.
pub(super) struct Adapters {
    auth: Arc<JwtAuthenticator>,
    policy: Arc<RulePolicy>,
    backend: Arc<dyn Backend>,
    lease: Lease,
    engine: Engine,
}

/// The adapters that order events and keep presence.
pub(super) enum Engine {
    /// In this process.
    Alone {
        bus: Arc<MemoryBus>,
        presence: Arc<MemoryPresence>,
    },
    /// Over NATS.
    Nats {
        nats: Arc<Nats>,
        nodes: Arc<Nodes>,
        bus: Arc<NatsBus>,
        presence: Arc<NatsPresence>,
    },
}

impl Adapters {
    /// Creates the adapters. Their own work runs on `tasks` until `stop`.
    pub(super) async fn choose(
        config: &Config,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let backend: Arc<dyn Backend> = match &config.backend {
            Some(backend) => Arc::new(GrpcBackend::new(backend)?),
            None => Arc::new(NoBackend),
        };
        let auth = Arc::new(JwtAuthenticator::new(&config.auth)?);
        let policy = Arc::new(RulePolicy::new(&config.policy)?);
        let lease = match config.nats {
            // Renewed for the first time once every revocation is known.
            Some(_) => Lease::lapsed(),
            None => Lease::unlimited(),
        };
        let engine = match &config.nats {
            // Boxed, so that the future of a start stays small.
            Some(nats) => Box::pin(Engine::over_nats(config, nats, &lease, tasks, stop)).await?,
            None => Engine::alone(config, tasks, stop),
        };
        Ok(Self {
            auth,
            policy,
            backend,
            lease,
            engine,
        })
    }

    /// Fetches the issuers' published keys from here on. The node is not ready before each was fetched, or could not be, once:
    /// a token that is shown earlier waits for its key.
    pub(super) fn fetch_keys(&self, readiness: &Readiness, tasks: &TaskTracker, stop: &CancellationToken) {
        let (auth, stop) = (Arc::clone(&self.auth), stop.clone());
        tasks.spawn(async move { auth.keep_keys_fresh(stop).await });
        let (auth, readiness) = (Arc::clone(&self.auth), readiness.clone());
        readiness.set(Unready::KeysPending, true);
        tasks.spawn(async move {
            auth.first_fetch().await;
            readiness.set(Unready::KeysPending, false);
        });
    }

    /// Returns the services for sessions.
    pub(super) fn services(&self, config: &Config, admission: &Arc<Admission>, counters: &Counters) -> Services {
        let (bus, presence) = self.engine.ports();
        Services {
            auth: self.auth.clone() as Arc<dyn Authenticator>,
            policy: self.policy.clone() as Arc<dyn Policy>,
            rooms: Rooms::new(bus, presence).with_counters(Arc::clone(counters)),
            application: Arc::new(Application::new(Arc::clone(&self.backend), config.home_rooms.clone())),
            lease: self.lease.clone(),
            admission: Arc::clone(admission),
            encoders: config.protocols.encoders(),
            config: Arc::new(ArcSwap::from_pointee(config.session.clone())),
        }
    }

    /// What may be swapped while the gateway runs.
    pub(super) fn swappable(&self, config: &Config, services: &Services) -> Swappable {
        Swappable {
            auth: Arc::clone(&self.auth),
            policy: Arc::clone(&self.policy),
            session: Arc::clone(&services.config),
            admission: Arc::clone(&services.admission),
            in_force: Mutex::new(Settings::of(config)),
        }
    }

    /// The other nodes, as the API orders things of them. From here on this node is one of them.
    pub(super) async fn peers(
        &self,
        config: &Config,
        shards: &Shards,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Arc<dyn Peers>, StartError> {
        let policy = self.policy.clone() as Arc<dyn Policy>;
        let Engine::Nats { nats, nodes, .. } = &self.engine else {
            return Ok(Arc::new(NoPeers::new(&config.node_id, shards.clone(), policy)));
        };
        let (nats, nodes) = (Arc::clone(nats), Arc::clone(nodes));
        let own = cluster::nats::ClusterParts {
            nats,
            nodes: Arc::clone(&nodes),
            shards: shards.clone(),
            policy,
            lease: self.lease.clone(),
        };
        let peers = cluster::nats::start(own, cluster::Config::default(), tasks, stop.clone()).await?;
        let listening = nodes.listen().await?;
        tasks.spawn(nodes.run(listening, stop.clone()));
        // Living nodes reply to the first heartbeat at once; an earlier order would not reach them.
        tokio::time::sleep(INTRODUCTION).await;
        peers.join(tasks, stop.clone()).await?;
        Ok(peers)
    }

    /// Returns the watcher of the cluster, if there is one.
    pub(super) fn backplane(&self, shards: &Shards, readiness: &Readiness) -> Option<Backplane> {
        let Engine::Nats { nats, nodes, bus, .. } = &self.engine else {
            return None;
        };
        Some(Backplane {
            nats: Arc::clone(nats),
            nodes: Arc::clone(nodes),
            bus: Arc::clone(bus),
            lease: self.lease.clone(),
            shards: shards.clone(),
            readiness: readiness.clone(),
        })
    }

    pub(super) fn into_engine(self) -> Engine {
        self.engine
    }
}

impl Engine {
    fn alone(config: &Config, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let bus = Arc::new(MemoryBus::new(config.bus.clone()));
        let presence = Arc::new(MemoryPresence::new(config.presence));
        tasks.spawn(Arc::clone(&bus).run(stop.clone()));
        tasks.spawn(Arc::clone(&presence).run(stop.clone()));
        Self::Alone { bus, presence }
    }

    async fn over_nats(
        config: &Config,
        cluster: &nats::Config,
        lease: &Lease,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let nats = nats::patiently(cluster.start_timeout, async || Nats::connect(cluster).await).await?;
        settings::compare_limits(config, &nats)?;
        let nodes = Nodes::new(Arc::clone(&nats), &config.node_id);
        tasks.spawn(Arc::clone(&nodes).leave_lame_ducks(stop.clone()));
        let bounds = nats_bus::Config {
            history: config.bus.history.clone(),
            history_bytes_max: config.bus.history_bytes_max,
            last_value_names_max: config.bus.last_value_names_max,
            last_value_age_max: config.bus.last_value_age_max,
            in_flight_events_max: config.bus.in_flight_events_max,
            rooms_max: config.bus.rooms_max,
            ..nats_bus::Config::default()
        };
        let settings = settings::shared(config, cluster, &bounds);
        let starting = async || {
            let agreement = Agreement::join(Arc::clone(&nats), settings.clone()).await?;
            let bus = NatsBus::start(Arc::clone(&nats), Arc::clone(&agreement), bounds.clone(), lease.clone());
            Ok((Box::pin(bus).await?, agreement))
        };
        let (bus, agreement) = nats::patiently(cluster.start_timeout, starting).await?;
        nodes.set_settings(agreement.digest());
        tasks.spawn(Arc::clone(&bus).run(stop.clone()));
        let calls = agreement.listen().await?;
        tasks.spawn(agreement.run(calls, Arc::clone(&nodes), stop.clone()));
        let presence = NatsPresence::start(
            Arc::clone(&nats),
            Arc::clone(&nodes),
            config.presence,
            tasks,
            stop.clone(),
        );
        let presence = presence.await?;
        Ok(Self::Nats {
            nats,
            nodes,
            bus,
            presence,
        })
    }

    fn ports(&self) -> (Arc<dyn Bus>, Arc<dyn Presence>) {
        match self {
            Self::Alone { bus, presence } => (bus.clone(), presence.clone()),
            Self::Nats { bus, presence, .. } => (bus.clone(), presence.clone()),
        }
    }

    /// Returns the usage of the bus.
    pub(super) fn usage(&self) -> Usage {
        match self {
            Self::Alone { bus, .. } => bus.usage(),
            Self::Nats { bus, .. } => bus.usage(),
        }
    }

    /// Announces to the peers that this node drains.
    pub(super) fn drain(&self) {
        if let Self::Nats { nodes, .. } = self {
            nodes.set_draining();
        }
    }

    /// Replicates the departure of this node's clients, once they are gone.
    pub(super) async fn leave(&self) {
        if let Self::Nats { presence, .. } = self {
            presence.leave_all().await;
        }
    }

    /// Flushes and closes the connections, after everything else has ended.
    pub(super) async fn close(&self) {
        if let Self::Nats { nats, .. } = self {
            nats.close(CLOSE_MAX).await;
        }
    }
}
