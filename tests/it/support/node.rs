//! A whole gateway in this process, and the proof that it forgets those who have left.

use std::collections::BTreeSet;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast::api::{self, Credentials, Grant, HomeRooms, Scope, TokenDigest};
use roomcast::auth::{self, Algorithm, ClaimsConfig, IssuerConfig, KeyConfig, Secret};
use roomcast::bus::memory;
use roomcast::gateway::{Config, Gateway, Listeners};
use roomcast::hub::admission;
use roomcast::policy::{self, ActionName, RuleConfig};
use roomcast::presence;
use roomcast::room::RoomPattern;
use roomcast::session;
use roomcast::transport::{http, shard};
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

use super::caller::ROOT;
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

/// A running gateway. A test that is through with it says so: [`Node::finish`].
pub struct Node {
    pub encoding: Encoding,
    gateway: Option<Gateway>,
    settings: Box<dyn Settings>,
    channel: Channel,
    traces: Arc<Traces>,
}

impl Node {
    /// Starts a gateway with the usual settings: everybody in a tenant may do everything in its rooms.
    pub async fn start(encoding: Encoding) -> Self {
        Self::with(encoding, |_| {}).await
    }

    /// Starts a gateway with other settings.
    pub async fn with(encoding: Encoding, settings: impl Settings) -> Self {
        let gateway = launch(&settings).await;
        let channel = channel(gateway.grpc_address());
        Self {
            encoding,
            gateway: Some(gateway),
            settings: Box::new(settings),
            channel,
            traces: Arc::default(),
        }
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("the node has not finished")
    }

    pub fn client_address(&self) -> SocketAddr {
        self.gateway().client_address()
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.gateway().grpc_address()
    }

    pub fn connections(&self) -> usize {
        self.gateway().connections()
    }

    pub fn bus_usage(&self) -> memory::Usage {
        self.gateway().bus_usage()
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
        let gateway = self.gateway.take().expect("the node has not finished");
        within("the gateway to shut down", gateway.shutdown()).await;
    }

    /// Ends the gateway and starts another with the same settings.
    pub async fn restart(&mut self) {
        self.shut_down().await;
        let gateway = launch(&self.settings).await;
        self.channel = channel(gateway.grpc_address());
        self.gateway = Some(gateway);
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
            self.gateway.is_none() || std::thread::panicking(),
            "a test ends with `node.finish()`"
        );
    }
}

async fn launch(settings: &impl Settings) -> Gateway {
    let mut config = usual();
    settings(&mut config);
    let listeners = Listeners {
        client: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        grpc: TcpListener::bind("127.0.0.1:0").await.unwrap(),
    };
    Gateway::start(config, listeners).await.expect("the gateway starts")
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
        dev: false,
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
        ],
    )
}

/// A rule without conditions.
pub fn rule(name: &str, room: &str, allow: &[ActionName]) -> RuleConfig {
    RuleConfig {
        name: name.to_owned(),
        room: room.to_owned(),
        allow: allow.to_vec(),
        events: Vec::new(),
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
