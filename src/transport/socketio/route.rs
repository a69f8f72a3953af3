//! The path of Socket.IO on the client port: handshakes, polls, and upgrades to a WebSocket (Engine.IO protocol, "URLs" and
//! "HTTP long-polling"). Errors are those of the reference server, with its codes.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tokio::sync::oneshot;

use super::connection::{Reply, ReplyTo};
use super::query::{EngineError, Query, Wanted};
use super::sid::Sid;
use super::{Config, TokenSource};
use crate::admission::Place;
use crate::transport::http::{Access, Answer, Call, HandOver, Route, accept_websocket};
use crate::transport::shard::Visit;

/// The time of a poll beyond the longest that the gateway lets it wait: until the answer has left.
const POLL_MARGIN: Duration = Duration::from_secs(10);

/// A client that arrives with a WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct EngineEntry {
    /// The connection that is to be upgraded; `None` for a new one.
    pub upgrades: Option<Sid>,
    /// The hash of its `Authorization`.
    pub credential: Option<u64>,
}

/// A request of polling, to the shard that has the connection.
#[derive(Debug)]
pub enum Request {
    /// Opens a connection; answered with its first packet.
    Open {
        /// Its place among the connections of its address.
        place: Place,
        /// The token, if it came with the handshake.
        token: Option<String>,
        /// The hash of its `Authorization`.
        credential: Option<u64>,
        /// The request's end.
        reply: ReplyTo,
    },
    /// Waits for packets.
    Poll {
        /// The connection.
        sid: Sid,
        /// The hash of its `Authorization`.
        credential: Option<u64>,
        /// The request's end.
        reply: ReplyTo,
    },
    /// Brings packets.
    Post {
        /// The connection.
        sid: Sid,
        /// The hash of its `Authorization`.
        credential: Option<u64>,
        /// The packets.
        body: Bytes,
        /// The request's end.
        reply: ReplyTo,
    },
    /// The client has given up a poll.
    Abort {
        /// The connection.
        sid: Sid,
    },
    /// The node that a poll has come through ends: the poll is answered with nothing.
    Release {
        /// The connection.
        sid: Sid,
    },
}

/// The route of all namespaces.
pub(super) fn route(config: &Arc<Config>) -> Route {
    let (shared, path) = (Arc::clone(config), config.path.clone());
    // Methods beyond the two are answered here, as the reference does: never with a server's error.
    let methods = [
        Method::GET,
        Method::POST,
        Method::HEAD,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    Route::new(methods, path, move |call| serve(call, Arc::clone(&shared)))
        .goes_on(|uri| Query::of(uri.query().unwrap_or_default()).names_connection())
        .access(Access::SharedAnyHeader)
        // More than is announced: engine.io-client counts 1.33 for base64's 4/3, and less than there is for each small packet.
        .body_bytes_max(config.payload_bytes_max + config.payload_bytes_max / 32)
}

async fn serve(call: Call, config: Arc<Config>) -> Answer {
    let query = Query::of(call.request.uri().query().unwrap_or_default());
    let answer = match query.check(call.request.method()) {
        Ok(Wanted::Open) => open(call, &config).await,
        Ok(Wanted::Poll(sid)) => poll(call, sid, &config).await,
        Ok(Wanted::Post(sid)) => post(call, sid).await,
        Ok(Wanted::WebSocket(sid)) => return websocket(&call, sid, &config),
        Err(error) => error.response(),
    };
    answer.into()
}

/// Hashes the credential of a request, so that a connection holds 8 bytes of it. All nodes hash alike, and nobody finds a credential
/// by its hash.
fn credential(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::AUTHORIZATION)?;
    let digest = digest(&SHA256, value.as_bytes());
    digest.as_ref().first_chunk().copied().map(u64::from_be_bytes)
}

/// The token of the handshake, where it may be there.
fn handshake_token(call: &Call, config: &Config) -> Option<String> {
    config
        .token_sources
        .contains(&TokenSource::Handshake)
        .then(|| call.token())?
}

async fn open(call: Call, config: &Config) -> Response<Bytes> {
    let place = match call.admit() {
        Ok(place) => place,
        Err(refusal) => return *refusal,
    };
    let (reply, replied) = oneshot::channel();
    let request = Request::Open {
        place,
        token: handshake_token(&call, config),
        credential: credential(call.request.headers()),
        reply,
    };
    if call.visit_any(Visit::Poll(request)).await.is_err() {
        call.dismiss(place);
    }
    packets(replied.await.unwrap_or(Reply::Gone))
}

async fn poll(call: Call, sid: Sid, config: &Config) -> Response<Bytes> {
    let credential = credential(call.request.headers());
    // The connection has a place of its own, so its polls take none of those for connections without a session.
    call.rest(config.ping_interval + config.ping_timeout + POLL_MARGIN);
    let forwarding = call.forwarding().clone();
    let reply = if forwarding.is_here(sid) {
        let (reply, replied) = oneshot::channel();
        let request = Request::Poll { sid, credential, reply };
        if call.visit(sid.shard, Visit::Poll(request)).await.is_err() {
            return EngineError::UnknownSid.response();
        }
        let abort = Abort::of(call, sid);
        let reply = replied.await.unwrap_or(Reply::Gone);
        abort.disarm();
        reply
    } else {
        let abort = Abort::of(call, sid);
        let reply = forwarding.poll(sid, credential).await;
        abort.disarm();
        reply
    };
    packets(reply)
}

/// Ends the connection when its poll is dropped unanswered: its client has gone.
struct Abort {
    call: Option<Call>,
    sid: Sid,
}

impl Abort {
    const fn of(call: Call, sid: Sid) -> Self {
        Self { call: Some(call), sid }
    }

    /// The poll has its answer.
    fn disarm(mut self) {
        self.call = None;
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        let sid = self.sid;
        if !call.forwarding().is_here(sid) {
            return call.forwarding().abort(sid);
        }
        // Where the shard has no place for it, it notices when it answers the poll.
        call.try_visit(sid.shard, Visit::Poll(Request::Abort { sid }));
    }
}

async fn post(call: Call, sid: Sid) -> Response<Bytes> {
    let headers = call.request.headers();
    let kind = headers.get(header::CONTENT_TYPE);
    let body = if kind.is_some_and(|kind| kind == "application/octet-stream") {
        // Binary packets are base64 in this version: such a body has none that can be read, as an empty one.
        Bytes::new()
    } else {
        call.request.body().clone()
    };
    let (credential, forwarding) = (credential(headers), call.forwarding());
    let reply = if forwarding.is_here(sid) {
        let (reply, replied) = oneshot::channel();
        let request = Request::Post {
            sid,
            credential,
            body,
            reply,
        };
        if call.visit(sid.shard, Visit::Poll(request)).await.is_err() {
            return EngineError::UnknownSid.response();
        }
        replied.await.unwrap_or(Reply::Gone)
    } else {
        forwarding.post(sid, credential, body).await
    };
    match reply {
        Reply::Body(body) => respond(StatusCode::OK, "text/html", body),
        other => packets(other),
    }
}

fn packets(reply: Reply) -> Response<Bytes> {
    match reply {
        Reply::Body(body) => respond(StatusCode::OK, "text/plain; charset=UTF-8", body),
        Reply::Unknown => EngineError::UnknownSid.response(),
        Reply::BadRequest => EngineError::BadRequest.response(),
        // Clients come back by themselves after it, which they do not all do after a close packet.
        Reply::Gone => respond(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain; charset=UTF-8",
            Bytes::new(),
        ),
    }
}

fn websocket(call: &Call, sid: Option<Sid>, config: &Config) -> Answer {
    // A connection is upgraded on its own node only: after a refusal, clients go on by polling.
    if sid.is_some_and(|sid| !call.forwarding().is_here(sid)) {
        return EngineError::UnknownSid.response().into();
    }
    match accept_websocket(&call.request) {
        Ok(head) => Answer::Session(HandOver {
            head,
            protocol: call.protocol,
            token: sid.is_none().then(|| handshake_token(call, config)).flatten(),
            opening: Vec::new(),
            engine: Some(EngineEntry {
                upgrades: sid,
                credential: credential(call.request.headers()),
            }),
        }),
        Err(_) => EngineError::BadRequest.response().into(),
    }
}

pub(super) fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
