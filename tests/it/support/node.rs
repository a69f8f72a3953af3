//! A whole gateway in this process, and the proof that it forgets those who have left.
//!
//! Over NATS it is two: backends call the first, clients connect to both by turns. A story that holds for one node holds
//! for both together.

use std::collections::BTreeSet;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use roomcast::admission;
use roomcast::api::{self, Credentials, Grant, Scope, TokenDigest};
use roomcast::auth::{self, Algorithm, ClaimsConfig, IssuerConfig, KeyConfig, Secret};
use roomcast::bus::{self, memory};
use roomcast::counters::{ConnectionRefused, PublishOutcome, RelayOutcome};
use roomcast::gateway::{Applied, ApplyError, Config, Gateway, Listeners, Settings as Swappable};
use roomcast::nats;
use roomcast::policy::{self, ActionName, RuleConfig};
use roomcast::presence;
use roomcast::room::RoomPattern;
use roomcast::rooms::HomeRooms;
use roomcast::session;
use roomcast::transport::{http, native, shard, sse};
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

use super::caller::ROOT;
use super::nats::NatsServer;
use super::opening::Opening;
use super::raw::Raw;
use super::{Caller, Client, Encoding, User, eventually, identity, within};

/// Changes the usual settings of a node.
pub trait Settings: Fn(&mut Config) + Send + Sync + 'static {}

impl<F: Fn(&mut Config) + Send + Sync + 'static> Settings for F {}

/// What a node remembers of its clients, to ask at the end whether the gateway has forgotten them.
#[derive(Debug, Default)]
pub struct Traces {
    pub sockets: Mutex<Vec<std::net::TcpStream>>,
    /// Tenants and rooms that somebody was in.
    pub rooms: Mutex<BTreeSet<(String, String)>>,
}

tokio::task_local! {
    static OVER_NATS: ();
}

/// Runs a story with every [`Node`] in it being two gateways over a nats-server.
pub async fn over_nats(story: impl Future<Output = ()>) {
    // Stories are long; boxed, they are not copied about.
    OVER_NATS.scope((), Box::pin(story)).await;
}

/// A running gateway. A test that is through with it says so: [`Node::finish`].
pub struct Node {
    pub encoding: Encoding,
    /// None once it has finished; two over NATS.
    gateways: Vec<Gateway>,
    settings: Box<dyn Settings>,
    /// Of the first.
    channel: Channel,
    /// Counts clients, for their turns.
    clients: AtomicUsize,
    traces: Arc<Traces>,
    /// The nats-server that came with it, over NATS.
    broker: Option<NatsServer>,
}

impl Node {
    /// Starts a gateway with the usual settings: everybody in a tenant may do everything in its rooms.
    pub async fn start(encoding: Encoding) -> Self {
        Self::with(encoding, |_| {}).await
    }

    /// Starts a gateway with other settings.
    pub async fn with(encoding: Encoding, settings: impl Settings) -> Self {
        let broker = match OVER_NATS.try_with(|()| ()) {
            Ok(()) => Some(NatsServer::start().await),
            Err(_) => None,
        };
        let count = if broker.is_some() { 2 } else { 1 };
        Self::launched(encoding, count, settings, broker).await
    }

    /// Starts so many gateways over NATS servers of the test's own; the settings say which, in `nats.servers`. They are
    /// called for each gateway, and know it by its `node_id`.
    pub async fn several(encoding: Encoding, count: usize, settings: impl Settings) -> Self {
        Self::launched(encoding, count, settings, None).await
    }

    async fn launched(encoding: Encoding, count: usize, settings: impl Settings, broker: Option<NatsServer>) -> Self {
        let gateways = launch(&settings, count, broker.as_ref()).await;
        Self {
            encoding,
            channel: channel(gateways[0].grpc_address()),
            gateways,
            settings: Box::new(settings),
            clients: AtomicUsize::new(0),
            traces: Arc::default(),
            broker,
        }
    }

    /// One of several gateways.
    pub fn of_several(&self, number: usize) -> OneOf<'_> {
        OneOf { node: self, number }
    }

    fn gateway(&self) -> &Gateway {
        self.gateways.first().expect("the node has not finished")
    }

    /// Gives each gateway other settings while it runs; what that came to, on all of them together.
    ///
    /// # Errors
    /// What the first says that refuses.
    pub async fn apply(&self, change: impl Fn(&mut Swappable)) -> Result<Applied, ApplyError> {
        let mut all = Applied {
            changed: Vec::new(),
            ended: 0,
        };
        for gateway in &self.gateways {
            let mut settings = gateway.settings();
            change(&mut settings);
            let applied = within("settings to be applied", gateway.apply(settings)).await?;
            all.changed = applied.changed;
            all.ended += applied.ended;
        }
        Ok(all)
    }

    /// Where the next client connects.
    pub fn client_address(&self) -> SocketAddr {
        let turn = self.clients.fetch_add(1, Ordering::Relaxed);
        self.gateways[turn % self.gateways.len()].client_address()
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.gateway().grpc_address()
    }

    pub fn connections(&self) -> usize {
        self.gateways.iter().map(Gateway::connections).sum()
    }

    pub fn bus_usage(&self) -> bus::Usage {
        self.gateway().bus_usage()
    }

    /// What its gateways have counted under this outcome of a publish, on all of them together.
    pub fn published(&self, outcome: PublishOutcome) -> u64 {
        let counters = self.gateways.iter().map(Gateway::counters);
        counters.map(|counters| counters.publishes.of(outcome)).sum()
    }

    /// The connections that its gateways have refused for this reason.
    pub fn refused(&self, reason: ConnectionRefused) -> u64 {
        let counters = self.gateways.iter().map(Gateway::counters);
        counters.map(|counters| counters.connections_refused.of(reason)).sum()
    }

    /// Gives the gateway a connection that is no WebSocket and speaks the protocol of this name.
    pub async fn adopt(&self, stream: std::net::TcpStream, address: std::net::IpAddr, protocol: &str) {
        let port = self.gateway().client_port();
        let protocol = port.protocols().find(protocol).unwrap();
        port.adopt(stream, address, protocol).await.unwrap();
    }

    /// The names of its gateways.
    pub fn ids(&self) -> Vec<String> {
        (0..self.gateways.len())
            .map(|number| format!("node-{number}"))
            .collect()
    }

    /// Asserts how many connections a publish says it reaches. Over NATS a gateway that is busy may not have said it in
    /// time; then it is not known.
    #[track_caller]
    pub fn assert_reached(&self, told: Option<u32>, members: u32) {
        let is_late = told.is_none() && self.gateways.len() > 1;
        assert!(is_late || told == Some(members), "{told:?} of {members}");
    }

    /// A connected client in the node's encoding.
    pub async fn connect(&self, user: User) -> Client {
        self.opening().connect(user).await
    }

    /// A WebSocket, before anything was said over it.
    pub async fn open(&self) -> Client {
        self.opening().open().await.expect("the upgrade is accepted")
    }

    /// A WebSocket with particular wishes.
    pub fn opening(&self) -> Opening {
        Opening::new(self.client_address(), self.encoding, Arc::clone(&self.traces))
    }

    /// A bare connection to the client port.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.client_address(), &self.traces).await
    }

    /// A bare connection to the gRPC port.
    pub async fn raw_grpc(&self) -> Raw {
        Raw::connect(self.grpc_address(), &self.traces).await
    }

    /// A backend with every right in every tenant.
    pub fn backend(&self) -> Caller {
        self.caller(ROOT)
    }

    /// A backend with this token.
    pub fn caller(&self, token: &str) -> Caller {
        Caller::new(self.channel.clone(), token)
    }

    /// Waits until this many clients are connected.
    pub async fn until_connections(&self, count: usize) {
        eventually(format!("{count} connections"), || async {
            (self.connections() == count).then_some(())
        })
        .await;
    }

    /// Ends the gateway as if it was sent a signal, with clients still connected.
    pub async fn shut_down(&mut self) {
        let gateways = std::mem::take(&mut self.gateways);
        assert!(!gateways.is_empty(), "the node has not finished");
        let ended = join_all(gateways.into_iter().map(Gateway::shutdown));
        within("the gateway to shut down", ended).await;
    }

    /// Ends one of several gateways as if it was sent a signal. Those behind it move up.
    pub async fn shut_down_one(&mut self, number: usize) {
        let gateway = self.gateways.remove(number);
        within("the gateway to shut down", gateway.shutdown()).await;
    }

    /// Ends the gateway and starts another with the same settings.
    pub async fn restart(&mut self) {
        let count = self.gateways.len();
        self.shut_down().await;
        self.gateways = launch(&self.settings, count, self.broker.as_ref()).await;
        self.channel = channel(self.gateway().grpc_address());
    }

    /// Cuts every client off, then asserts that nothing of them is left, and that the gateway ends.
    pub async fn finish(mut self) {
        for socket in self.traces.sockets.lock().unwrap().drain(..) {
            // One that has ended by itself cannot be ended again.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.until_connections(0).await;
        self.assert_rooms_are_empty().await;
        self.shut_down().await;
    }

    async fn assert_rooms_are_empty(&self) {
        let rooms = std::mem::take(&mut *self.traces.rooms.lock().unwrap());
        let backend = self.backend();
        for (tenant, room) in rooms {
            let backend = backend.clone().of(&tenant);
            eventually(format!("`{room}` of `{tenant}` to be empty"), || async {
                let stats = backend.stats(&room).await;
                let counts = (stats.member_count, stats.connection_count);
                (counts == (0, 0) && stats.occupied_since_time.is_none()).then_some(())
            })
            .await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        assert!(
            self.gateways.is_empty() || std::thread::panicking(),
            "a test ends with `node.finish()`"
        );
    }
}

/// One of a node's gateways, to which a story goes on purpose.
pub struct OneOf<'n> {
    node: &'n Node,
    number: usize,
}

impl OneOf<'_> {
    fn gateway(&self) -> &Gateway {
        &self.node.gateways[self.number]
    }

    /// Gives it other settings while it runs.
    ///
    /// # Errors
    /// What it refuses.
    pub async fn apply(&self, change: impl Fn(&mut Swappable)) -> Result<Applied, ApplyError> {
        let mut settings = self.gateway().settings();
        change(&mut settings);
        within("settings to be applied", self.gateway().apply(settings)).await
    }

    /// Where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.gateway().client_address()
    }

    /// The requests that it has relayed to others, with this outcome.
    pub fn relayed(&self, outcome: RelayOutcome) -> u64 {
        self.gateway().counters().relayed.of(outcome)
    }

    /// How somebody opens a WebSocket to it.
    pub fn opening(&self) -> Opening {
        Opening::new(self.client_address(), self.node.encoding, Arc::clone(&self.node.traces))
    }

    /// A connected client.
    pub async fn connect(&self, user: User) -> Client {
        self.opening().connect(user).await
    }

    /// A bare connection to its port for operators.
    pub async fn raw_admin(&self) -> Raw {
        let address = self.gateway().admin_address().expect("it is served");
        Raw::connect(address, &self.node.traces).await
    }

    /// A connection to its gRPC port.
    pub fn channel(&self) -> Channel {
        channel(self.gateway().grpc_address())
    }

    /// A backend with every right in every tenant.
    pub fn backend(&self) -> Caller {
        self.caller(ROOT)
    }

    /// A backend with this token.
    pub fn caller(&self, token: &str) -> Caller {
        Caller::new(self.channel(), token)
    }
}

async fn launch(settings: &impl Settings, count: usize, broker: Option<&NatsServer>) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for number in 0..count {
        let mut config = usual();
        config.node_id = format!("node-{number}");
        config.nats = (count > 1).then(|| nats::Config {
            servers: broker.map(NatsServer::url).into_iter().collect(),
            // As many as make a difference, and quick to make.
            partitions: 3,
            ..nats::Config::default()
        });
        settings(&mut config);
        let listeners = Listeners {
            client: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            grpc: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            admin: Some(TcpListener::bind("127.0.0.1:0").await.unwrap()),
        };
        let gateway = Gateway::start(config, listeners).await;
        gateways.push(gateway.expect("the gateway starts"));
    }
    gateways
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// The settings tests start from.
pub fn usual() -> Config {
    let root = Grant {
        name: "tests".to_owned(),
        scopes: Scope::ALL.to_vec(),
        tenants: None,
        publish_rate: None,
    };
    Config {
        node_id: "node-0".to_owned(),
        shards: 2,
        connections: admission::Config::default(),
        session: session::Config::default(),
        sockets: shard::Config::default(),
        client: http::Config::default(),
        protocols: sse::add_to(native::protocols(), &sse::Config::default()),
        bus: memory::Config::default(),
        nats: None,
        presence: presence::memory::Config {
            // A client that is cut off is gone at once; tests of the grace period set one.
            leave_grace: Duration::ZERO,
            ..Default::default()
        },
        auth: auth::Config {
            issuers: vec![issuer()],
            ..Default::default()
        },
        policy: policy::Config {
            rules: vec![everything()],
            ..Default::default()
        },
        api: api::Config::default(),
        credentials: Credentials::none().with_tokens([(TokenDigest::of(ROOT), root)]),
        home_rooms: HomeRooms::default(),
        backend: None,
        drain_window: Duration::from_millis(100),
        dev: None,
    }
}

fn issuer() -> IssuerConfig {
    IssuerConfig {
        issuer: identity::ISSUER.to_owned(),
        audiences: vec![identity::AUDIENCE.to_owned()],
        keys: vec![KeyConfig {
            kid: None,
            algorithm: Algorithm::Hs256,
            secret: Some(Secret::new(identity::SECRET.to_owned())),
            secret_file: None,
            public_key: None,
            public_key_file: None,
        }],
        claims: ClaimsConfig {
            tenant: Some("tenant_id".to_owned()),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// The rule that lets everybody do everything.
fn everything() -> RuleConfig {
    rule(
        "everything",
        "{room*}",
        &[
            ActionName::Join,
            ActionName::Publish,
            ActionName::Presence,
            ActionName::History,
            ActionName::Request,
        ],
    )
}

/// A rule without conditions.
pub fn rule(name: &str, room: &str, allow: &[ActionName]) -> RuleConfig {
    RuleConfig {
        name: name.to_owned(),
        room: Some(room.to_owned()),
        allow: allow.to_vec(),
        events: Vec::new(),
        methods: Vec::new(),
        when: None,
        authorizer: false,
        validate: false,
    }
}

/// Puts every client into a room of its own and one of its tenant, which backends can name by user and tenant.
pub fn home_rooms(config: &mut Config) {
    let pattern = |text| Some(RoomPattern::parse(text).unwrap());
    config.policy.auto_join = vec!["user:{sub}".to_owned(), "tenant:{tenant_id}".to_owned()];
    config.home_rooms = HomeRooms::new(pattern("user:{user}"), pattern("tenant:{tenant}")).unwrap();
}
