//! The admin port: probes and metrics, for orchestrators and monitoring. Plain HTTP/1.1 without credentials, so it belongs
//! on a network of operators.
//!
//! It is served from the first phase of the start to the end of the drain, and by no thread that serves clients. Liveness
//! depends on nothing outside of the process: a node that restarts for NATS' sake would only add to the trouble.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::accept::accept;
use crate::metrics::Metrics;
use crate::readiness::{Readiness, Unready};

/// The most connections at once: some probes and scrapers, with room for a person.
const CONNECTIONS_MAX: usize = 64;

/// Time for the head of a request, from the connection or the answer before.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a whole connection, so that callers that read nothing leave their places.
const CONNECTION_MAX: Duration = Duration::from_secs(3600);

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The parts of a node that the port shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The reasons why the node is not ready.
    pub readiness: Readiness,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves the port until `stop`. Its connections are on `tasks`.
pub async fn serve(listener: TcpListener, shown: Shown, tasks: TaskTracker, stop: CancellationToken) {
    let (router, places) = (router(shown), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    while let Some((stream, _)) = stop.run_until_cancelled(accept(&listener, ACCEPT_PAUSE)).await {
        // One more than there may be is closed without an answer.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        tasks.spawn(async move {
            let connection = tokio::time::timeout(CONNECTION_MAX, connection(stream, router));
            stop.run_until_cancelled(connection).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection failed");
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(async || no_store("ok\n")))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn ready(State(shown): State<Shown>) -> Response {
    let reasons = shown.readiness.reasons();
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let reasons: Vec<_> = reasons.iter().map(Unready::name).collect();
    let body = json!({"ready": reasons.is_empty(), "reasons": reasons});
    (status, no_store(Json(body))).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], no_store(text)).into_response(),
        Err(error) => {
            tracing::warn!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn no_store(body: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}
