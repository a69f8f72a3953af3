//! Accepted connections on their way to HTTP/2: bounded in number, and closed when they stay silent or their TLS handshake
//! takes too long.
//!
//! They are not served by tonic's own server, which puts a deadline of its own around every call. Two timers for the same
//! moment would race for the caller's status.

mod connection;
mod guarded;
mod places;
pub(super) mod tls;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use self::guarded::{Guarded, Socket};
use self::places::{Place, Places};
use self::tls::Acceptor;
use super::config::Config;
use crate::accept::accept;

pub(super) use self::connection::Connection;

/// Pause after a failed accept.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// State shared by the connections of a listener.
struct Port<S> {
    http: auto::Builder<TokioExecutor>,
    tls: Option<Acceptor>,
    places: Arc<Places>,
    first_bytes_timeout: Duration,
    unread_bytes_max: usize,
    draining: CancellationToken,
    service: S,
}

/// Serves the connections of a listener until `draining`, then until all calls have ended, at most [`Config::drain_max`].
pub(super) async fn serve<S>(
    listener: TcpListener,
    tls: Option<Acceptor>,
    config: &Config,
    service: S,
    draining: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let port = Arc::new(Port {
        http: http(config),
        tls,
        places: Places::new(config),
        first_bytes_timeout: config.first_bytes_timeout,
        unread_bytes_max: config.unread_bytes_per_connection_max,
        draining: draining.clone(),
        service,
    });
    let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
    // No connection outlives this future, even when it is dropped.
    let _end = end.clone().drop_guard();
    while let Some((stream, address)) = draining.run_until_cancelled(accept(&listener, ACCEPT_REST)).await {
        let place = match port.places.begin(address.ip()) {
            Ok(place) => place,
            // The close is reply enough: before the first bytes the protocol is not known.
            Err(full) => {
                port.places.note(full);
                continue;
            }
        };
        let (port, end) = (Arc::clone(&port), end.clone());
        tasks.spawn(async move { end.run_until_cancelled(port.connection(stream, place)).await });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(config.drain_max, tasks.wait()).await.is_err() {
        tracing::debug!("drain timed out, remaining calls cut off");
    }
}

fn http(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.streams_max)
        .keep_alive_interval(Some(config.keepalive_interval))
        .keep_alive_timeout(config.keepalive_timeout)
        .max_header_list_size(config.header_bytes_max);
    // hyper's limit of 30 s for a request head needs a timer.
    builder.http1().timer(TokioTimer::new());
    builder
}

impl<S> Port<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    async fn connection(&self, stream: TcpStream, place: Place) {
        // A call is small: waiting to fill a packet costs more than it saves.
        let _ = stream.set_nodelay(true);
        // A peer that fails here is no caller yet, so there is no reply.
        let Some(socket) = self.shake_hands(stream).await else {
            return;
        };
        let connection = Arc::new(Connection::new(place, socket.certificates(), self.unread_bytes_max));
        let guarded = Guarded::new(
            socket,
            Arc::clone(&connection),
            Arc::clone(&self.places),
            self.first_bytes_timeout,
        );
        let (own, service) = (Arc::clone(&connection), self.service.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&own));
            service.clone().oneshot(request.map(Body::new))
        });
        let mut served = pin!(self.http.serve_connection(TokioIo::new(guarded), service));
        let mut is_draining = false;
        loop {
            tokio::select! {
                ended = &mut served => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection failed");
                    }
                    return;
                }
                () = connection.ended() => return,
                () = self.draining.cancelled(), if !is_draining => {
                    is_draining = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> Option<Socket> {
        match &self.tls {
            None => Some(Socket::Plain(stream)),
            Some(tls) => {
                let accepted = tokio::time::timeout(self.first_bytes_timeout, tls.accept(stream)).await;
                Some(Socket::Tls(Box::new(accepted.ok()?.ok()?)))
            }
        }
    }
}
