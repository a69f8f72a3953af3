//! The gRPC edge: the services of `roomcast.v1` for backends, with health, reflection and gRPC-Web beside them, and a
//! mirror of the plainest calls as HTTP with JSON on the same port (see [`mod@http`]).
//!
//! Here wire types become vocabulary and errors become statuses. A call passes the gate (credential, deadline), then its
//! method; what a method does to rooms it does through [`Rooms`] with a permit, what it does to connections through
//! [`Everywhere`]. Nothing here knows a socket of a client or what a token of a client looks like.

pub mod config;
mod convert;
pub mod credentials;
mod front;
mod gate;
mod health;
pub mod http;
mod listener;
mod page;
mod publish;
mod rooms;
mod span;
pub mod status;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::{Request, Status};
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::listener::tls::Acceptor;
use crate::cluster::Everywhere;
use crate::hub::admission::Tenants;
use crate::policy::Policy;
use crate::proto::v1::access_service_server::AccessServiceServer;
use crate::proto::v1::connection_service_server::ConnectionServiceServer;
use crate::proto::v1::publish_service_server::PublishServiceServer;
use crate::proto::v1::room_service_server::RoomServiceServer;
use crate::proto::v1::user_service_server::UserServiceServer;
use crate::proto::v1::watch_service_server::WatchServiceServer;
use crate::rooms::{HomeRooms, Rooms};

pub use config::{Config, ConfigError, Tls};
pub use credentials::{Caller, Credentials, Grant, Scope, TokenDigest};
pub use health::Health;
pub use listener::tls::TlsError;

/// What the methods work on.
pub struct Context {
    /// The rooms of the gateway.
    pub rooms: Rooms,
    /// The connections, wherever they are.
    pub everywhere: Everywhere,
    /// Who decides for clients.
    pub policy: Arc<dyn Policy>,
    /// Who may call.
    pub credentials: Credentials,
    /// The rooms that stand for a user and for a tenant.
    pub home_rooms: HomeRooms,
    /// Whether the node serves.
    pub health: Health,
    /// The tenants that are connected, where their absence is reported.
    pub tenants: Option<Tenants>,
}

/// What all methods share.
struct Shared {
    context: Context,
    config: Config,
    draining: CancellationToken,
}

/// The listener did not start, or ended for another reason than its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The TLS settings cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The listener ended.
    #[error("the gRPC listener ended")]
    Ended(#[from] tonic::transport::Error),
}

/// Serves the API until `shutdown`, then as long as calls go on, at most [`Config::drain_max`]. Streams end with
/// `UNAVAILABLE` (`DRAINING`) at once.
///
/// # Errors
/// Every variant of [`ServeError`].
pub async fn serve(
    listener: tokio::net::TcpListener,
    context: Context,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let draining = CancellationToken::new();
    let shared = Arc::new(Shared {
        context,
        config,
        draining: draining.clone(),
    });
    let cors = cors(&shared.config);
    let others = tower::ServiceBuilder::new()
        .option_layer(cors)
        .layer(http::MirrorLayer::new(&shared))
        .layer(GrpcWebLayer::new());
    let front = front::FrontLayer {
        gate: gate::GateLayer(shared.clone()),
        others,
    };
    let tls = shared.config.tls.as_ref().map(Acceptor::new).transpose()?;
    let incoming = listener::incoming(listener, tls, &shared.config);
    let begun = async {
        shutdown.await;
        shared.context.health.set_serving(false).await;
        draining.cancel();
    };
    let until_drained = builder(&shared.config)
        .layer(front)
        .add_routes(routes(&shared))
        .serve_with_incoming_shutdown(incoming, begun);
    let overdue = async {
        draining.cancelled().await;
        tokio::time::sleep(shared.config.drain_max).await;
    };
    let served = async {
        let ended = tokio::select! {
            ended = until_drained => ended,
            () = overdue => Ok(()),
        };
        draining.cancel();
        ended
    };
    let keys = shared.context.credentials.keep_keys_fresh(draining.clone());
    Ok(tokio::join!(served, keys).0?)
}

fn builder(config: &Config) -> Server {
    Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(config.streams_max)
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .http2_max_header_list_size(config.header_bytes_max)
}

fn routes(shared: &Arc<Shared>) -> tonic::service::Routes {
    /// A service that takes what all of them take.
    macro_rules! bounded {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(shared.config.message_bytes_max)
                .accept_compressed(CompressionEncoding::Gzip)
        };
    }
    let steward = rooms::Steward(shared.clone());
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(bounded!(PublishServiceServer, publish::Publisher(shared.clone())))
        .add_service(bounded!(RoomServiceServer, steward.clone()))
        .add_service(bounded!(UserServiceServer, steward.clone()))
        .add_service(bounded!(ConnectionServiceServer, steward.clone()))
        .add_service(bounded!(AccessServiceServer, steward))
        .add_service(bounded!(WatchServiceServer, watch::Watcher(shared.clone())))
        .add_service(shared.context.health.server())
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

/// Reflection of what this listener serves; what backends implement is in the descriptors, but not in the list.
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
        .with_service_name("grpc.health.v1.Health")
}

/// Lets browsers of the listed origins call gRPC-Web; `None` lets none.
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

/// Who calls, as the gate has found out.
fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    // Fails closed: no method runs for nobody, whatever becomes of the layers.
    caller.ok_or_else(|| status::Refusal::Unauthenticated("the call carries no credential").into())
}
