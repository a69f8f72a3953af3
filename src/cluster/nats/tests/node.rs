//! One node of a cluster: everything but clients.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Peers as _;
use crate::cluster::nats::{ClusterParts, NatsPeers, start};
use crate::cluster::{Cluster, Config};
use crate::hub::{
    Ask, AskEnd, AskStart, Audience, JoinRefusal, Mailbox, MailboxReceiver, Order, Outcome, ShardMessage, Shards, Verb,
};
use crate::identity::{ConnectionId, Expiry, Identity, UserId};
use crate::json::Json;
use crate::lease::Lease;
use crate::nats::nodes::Nodes;
use crate::nats::{self, Nats, Storage};
use crate::policy::{Action, Bearer, Permit, Policy as _, RevocationSubject, RulePolicy, Service};
use crate::room::{Room, Tenant};
use crate::testing::nats::NatsServer;

/// Waits for what must happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waiting = tokio::time::timeout(Duration::from_secs(30), future);
    waiting.await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// The permit of a service.
pub fn permit(room: Room) -> Permit {
    let service = Service {
        name: "backend".into(),
        publish: false,
        read: false,
        manage: true,
        subscribe: false,
        tenants: None,
    };
    service.permit(room, Action::Join).unwrap()
}

/// The leases of nodes that nothing else is said of.
const LEASE: Duration = Duration::from_secs(3);

fn settings(url: String) -> nats::Config {
    nats::Config {
        servers: vec![url],
        lease: LEASE,
        request_timeout: Duration::from_millis(500),
        publish_timeout: Duration::from_secs(2),
        ..nats::Config::default()
    }
}

async fn hears(nodes: &Nodes, others: usize) {
    within("the others", async {
        while nodes.live().len() < others {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn identity(user: &str) -> Identity {
    Identity {
        tenant: Tenant::default(),
        user: UserId::parse(user).unwrap(),
        claims: Json::parse("{}".to_owned()).unwrap().into(),
        expiry: Expiry(u64::MAX),
    }
}

/// A node that runs.
pub struct Member {
    pub cluster: Cluster,
    pub peers: Arc<NatsPeers>,
    pub shard: Arc<FakeShard>,
    pub policy: Arc<RulePolicy>,
    pub lease: Lease,
    pub nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Member {
    pub async fn start(id: &str, server: &NatsServer) -> Self {
        Self::with_lease(id, server.url(), LEASE).await
    }

    /// A node that joins once it hears so many others.
    pub async fn late(id: &str, server: &NatsServer, others: usize) -> Self {
        Self::launch(id, settings(server.url()), others).await
    }

    /// A node with leases of this length, over the server at this address.
    pub async fn with_lease(id: &str, url: String, lease: Duration) -> Self {
        let settings = nats::Config { lease, ..settings(url) };
        Self::launch(id, settings, 0).await
    }

    /// A node whose streams are kept in memory.
    pub async fn in_memory(id: &str, server: &NatsServer, others: usize) -> Self {
        let settings = nats::Config {
            storage: Storage::Memory,
            ..settings(server.url())
        };
        Self::launch(id, settings, others).await
    }

    async fn launch(id: &str, settings: nats::Config, others: usize) -> Self {
        let nats = Nats::connect(&settings).await.unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let nodes = Nodes::new(Arc::clone(&nats), id);
        let (shard, mailbox) = FakeShard::start(&tasks);
        let shards = Shards::new(vec![mailbox]);
        let policy = Arc::new(RulePolicy::new(&serde_json::from_str("{}").unwrap()).unwrap());
        let lease = Lease::lapsed();
        let own = ClusterParts {
            nats: Arc::clone(&nats),
            nodes: Arc::clone(&nodes),
            shards: shards.clone(),
            policy: policy.clone(),
            lease: lease.clone(),
        };
        let config = Config {
            answer_timeout: Duration::from_secs(1),
            renew_interval: Duration::from_millis(300),
            look_interval: Duration::from_millis(300),
            clock_difference_max: Duration::from_secs(1),
            ..Config::default()
        };
        let peers = start(own, config, &tasks, stop.clone()).await.unwrap();
        let listening = nodes.listen().await.unwrap();
        tasks.spawn(Arc::clone(&nodes).run(listening, stop.clone()));
        hears(&nodes, others).await;
        peers.join(&tasks, stop.clone()).await.unwrap();
        Self {
            cluster: Cluster::new(shards, peers.clone()),
            peers,
            shard,
            policy,
            lease,
            nats,
            nodes,
            tasks,
            stop,
        }
    }

    pub fn incarnation(&self) -> u64 {
        self.nodes.own().incarnation
    }

    /// Whether it keeps `ada` out of a room.
    pub fn shuts_out(&self, name: &str) -> bool {
        let (identity, connection) = (identity("ada"), ConnectionId::random());
        let bearer = Bearer {
            identity: &identity,
            connection,
        };
        let room = Room::parse(&Tenant::default(), name).unwrap();
        self.policy.is_revoked(bearer, &room)
    }

    /// Waits until it hears so many others.
    pub async fn sees(&self, others: usize) {
        hears(&self.nodes, others).await;
    }

    /// Waits until it has given all other nodes up.
    pub async fn is_left_alone(&self) {
        within("the others to be given up", async {
            while !self.nodes.live().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Whether every other node that may deliver lives.
    pub fn hears_all(&self) -> bool {
        self.nodes.hears_all()
    }

    /// Takes another one's lease for ended.
    pub fn takes_lease_for_ended(&self, other: &Self) {
        self.nodes.lease_released(other.incarnation());
    }

    /// Ends as a node does that shuts down.
    pub async fn end(&self) {
        self.stop.cancel();
        self.peers.release().await;
        self.shard.end();
        self.tasks.close();
        within("the end of its tasks", self.tasks.wait()).await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shard.end();
    }
}

/// A shard whose connections are entries of a list, all of them in every room.
pub struct FakeShard {
    connections: Mutex<Vec<(ConnectionId, Arc<Identity>)>>,
    told: Mutex<Vec<String>>,
    thinking: Mutex<Vec<oneshot::Sender<AskEnd>>>,
    join_refusal: Mutex<Option<JoinRefusal>>,
    answers: watch::Sender<bool>,
    ended: CancellationToken,
}

impl FakeShard {
    fn start(tasks: &TaskTracker) -> (Arc<Self>, Arc<Mailbox>) {
        let (mailbox, letters) = Mailbox::open(0, 16, 16, Arc::default());
        let shard = Arc::new(Self {
            connections: Mutex::default(),
            told: Mutex::default(),
            thinking: Mutex::default(),
            join_refusal: Mutex::default(),
            answers: watch::channel(true).0,
            ended: CancellationToken::new(),
        });
        let (working, ended) = (Arc::clone(&shard), shard.ended.clone());
        tasks.spawn(async move { ended.run_until_cancelled(working.work(letters)).await });
        (shard, mailbox)
    }

    pub fn connect(&self, user: &str) -> ConnectionId {
        let identity = identity(user);
        let connection = ConnectionId::random();
        self.connections.lock().unwrap().push((connection, Arc::new(identity)));
        connection
    }

    /// What it was told that changes something.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    pub fn refuse_joins(&self, why: JoinRefusal) {
        *self.join_refusal.lock().unwrap() = Some(why);
    }

    pub fn stop_answering(&self) {
        self.answers.send_replace(false);
    }

    pub fn answer_again(&self) {
        self.answers.send_replace(true);
    }

    fn end(&self) {
        self.ended.cancel();
    }

    async fn work(&self, mut letters: MailboxReceiver) {
        let mut answers = self.answers.subscribe();
        while let Some(message) = letters.messages.recv().await {
            answers.wait_for(|answers| *answers).await.unwrap();
            self.obey(message);
        }
    }

    fn meant(&self, audience: &Audience) -> Vec<Arc<Identity>> {
        let connections = self.connections.lock().unwrap();
        let meant = connections.iter().filter(|(connection, identity)| match audience {
            Audience::User(tenant, user) => identity.tenant == *tenant && identity.user == *user,
            Audience::Connection(tenant, id) => identity.tenant == *tenant && connection == id,
        });
        meant.map(|(_, identity)| Arc::clone(identity)).collect()
    }

    fn obey(&self, message: ShardMessage) {
        // Whoever asked may have gone.
        let _ = match message {
            ShardMessage::Order(order, reply) => reply.send(self.carry_out(&order)).map_err(drop),
            ShardMessage::Ask(ask, reply) => reply.send(self.ask(&ask)).map_err(drop),
            ShardMessage::Revoke(revocation, why, reply) => {
                self.tell(format!("revoke {}", why.message()));
                let RevocationSubject::User(user) = &revocation.subject else {
                    panic!("these tests revoke users")
                };
                let hit = self.count(&Audience::User(revocation.tenant.clone(), user.clone()));
                reply.send(hit).map_err(drop)
            }
            ShardMessage::Recheck(_) | ShardMessage::Signal(_) => Ok(()),
        };
    }

    /// Asks a client that repeats what it is asked, or thinks.
    fn ask(&self, ask: &Ask) -> AskStart {
        let audience = Audience::Connection(ask.tenant.clone(), ask.connection);
        if self.meant(&audience).is_empty() {
            return AskStart::NotHere;
        }
        self.tell(format!("ask {}", ask.method.as_str()));
        let (end, ended) = oneshot::channel();
        if ask.method.as_str() == "think" {
            self.thinking.lock().unwrap().push(end);
        } else {
            end.send(AskEnd::Answered(ask.payload.clone())).unwrap();
        }
        AskStart::Delivered(ended)
    }

    /// Ends an ask whose client thinks.
    pub fn stop_thinking(&self, end: AskEnd) {
        let thinking = self.thinking.lock().unwrap().pop();
        thinking.unwrap().send(end).unwrap();
    }

    fn count(&self, audience: &Audience) -> u32 {
        u32::try_from(self.meant(audience).len()).unwrap()
    }

    fn tell(&self, what: String) {
        self.told.lock().unwrap().push(what);
    }

    fn carry_out(&self, Order { audience, verb }: &Order) -> Outcome {
        let count = self.count(audience);
        match verb {
            Verb::Join(permit) => {
                if let Some(refused) = *self.join_refusal.lock().unwrap() {
                    return Outcome {
                        refused: (count > 0).then_some(refused),
                        ..Outcome::default()
                    };
                }
                self.tell(format!("join {}", permit.room().name()));
            }
            Verb::Leave(room, notice) => self.tell(format!("leave {} {}", room.name(), notice.message())),
            Verb::Disconnect(reason, notice) => {
                self.tell(format!("disconnect {} {}", reason.as_str(), notice.message()));
            }
            Verb::Send(_) => self.tell("send".to_owned()),
            Verb::Count => {}
            Verb::Identify => return Outcome::identified(self.meant(audience).into_iter().next()),
        }
        Outcome::of(count)
    }
}
