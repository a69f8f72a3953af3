//! A running API with fakes around it.

pub(super) mod mirror;
mod shard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

pub(super) use self::shard::FakeShard;
use crate::api::{ApiServices, Config, Context, Credentials, Grant, Scope, TokenDigest};
use crate::bus::memory::{self, MemoryBus};
use crate::cluster::Cluster;
use crate::cluster::no_peers::NoPeers;
use crate::hub::Shards;
use crate::identity::UserId;
use crate::lease::Lease;
use crate::policy::RulePolicy;
use crate::presence::memory::MemoryPresence;
use crate::presence::{self, Member, Presence as _};
use crate::proto::v1;
use crate::proto::v1::access_service_client::AccessServiceClient;
use crate::proto::v1::connection_service_client::ConnectionServiceClient;
use crate::proto::v1::publish_service_client::PublishServiceClient;
use crate::proto::v1::room_service_client::RoomServiceClient;
use crate::proto::v1::user_service_client::UserServiceClient;
use crate::readiness::Readiness;
use crate::room::{Room, RoomPattern, Tenant};
use crate::rooms::{HomeRooms, Rooms};

/// The token of a service with every scope in every tenant.
pub(super) const ROOT: &str = "root-token";

pub(super) type Authorized = InterceptedService<Channel, Caller>;

/// What a caller adds to each of its calls.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) token: Option<&'static str>,
    pub(super) timeout: Option<Duration>,
}

impl Caller {
    pub(super) fn with(token: &'static str) -> Self {
        Self {
            token: Some(token),
            timeout: Some(Duration::from_secs(10)),
        }
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(timeout) = self.timeout
            && !request.metadata().contains_key("grpc-timeout")
        {
            request.set_timeout(timeout);
        }
        Ok(request)
    }
}

/// What an API is started with.
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) bus: memory::Config,
    pub(super) presence: presence::memory::Config,
    pub(super) credentials: Credentials,
    pub(super) home_rooms: HomeRooms,
    pub(super) lease: Lease,
}

impl Default for Setup {
    fn default() -> Self {
        let pattern = |text| Some(RoomPattern::parse(text).unwrap());
        Self {
            config: Config::default(),
            bus: memory::Config::default(),
            presence: presence::memory::Config {
                leave_grace: Duration::ZERO,
                ..presence::memory::Config::default()
            },
            credentials: Credentials::none().with_tokens([token(ROOT, &Scope::ALL, None)]),
            home_rooms: HomeRooms::new(pattern("user:{user}"), pattern("tenant:{tenant}")).unwrap(),
            lease: Lease::unlimited(),
        }
    }
}

pub(super) fn token(text: &str, scopes: &[Scope], tenants: Option<&[&str]>) -> (TokenDigest, Grant) {
    let grant = Grant {
        name: format!("the service with {scopes:?} in {tenants:?}"),
        scopes: scopes.to_vec(),
        tenants: tenants.map(|tenants| tenants.iter().map(ToString::to_string).collect()),
        publish_rate: None,
    };
    (TokenDigest::of(text), grant)
}

/// A running API.
pub(super) struct Api {
    pub(super) address: SocketAddr,
    pub(super) presence: Arc<MemoryPresence>,
    pub(super) shard: Arc<FakeShard>,
    pub(super) policy: Arc<RulePolicy>,
    pub(super) readiness: Readiness,
    pub(super) stop: CancellationToken,
    shared: Arc<ApiServices>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Api {
    pub(super) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(super) async fn with(setup: Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let presence = Arc::new(MemoryPresence::new(setup.presence));
        let (shard, mailbox) = FakeShard::start();
        let readiness = Readiness::starting();
        let policy = Arc::new(policy());
        let shards = Shards::new(vec![mailbox]);
        let context = Context {
            rooms: Rooms::new(Arc::new(MemoryBus::new(setup.bus)), presence.clone()),
            cluster: Cluster::new(shards.clone(), Arc::new(NoPeers::new("node-1", shards, policy.clone()))),
            policy: policy.clone(),
            credentials: setup.credentials,
            home_rooms: setup.home_rooms,
            lease: setup.lease,
            readiness: readiness.clone(),
            tenants: None,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let shared = ApiServices::new(context, setup.config);
        let served = shared.clone().serve(listener, async move { stopped.cancelled().await });
        spawn(async move { served.await.unwrap() });
        Self {
            address,
            presence,
            shard,
            policy,
            readiness,
            stop,
            shared,
        }
    }

    /// The bytes of answers that are unread or may become so.
    pub(super) fn unread_bytes(&self) -> usize {
        self.shared.unread.bytes()
    }

    /// The subscriptions that run.
    pub(super) fn subscriptions(&self) -> usize {
        self.shared.subscriptions.taken()
    }

    pub(super) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(super) async fn publisher_of(&self, caller: Caller) -> PublishServiceClient<Authorized> {
        PublishServiceClient::with_interceptor(self.channel().await, caller)
    }

    pub(super) async fn steward_of(&self, caller: Caller) -> RoomServiceClient<Authorized> {
        RoomServiceClient::with_interceptor(self.channel().await, caller)
    }

    pub(super) async fn users_of(&self, caller: Caller) -> UserServiceClient<Authorized> {
        UserServiceClient::with_interceptor(self.channel().await, caller)
    }

    pub(super) async fn connections_of(&self, caller: Caller) -> ConnectionServiceClient<Authorized> {
        ConnectionServiceClient::with_interceptor(self.channel().await, caller)
    }

    pub(super) async fn access_of(&self, caller: Caller) -> AccessServiceClient<Authorized> {
        AccessServiceClient::with_interceptor(self.channel().await, caller)
    }

    pub(super) async fn access(&self) -> AccessServiceClient<Authorized> {
        self.access_of(Caller::with(ROOT)).await
    }

    pub(super) async fn steward(&self) -> RoomServiceClient<Authorized> {
        self.steward_of(Caller::with(ROOT)).await
    }

    /// Lets a new connection of `user` into a room of tenant `a`.
    pub(super) fn enter(&self, name: &str, user: &str) -> Member {
        let member = Member {
            connection: self.shard.connect("a", user),
            user: UserId::parse(user).unwrap(),
        };
        self.presence.enter(&room("a", name), &member, None).unwrap();
        member
    }

    pub(super) async fn publisher(&self) -> PublishServiceClient<Authorized> {
        self.publisher_of(Caller::with(ROOT)).await
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Lets members of project rooms join whose token names the project, and nobody without a plan connect.
fn policy() -> RulePolicy {
    let config = serde_json::json!({
        "rules": [{
            "name": "own projects",
            "room": "project:{project}",
            "allow": ["join", "history"],
            "when": "room.project in claims.projects",
        }],
        "connect": {"when": ["has(claims.plan)"], "authorizer": false},
    });
    RulePolicy::new(&serde_json::from_value(config).unwrap()).unwrap()
}

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

pub(super) fn room(tenant_name: &str, name: &str) -> Room {
    Room::parse(&tenant(tenant_name), name).unwrap()
}

/// A target that is a room.
pub(super) fn to_room(name: &str) -> v1::Target {
    v1::Target {
        target: Some(v1::target::Target::Room(name.to_owned())),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the field of a request takes it")]
pub(super) fn json(text: &str) -> Option<v1::Payload> {
    Some(v1::Payload {
        content: Some(v1::payload::Content::Json(text.to_owned())),
    })
}

/// An acceptable event for room `r` of tenant `a`.
pub(super) fn event() -> v1::PublishRequest {
    v1::PublishRequest {
        tenant: "a".to_owned(),
        targets: vec![to_room("r")],
        event_name: "greeting".to_owned(),
        payload: json("{\"text\":\"hello\"}"),
        ..v1::PublishRequest::default()
    }
}

/// Code, reason and the first field violation of a refusal; it must be complete.
pub(super) fn refusal(status: &Status) -> (tonic::Code, String, String) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "roomcast");
    let field = details.bad_request().and_then(|bad| bad.field_violations.first());
    let field = field.map(|violation| violation.field.clone()).unwrap_or_default();
    (status.code(), info.reason.clone(), field)
}
