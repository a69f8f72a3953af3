//! One connection's way through HTTP: request by request, until it ends or leaves for a shard.
//!
//! A session's connection is taken from HTTP when the head of its response has left, with what was read beyond the request.
//! Nothing of HTTP stays behind it: no task, no buffer.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::accept::turn_away;
use super::body::Body;
use super::exchange::{Exchange, Leaving, Watched};
use super::router;
use super::{ClientPort, HEAD_BYTES_MIN};
use crate::transport::shard::UpgradedClient;

/// Serves a connection until it ends, or a shard has it. With `stop`, the request under way is its last.
///
/// It has a place among those without a session until then.
pub(super) async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    exchange: Arc<Exchange>,
    port: &Arc<ClientPort>,
    stop: &CancellationToken,
) {
    let config = port.config();
    let service = {
        let (port, exchange) = (Arc::clone(port), Arc::clone(&exchange));
        service_fn(move |request| router::answer(Arc::clone(&port), peer, Arc::clone(&exchange), request))
    };
    let watched = Watched {
        stream,
        exchange: Arc::clone(&exchange),
    };
    let mut http = http1::Builder::new()
        .half_close(false)
        .max_buf_size(config.head_bytes_max.max(HEAD_BYTES_MIN))
        .max_headers(config.headers_max)
        .serve_connection(TokioIo::new(watched), service);
    let has_left = run(&mut http, &exchange, stop).await;
    if exchange.is_displaced() {
        port.turned_away();
        return turn_away(http.into_parts().io.into_inner().stream).await;
    }
    let Some(leaving) = exchange.take_leaving() else { return };
    if !has_left {
        tracing::debug!("connection lost during upgrade");
        return port.dismiss(leaving.place);
    }
    let parts = http.into_parts();
    hand_over(port, leaving, parts.io.into_inner().stream, &parts.read_buf).await;
}

/// Runs HTTP; returns whether the connection is to leave for a shard.
async fn run<S>(
    http: &mut http1::Connection<TokioIo<Watched>, S>,
    exchange: &Exchange,
    stop: &CancellationToken,
) -> bool
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let mut stopped = pin!(stop.cancelled());
    let mut is_stopping = false;
    let mut overdue = pin!(tokio::time::sleep_until(exchange.until()));
    poll_fn(|context| {
        if !is_stopping && stopped.as_mut().poll(context).is_ready() {
            is_stopping = true;
            Pin::new(&mut *http).graceful_shutdown();
        }
        let polled = Pin::new(&mut *http).poll(context);
        // Before anything else: HTTP counts a response as done whether or not the kernel has taken it.
        if exchange.has_left() {
            return Poll::Ready(true);
        }
        if exchange.poll_displaced(context) {
            return Poll::Ready(false);
        }
        if let Poll::Ready(ended) = polled {
            if let Err(error) = ended {
                tracing::debug!(%error, "request failed");
            }
            return Poll::Ready(false);
        }
        // Set anew only when it rings: most phases are over long before.
        loop {
            if overdue.as_mut().poll(context).is_pending() && overdue.deadline() <= exchange.until() {
                return Poll::Pending;
            }
            if overdue.deadline() == exchange.until() {
                tracing::debug!("request timed out");
                return Poll::Ready(false);
            }
            overdue.as_mut().reset(exchange.until());
        }
    })
    .await
}

/// Gives the connection to a shard, with what was read beyond the request.
async fn hand_over(port: &ClientPort, leaving: Leaving, stream: TcpStream, read: &[u8]) {
    let Leaving {
        protocol,
        token,
        place,
        mut opening,
        engine,
        upgraded,
    } = leaving;
    if !upgraded && !read.is_empty() {
        tracing::debug!("request pipelined behind a session");
        return port.dismiss(place);
    }
    if !upgraded {
        // Ends the last line, and is there when nothing else is: what comes after it is no opening.
        opening.push(b'\n');
    }
    opening.extend_from_slice(read);
    match stream.into_std() {
        Ok(stream) => {
            port.hand_over(UpgradedClient {
                stream,
                leftover: opening,
                protocol,
                token,
                place,
                engine,
            })
            .await;
        }
        Err(error) => {
            tracing::debug!(%error, "connection lost during upgrade");
            port.dismiss(place);
        }
    }
}
