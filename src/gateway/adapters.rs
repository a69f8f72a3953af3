//! The adapters of the ports: alone with everything in this process, or one of several nodes over NATS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::apply::{Settings, Swappable};
use super::backplane::Backplane;
use super::start::Run;
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
use crate::nats::{self, Nats, NatsError};
use crate::policy::{Policy, RulePolicy};
use crate::presence::Presence;
use crate::presence::memory::MemoryPresence;
use crate::presence::nats::NatsPresence;
use crate::readiness::Readiness;
use crate::recovery::Store;
use crate::recovery::memory::MemoryStore;
use crate::recovery::nats::NatsStore;
use crate::relay::{self, Relay, Relayed};
use crate::rooms::Rooms;
use crate::shard::{Application, Services};

/// Time for which the NATS connections may flush before they close. The last heartbeat and the release of the lease are
/// flushed by then; a server that does not take more is not waited for.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The adapters that decide about clients, and the lease that the node delivers under.
pub(super) struct Judges {
    pub auth: Arc<JwtAuthenticator>,
    pub policy: Arc<RulePolicy>,
    pub backend: Arc<dyn Backend>,
    pub lease: Lease,
}

/// The adapters that order events and keep presence.
pub(super) enum Engine {
    /// In this process.
    Alone {
        node: u64,
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

/// The ways to the other nodes.
pub(super) struct Joined {
    pub peers: Arc<dyn Peers>,
    /// The way for requests of clients, and the requests that arrive; `None` where there are no other nodes.
    pub relayed: Option<(Arc<dyn Relay>, mpsc::Receiver<Relayed>)>,
}

impl Judges {
    /// Reads keys and rules, and checks the backend's address.
    pub(super) fn read(config: &Config) -> Result<Self, StartError> {
        let backend: Arc<dyn Backend> = match &config.backend {
            Some(backend) => Arc::new(GrpcBackend::new(backend)?),
            None => Arc::new(NoBackend),
        };
        Ok(Self {
            backend,
            auth: Arc::new(JwtAuthenticator::new(&config.auth)?),
            policy: Arc::new(RulePolicy::new(&config.policy)?),
            lease: match config.nats {
                // Renewed for the first time once every revocation is known.
                Some(_) => Lease::lapsed(),
                None => Lease::unlimited(),
            },
        })
    }

    /// Returns the services for sessions.
    pub(super) fn services(
        &self,
        config: &Config,
        engine: &Engine,
        admission: &Arc<Admission>,
        counters: &Counters,
    ) -> Services {
        let (bus, presence) = engine.ports();
        Services {
            auth: self.auth.clone() as Arc<dyn Authenticator>,
            policy: self.policy.clone() as Arc<dyn Policy>,
            rooms: Rooms::new(bus, presence).with_counters(Arc::clone(counters)),
            application: Arc::new(Application::new(Arc::clone(&self.backend), config.home_rooms.clone())),
            lease: self.lease.clone(),
            admission: Arc::clone(admission),
            encoders: config.protocols.encoders(),
            counters: Arc::clone(counters),
            config: Arc::new(ArcSwap::from_pointee(config.session.clone())),
        }
    }

    /// Returns the parts that may be swapped while the gateway runs.
    pub(super) fn swappable(&self, config: &Config, services: &Services) -> Swappable {
        Swappable {
            auth: Arc::clone(&self.auth),
            policy: Arc::clone(&self.policy),
            session: Arc::clone(&services.config),
            admission: Arc::clone(&services.admission),
            in_force: Mutex::new(Settings::of(config)),
        }
    }
}

impl Engine {
    /// Creates bus and presence of this process.
    pub(super) fn alone(config: &Config, run: &Run) -> Self {
        let (tasks, stop) = (&run.tasks, &run.serving);
        let bus = Arc::new(MemoryBus::new(config.bus.clone()));
        let presence = Arc::new(MemoryPresence::new(config.presence));
        tasks.spawn(Arc::clone(&bus).run(stop.clone()));
        tasks.spawn(Arc::clone(&presence).run(stop.clone()));
        Self::Alone {
            node: rand::random(),
            bus,
            presence,
        }
    }

    /// Connects to NATS, and starts bus and presence over it.
    pub(super) async fn over_nats(
        config: &Config,
        cluster: &nats::Config,
        lease: &Lease,
        run: &Run,
    ) -> Result<Self, StartError> {
        let (tasks, stop) = (&run.tasks, &run.serving);
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

    /// Returns the node's incarnation.
    pub(super) fn incarnation(&self) -> u64 {
        match self {
            Self::Alone { node, .. } => *node,
            Self::Nats { nodes, .. } => nodes.own().incarnation,
        }
    }

    /// Joins the other nodes, as the API orders things of them. From here on this node is one of them, and has a lease.
    pub(super) async fn join(
        &self,
        config: &Config,
        judges: &Judges,
        shards: &Shards,
        run: &Run,
    ) -> Result<Joined, NatsError> {
        let policy = judges.policy.clone() as Arc<dyn Policy>;
        let Self::Nats { nats, nodes, .. } = self else {
            let peers = Arc::new(NoPeers::new(&config.node_id, shards.clone(), policy));
            return Ok(Joined { peers, relayed: None });
        };
        let own = cluster::nats::ClusterParts {
            nats: Arc::clone(nats),
            nodes: Arc::clone(nodes),
            shards: shards.clone(),
            policy,
            lease: judges.lease.clone(),
        };
        let (tasks, stop) = (&run.tasks, &run.serving);
        let peers = cluster::nats::start(own, cluster::Config::default(), tasks, stop.clone()).await?;
        let bounds = settings::relay(config);
        let relayed = relay::nats::start(nats, nodes, bounds, &run.counters, (tasks, stop)).await?;
        // Behind the subscriptions: a node that hears of this one reaches it.
        let listening = nodes.listen().await?;
        tasks.spawn(Arc::clone(nodes).run(listening, stop.clone()));
        // After the control log was read, which names the nodes to wait for; before the first lease, for which they must have
        // written back what the log has lost.
        nodes.introduced().await;
        peers.join(tasks, stop.clone()).await?;
        Ok(Joined {
            peers,
            relayed: Some(relayed),
        })
    }

    /// Returns the watcher of the cluster, if there is one.
    pub(super) fn backplane(&self, lease: &Lease, shards: &Shards, readiness: &Readiness) -> Option<Backplane> {
        let Self::Nats { nats, nodes, bus, .. } = self else {
            return None;
        };
        Some(Backplane {
            nats: Arc::clone(nats),
            nodes: Arc::clone(nodes),
            bus: Arc::clone(bus),
            lease: lease.clone(),
            shards: shards.clone(),
            readiness: readiness.clone(),
        })
    }

    fn ports(&self) -> (Arc<dyn Bus>, Arc<dyn Presence>) {
        match self {
            Self::Alone { bus, presence, .. } => (bus.clone(), presence.clone()),
            Self::Nats { bus, presence, .. } => (bus.clone(), presence.clone()),
        }
    }

    /// Returns the store of sessions, where clients may come back to them.
    ///
    /// # Errors
    /// [`NatsError::Refused`] and [`NatsError::JetStream`].
    pub(super) async fn store(&self, config: &Config) -> Result<Option<Arc<dyn Store>>, NatsError> {
        let Some(away_max) = config.sockets.socketio.recovery else {
            return Ok(None);
        };
        Ok(Some(match self {
            Self::Alone { .. } => Arc::new(MemoryStore::new(away_max)),
            Self::Nats { nats, .. } => {
                let making = async || NatsStore::start(Arc::clone(nats), away_max).await;
                Arc::new(nats::patiently(nats.config().start_timeout, making).await?)
            }
        }))
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
