//! The client port: HTTP/1.1 up to the upgrade, then the connection goes to a shard.
//!
//! One request per connection: what is not an upgrade gets a short answer and the connection ends. So one deadline over
//! the whole exchange is enough against every kind of slow client.

mod accept;
mod address;
mod page;
mod upgrade;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

pub use accept::{ClientPort, HEAD_BYTES_MIN, serve};
pub use address::{ForwardedHeader, Network, NetworkError};

/// Who may open connections from a browser.
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
    /// Who may connect from a browser.
    pub origins: Origins,
    /// Whether `?token=` is accepted. Off by default: addresses end up in logs.
    pub token_in_query: bool,
    /// How long a client may take to send its request, from the first byte on as well as before it.
    pub head_timeout: Duration,
    /// The largest request head, in bytes.
    pub head_bytes_max: usize,
    /// The most header fields.
    pub headers_max: usize,
    /// New connections per second, and at once.
    pub connect_rate: crate::rate::Rate,
    /// Connections that have not upgraded yet.
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

type Body = Full<Bytes>;

/// Answers one request. An upgrade leaves its details in `upgrade`.
async fn answer(
    port: Arc<ClientPort>,
    peer: IpAddr,
    upgrade: Arc<upgrade::Slot>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut response = match (request.method(), request.uri().path()) {
        _ if !crate::headers::names_one_host(request.version(), request.headers()) => {
            text(StatusCode::BAD_REQUEST, "not one readable Host")
        }
        (&Method::GET, "/v1/ws") => upgrade::answer(&port, peer, &upgrade, request),
        (_, "/v1/ws") => allow_get(),
        (&Method::GET | &Method::HEAD, "/") if port.config().page.is_some() => {
            page::answer(port.config().page.unwrap_or_default())
        }
        _ => text(StatusCode::NOT_FOUND, "not found"),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn allow_get() -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET");
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// An answer that tells when to try again: a little later for some than for others, so that they do not all come back at
/// once.
fn later(status: StatusCode, body: &'static str) -> Response<Body> {
    let seconds = rand::random_range(1u16..=10);
    let mut response = text(status, body);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
