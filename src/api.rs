//! The gRPC edge: the services of `roomcast.v1` for backends, with health, reflection and gRPC-Web beside them. A mirror of
//! the plainest calls as HTTP with JSON stands on the same port (see [`mod@http`]).
//!
//! Here wire types become vocabulary and errors become statuses. A call passes the gate (credential, deadline), then its
//! method; what a method does to rooms it does through [`Rooms`] with a permit, what it does to connections through
//! [`Cluster`]. Nothing here knows a socket of a client or what a token of a client looks like.

pub mod config;
mod convert;
pub mod credentials;
mod front;
mod gate;
mod health;
pub mod http;
mod listener;
mod page;
mod protocol;
mod publish;
mod rooms;
mod single;
mod span;
mod starting;
pub mod status;
mod subscribe;
#[cfg(test)]
mod tests;
mod unread;
mod watch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Status};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service};
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::listener::tls::Acceptor;
use crate::admission::Tenants;
use crate::cluster::Cluster;
use crate::lease::Lease;
use crate::policy::Policy;
use crate::proto::v1::access_service_server::AccessServiceServer;
use crate::proto::v1::connection_service_server::ConnectionServiceServer;
use crate::proto::v1::publish_service_server::PublishServiceServer;
use crate::proto::v1::room_service_server::RoomServiceServer;
use crate::proto::v1::subscribe_service_server::SubscribeServiceServer;
use crate::proto::v1::user_service_server::UserServiceServer;
use crate::proto::v1::watch_service_server::WatchServiceServer;
use crate::readiness::{Readiness, Unready};
use crate::rooms::{HomeRooms, Rooms};

pub use config::{Config, ConfigError, Subscriptions, Tls};
pub use credentials::{Caller, Credentials, Grant, Scope, TokenDigest};
pub use listener::tls::TlsError;
pub(crate) use starting::serve as serve_while_starting;

/// Dependencies of the methods.
pub struct Context {
    /// The rooms of the gateway.
    pub rooms: Rooms,
    /// The connections, wherever they are.
    pub cluster: Cluster,
    /// The policy that decides for clients.
    pub policy: Arc<dyn Policy>,
    /// The credentials that are accepted.
    pub credentials: Credentials,
    /// The home rooms of users and tenants.
    pub home_rooms: HomeRooms,
    /// The lease that the node delivers under.
    pub lease: Lease,
    /// The node's readiness.
    pub readiness: Readiness,
    /// The connected tenants, where the absence of one is reported.
    pub tenants: Option<Tenants>,
}

/// State shared by all methods.
struct ApiServices {
    context: Context,
    config: Config,
    draining: CancellationToken,
    unread: unread::Unread,
    subscriptions: subscribe::Places,
}

/// Serves the API until `shutdown`, then until all calls have ended, at most [`Config::drain_max`]. Streams end with
/// `UNAVAILABLE` (`DRAINING`) at once.
///
/// # Errors
/// [`TlsError`] when the TLS settings cannot be used.
pub async fn serve(
    listener: tokio::net::TcpListener,
    context: Context,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), TlsError> {
    ApiServices::new(context, config).serve(listener, shutdown).await
}

impl ApiServices {
    fn new(context: Context, config: Config) -> Arc<Self> {
        Arc::new(Self {
            unread: unread::Unread::new(config.unread_bytes_max),
            subscriptions: subscribe::Places::new(config.subscriptions),
            context,
            config,
            draining: CancellationToken::new(),
        })
    }

    async fn serve(
        self: Arc<Self>,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), TlsError> {
        let tls = self.config.tls.as_ref().map(Acceptor::new).transpose()?;
        let draining = self.draining.clone();
        let served = listener::serve(listener, tls, &self.config, service(&self), draining.clone());
        let keys = self.context.credentials.keep_keys_fresh(draining.clone());
        let begun = async {
            shutdown.await;
            self.context.readiness.set(Unready::Draining, true);
            draining.cancel();
        };
        tokio::join!(served, keys, begun);
        Ok(())
    }
}

/// Builds the service of the listener.
fn service(
    shared: &Arc<ApiServices>,
) -> impl Service<::http::Request<Body>, Response = ::http::Response<Body>, Error = std::convert::Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ use<> {
    let others = tower::ServiceBuilder::new()
        .option_layer(cors(&shared.config))
        .layer(http::MirrorLayer::new(shared))
        .layer(GrpcWebLayer::new());
    // The gate stands inside the layers: a gRPC-Web call is translated to gRPC before its credential is checked.
    let front = front::FrontLayer {
        gate: gate::GateLayer(shared.clone()),
        others,
    };
    front.layer(routes(shared))
}

fn routes(shared: &Arc<ApiServices>) -> tonic::service::Routes {
    /// Builds a server with the bounds that all services share.
    macro_rules! bounded {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(shared.config.message_bytes_max)
                .accept_compressed(CompressionEncoding::Gzip)
        };
    }
    let steward = rooms::UnaryServices(shared.clone());
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(bounded!(PublishServiceServer, publish::Publisher(shared.clone())))
        .add_service(bounded!(RoomServiceServer, steward.clone()))
        .add_service(bounded!(UserServiceServer, steward.clone()))
        .add_service(bounded!(ConnectionServiceServer, steward.clone()))
        .add_service(bounded!(AccessServiceServer, steward))
        .add_service(bounded!(WatchServiceServer, watch::Watcher(shared.clone())))
        .add_service(bounded!(SubscribeServiceServer, subscribe::Subscriber(shared.clone())))
        .add_service(health::server(&shared.context.readiness))
        .add_service(
            reflection()
                .build_v1()
                .expect("the contract's descriptors are well-formed"),
        )
        .add_service(
            reflection()
                .build_v1alpha()
                .expect("the contract's descriptors are well-formed"),
        );
    routes.routes().prepare()
}

/// Configures reflection of this listener's services. The descriptors also have the services that backends implement, but
/// the list does not.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("roomcast.v1.PublishService")
        .with_service_name("roomcast.v1.RoomService")
        .with_service_name("roomcast.v1.UserService")
        .with_service_name("roomcast.v1.ConnectionService")
        .with_service_name("roomcast.v1.AccessService")
        .with_service_name("roomcast.v1.WatchService")
        .with_service_name("roomcast.v1.SubscribeService")
        .with_service_name("grpc.health.v1.Health")
}

/// Allows gRPC-Web to browsers of the listed origins; `None` allows none.
fn cors(config: &Config) -> Option<CorsLayer> {
    use ::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
    let header = HeaderName::from_static;
    (!config.web_origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(config.web_origins.iter().cloned()))
            .allow_methods([::http::Method::POST, ::http::Method::GET])
            .allow_headers([
                AUTHORIZATION,
                CONTENT_TYPE,
                header("grpc-timeout"),
                header("traceparent"),
                header("tracestate"),
                header("x-grpc-web"),
                header("x-user-agent"),
            ])
            .expose_headers([
                header("grpc-message"),
                header("grpc-status"),
                header("grpc-status-details-bin"),
            ])
            .max_age(std::time::Duration::from_secs(7200))
    })
}

/// Returns the caller that the gate has authenticated.
fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    // Fails closed: without a caller no method runs, whatever becomes of the layers.
    caller.ok_or_else(|| status::Refusal::Unauthenticated("the call carries no credential").into())
}
