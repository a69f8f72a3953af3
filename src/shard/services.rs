//! The gateway's services as a shard uses them.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::counters::Counters;
use crate::hub::{Mailbox, MailboxReceiver};
use crate::identity::{ConnectionId, Identity};
use crate::lease::Lease;
use crate::policy::{Action, Denied, Permit, Policy, Question};
use crate::recovery::Store;
use crate::room::Room;
use crate::rooms::{HomeRooms, Rooms};
use crate::session::{Config, Encoder};

/// The gateway's services, shared by all shards.
#[derive(Clone)]
pub struct Services {
    /// Verifies tokens.
    pub auth: Arc<dyn Authenticator>,
    /// Decides questions of permission.
    pub policy: Arc<dyn Policy>,
    /// Publishes and reads.
    pub rooms: Rooms,
    /// The application behind the gateway, and the way to where it emits events.
    pub application: Arc<Application>,
    /// Fences deliveries: without it nothing of a room is written to a client.
    pub lease: Lease,
    /// Counts connections.
    pub admission: Arc<Admission>,
    /// The writing halves of the protocols, by [`crate::session::ProtocolId::index`].
    pub encoders: Arc<[Arc<dyn Encoder>]>,
    /// Counts what nobody handles.
    pub counters: Counters,
    /// The bounds. Each is looked at when it is needed, so other ones hold for what comes next.
    pub config: Arc<ArcSwap<Config>>,
}

/// The client in whose name the policy is asked.
#[derive(Debug, Clone)]
pub(super) struct Principal {
    pub identity: Arc<Identity>,
    pub connection: ConnectionId,
}

impl Services {
    /// Asks the policy about one action of a client in a room.
    pub(super) fn authorize(
        &self,
        principal: &Principal,
        room: &Room,
        action: Action,
    ) -> BoxFuture<'_, Result<Permit, Denied>> {
        self.policy.authorize(Question {
            identity: Arc::clone(&principal.identity),
            connection: principal.connection,
            room: room.clone(),
            action,
        })
    }
}

/// The shard's place in the hub: what the bus and the API reach it by, and its own end of that.
#[derive(Debug)]
pub struct ShardEndpoint {
    /// Handed to the bus and to presence.
    pub mailbox: Arc<Mailbox>,
    /// Read by the shard.
    pub receiver: MailboxReceiver,
}

impl ShardEndpoint {
    /// The shard's number on its node.
    #[must_use]
    pub fn index(&self) -> u16 {
        crate::bus::Subscriber::id(&*self.mailbox)
    }
}

/// The application behind the gateway, and the way to where it emits events.
pub struct Application {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) homes: HomeRooms,
    /// Set when the node has joined the others, which takes its shards.
    pub(super) cluster: OnceLock<Cluster>,
    store: OnceLock<Arc<dyn Store>>,
}

impl Application {
    /// An application whose events reach the rooms of users and tenants, and no connection yet.
    #[must_use]
    pub const fn new(backend: Arc<dyn Backend>, homes: HomeRooms) -> Self {
        Self {
            backend,
            homes,
            cluster: OnceLock::new(),
            store: OnceLock::new(),
        }
    }

    /// Reaches single connections from here on.
    pub fn reaches(&self, cluster: Cluster) {
        // Set once, by the one who starts the gateway.
        let _ = self.cluster.set(cluster);
    }

    /// Keeps sessions from here on, so that clients come back to them.
    pub fn keeps(&self, store: Arc<dyn Store>) {
        // Set once, by the one who starts the gateway.
        let _ = self.store.set(store);
    }

    /// The store of sessions, where they are kept.
    pub(super) fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.get().cloned()
    }
}
