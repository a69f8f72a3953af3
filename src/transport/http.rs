//! The client port: a router over HTTP/1.1 with keep-alive, from which a connection may leave for a shard.
//!
//! A [`Route`] says which methods it answers, which pages may use it, how large a body it takes and for how long; the port
//! holds every request to that before it calls the handler. Routes are the port's own and those of its protocols
//! ([`super::protocol::Protocol::routes`]).
//!
//! **Hand-over.** A handler answers with a response, or with a session: HTTP writes the head, of a 101 or of a 200, then the
//! socket goes to a shard, and what follows is the session's frames. A body that a shard writes is chunked by the protocol's
//! encoder ([`chunked`]), once for all who get it, into the socket or its outbox. So an event stream costs what a WebSocket
//! costs: no task, no channel, the same bounds. The price is that keep-alive ends there. A body that HTTP went on
//! writing would need a task, HTTP's buffers and a channel for each connection, and a second bound for slow consumers.
//!
//! **Why hyper alone.** Its `Connection` can be taken apart between head and body, with the bytes it has read; `axum::serve` owns it and
//! gives a connection away only by a 101. What is left for a framework are a handful of exact paths, which need no tree,
//! and a CORS layer that would answer every `OPTIONS` and refuse no request.
//!
//! **Bounds.** Each phase of a connection has an end (`exchange`); it may make 1,000 requests, and only the next after
//! success; it counts among `handshakes_max` until it leaves for a shard, and rests between requests only while half of
//! those are free. Who has not said what it wants makes room for who comes. A newcomer beyond the bounds is refused once its
//! request is read, in the words of its route: a request may go on with a connection that is open, which is not refused
//! ([`Route::goes_on`]), and an event stream is refused within a 200. Pipelined requests are answered in order, each when the answer before has left. What follows an upgrade
//! is the session's; behind any other session it is refused.

mod accept;
mod address;
mod admit;
mod body;
pub mod chunked;
mod connection;
mod cors;
mod exchange;
mod page;
mod route;
mod router;
mod token;
mod upgrade;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

pub use accept::{ClientPort, HEAD_BYTES_MIN, serve};
pub use address::{ForwardedHeader, Network, NetworkError};
pub use route::{Access, Answer, Call, HandOver, Route};
pub(super) use upgrade::accept as accept_websocket;

/// The origins that may open connections from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Pages of any origin. For development only: a page anywhere could use a visitor's cookies.
    Any,
    /// Pages of exactly these origins, as `scheme://host[:port]`. Clients that send no `Origin` are no browsers and are
    /// let through.
    Listed(Vec<String>),
}

/// The bounds of the client port.
#[derive(Debug, Clone)]
pub struct Config {
    /// The origins that may connect from a browser.
    pub origins: Origins,
    /// Accepts `?token=`. Off by default: addresses end up in logs.
    pub token_in_query: bool,
    /// The deadline for the head of a request: of the first one from the connection on, of others from their first byte on.
    pub head_timeout: Duration,
    /// The longest rest between two requests.
    pub idle_timeout: Duration,
    /// The largest request head, in bytes.
    pub head_bytes_max: usize,
    /// The most header fields.
    pub headers_max: usize,
    /// New connections per second, and at once.
    pub connect_rate: crate::rate::Rate,
    /// Connections that have no session: before it, and between requests that open none.
    pub handshakes_max: usize,
    /// Proxies that are believed when they name the client.
    pub trusted_proxies: Vec<Network>,
    /// The header in which they name it.
    pub forwarded_header: ForwardedHeader,
    /// The page served at `/`, if any.
    pub page: Option<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origins: Origins::Listed(Vec::new()),
            token_in_query: false,
            head_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(10),
            head_bytes_max: 16 * 1024,
            headers_max: 64,
            connect_rate: crate::rate::Rate {
                per_second: 500,
                burst: 2000,
            },
            handshakes_max: 1000,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            page: None,
        }
    }
}

/// A short text, as every refusal is.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The time after which a client may try again, in seconds: longer for some than for others, so that they do not all come back
/// at once.
fn retry_after_seconds() -> u16 {
    rand::random_range(1..=10)
}

/// An answer that tells when to try again.
fn later(status: StatusCode, body: &'static str) -> Response<Bytes> {
    let mut response = text(status, body);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds()));
    response
}

#[cfg(test)]
mod testing {
    use http::HeaderMap;

    /// Builds header fields, one line each.
    pub(super) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| (name.parse().unwrap(), value.parse().unwrap());
        pairs.iter().map(field).collect()
    }
}
