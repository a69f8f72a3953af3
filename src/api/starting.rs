//! The gRPC port of a node that does not serve yet: health reports it, and every other call is unavailable.

use axum::response::IntoResponse as _;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::{Service as _, service_fn};

use super::config::Config;
use super::health;
use super::listener::{self, tls::Acceptor};
use super::status::Refusal;
use crate::readiness::Readiness;

const STARTING: Refusal = Refusal::NotStored("the node is starting");

/// Serves until `started`.
pub(crate) async fn serve(listener: TcpListener, config: Config, readiness: Readiness, started: CancellationToken) {
    // Unusable certificates are reported by the port that follows.
    let Ok(tls) = config.tls.as_ref().map(Acceptor::new).transpose() else {
        return;
    };
    let probes = tonic::service::Routes::new(health::server(&readiness));
    let service = service_fn(move |request: Request<Body>| {
        let mut probes = probes.clone();
        async move {
            if request.uri().path().starts_with("/grpc.health.v1.Health/") {
                probes.call(request).await
            } else {
                Ok(refuse(&request))
            }
        }
    });
    listener::serve(listener, tls, &config, service, started).await;
}

fn refuse(request: &Request<Body>) -> Response<Body> {
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        Status::from(STARTING).into_http()
    } else {
        STARTING.into_response().map(Body::new)
    }
}
