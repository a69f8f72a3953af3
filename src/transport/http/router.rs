//! The table of routes, and the checks that precede every handler.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use super::body::Body;
use super::exchange::{Exchange, Leaving};
use super::route::{Answer, Call, HandOver, Route};
use super::{ClientPort, Config, admit, cors, later, page, text, upgrade};
use crate::session::ProtocolId;
use crate::transport::protocol::Protocols;

/// The most requests of one connection. Far more than a page needs; a client that has made them comes back through the
/// rate of new connections, which nothing else would hold it to.
const REQUESTS_MAX: u32 = 1000;

/// The routes of the port and of its protocols. A handful: they are looked through.
#[derive(Debug)]
pub(super) struct Router(Vec<(Route, ProtocolId)>);

impl Router {
    /// The routes of a port that speaks these protocols.
    ///
    /// # Panics
    /// When two routes have one path.
    pub(super) fn new(config: &Config, protocols: &Protocols) -> Self {
        let own = [Some(upgrade::route()), config.page.map(page::route)];
        let own = own.into_iter().flatten().map(|route| (route, ProtocolId::DEFAULT));
        let routes: Vec<_> = own.chain(protocols.routes()).collect();
        for (index, (route, _)) in routes.iter().enumerate() {
            let is_new = routes[..index].iter().all(|(other, _)| other.path != route.path);
            assert!(is_new, "each path has one route, `{}` has two", route.path);
        }
        Self(routes)
    }

    fn find(&self, path: &str) -> Option<&(Route, ProtocolId)> {
        self.0.iter().find(|(route, _)| *route.path == *path)
    }
}

/// Answers one request. A connection that is to leave for a shard is told to `exchange`.
pub(super) async fn answer(
    port: Arc<ClientPort>,
    peer: IpAddr,
    exchange: Arc<Exchange>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let count = exchange.begin(port.config().head_timeout).await;
    let mut response = routed(&port, peer, &exchange, request).await;
    let status = response.status();
    // After a refusal the client comes back through the rate of new connections. And connections that rest leave at least
    // half of the places to those that come.
    let has_place = exchange.take_place(port.handshakes());
    let is_answered = status.is_success() || status == StatusCode::NOT_MODIFIED;
    let may_stay = has_place && is_answered && count < REQUESTS_MAX && port.has_many_places();
    if status != StatusCode::SWITCHING_PROTOCOLS && (!may_stay || matches!(response.body(), Body::HandedOver)) {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.answered();
    Ok(response)
}

async fn routed(
    port: &Arc<ClientPort>,
    peer: IpAddr,
    exchange: &Arc<Exchange>,
    request: Request<Incoming>,
) -> Response<Body> {
    if !crate::headers::names_one_host(request.version(), request.headers()) {
        return refusal(StatusCode::BAD_REQUEST, "not one readable Host");
    }
    let found = port.router().find(request.uri().path());
    let goes_on = found.is_some_and(|(route, _)| {
        // A browser asks before it polls, and says then what it will ask for.
        let is_preflight = request.method() == Method::OPTIONS && route.access.is_shared();
        is_preflight || (route.goes_on)(request.uri())
    });
    if !goes_on && !exchange.count(|| port.counts_new()) {
        port.turned_away();
        return too_many(port, found.map(|(route, _)| route), &request);
    }
    let Some((route, protocol)) = found else {
        return refusal(StatusCode::NOT_FOUND, "not found");
    };
    let origins = &port.config().origins;
    if request.method() == Method::OPTIONS
        && let Some(response) = cors::options(route, origins, request.headers())
    {
        return response.map(Body::Whole);
    }
    if !route.methods.contains(request.method()) {
        return not_allowed(route);
    }
    // Before anything else that a page could learn from.
    if let Some(refusal) = cors::refusal(route, origins, request.headers()) {
        return refusal.map(Body::Whole);
    }
    exchange.extend(route.deadline);
    let asked = request.headers().clone();
    let mut response = match handled(port, (route, *protocol), (peer, exchange), request).await {
        (Answer::Response(response), _) => response.map(Body::Whole),
        (Answer::Session(session), request) => opened(port, peer, exchange, (route, &request), session),
    };
    cors::share(route, &asked, response.headers_mut());
    response
}

/// Refuses a request for there being too many new connections, in a way that its client understands and may read.
fn too_many<B>(port: &ClientPort, route: Option<&Route>, request: &Request<B>) -> Response<Body> {
    let busy = || later(StatusCode::SERVICE_UNAVAILABLE, "too many new connections");
    let Some(route) = route else {
        return busy().map(Body::Whole);
    };
    let headers = request.headers();
    if let Some(refusal) = cors::refusal(route, &port.config().origins, headers) {
        return refusal.map(Body::Whole);
    }
    let when_full = route.when_full.clone().filter(|_| *request.method() == Method::GET);
    let mut response = when_full.unwrap_or_else(busy);
    cors::share(route, headers, response.headers_mut());
    response.map(Body::Whole)
}

/// Calls the handler, with the body.
async fn handled(
    port: &Arc<ClientPort>,
    (route, protocol): (&Route, ProtocolId),
    (peer, exchange): (IpAddr, &Arc<Exchange>),
    request: Request<Incoming>,
) -> (Answer, Request<()>) {
    let (parts, body) = request.into_parts();
    let head = Request::from_parts(parts.clone(), ());
    if parts.headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return (
            text(StatusCode::BAD_REQUEST, "more than one Authorization").into(),
            head,
        );
    }
    let body = match received(body, route.body_bytes_max).await {
        Ok(body) => body,
        Err(refusal) => return (refusal.into(), head),
    };
    exchange.heard();
    let call = Call {
        request: Request::from_parts(parts, body),
        protocol,
        port: Arc::clone(port),
        peer,
        exchange: Arc::clone(exchange),
    };
    ((route.handler)(call).await, head)
}

/// The whole body. How long it may take is the exchange's matter.
async fn received(body: Incoming, bytes_max: usize) -> Result<Bytes, Response<Bytes>> {
    let too_large = || text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    // A body that nobody reads is how requests are smuggled past a proxy (RFC 9110 section 9.3.1).
    if bytes_max == 0 {
        return Err(text(StatusCode::BAD_REQUEST, "no body is taken here"));
    }
    // Announced as too large, it is not waited for.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(text(StatusCode::BAD_REQUEST, "the body cannot be read")),
    }
}

/// Lets the connection leave for a shard. `HEAD` is told what `GET` would be, and opens nothing.
fn opened(
    port: &ClientPort,
    peer: IpAddr,
    exchange: &Exchange,
    (route, request): (&Route, &Request<()>),
    session: HandOver,
) -> Response<Body> {
    let HandOver {
        head,
        protocol,
        token,
        opening,
        engine,
    } = session;
    let upgraded = head.status() == StatusCode::SWITCHING_PROTOCOLS;
    if request.version() != Version::HTTP_11 {
        return refusal(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here");
    }
    if request.method() == Method::HEAD {
        return head.map(|()| Body::Whole(Bytes::new()));
    }
    let place = match admit::admit(port, peer, request.headers()) {
        Ok(place) => place,
        // A request that is wrong stays refused as such.
        Err(refusal) if refusal.status() == StatusCode::BAD_REQUEST => return refusal.map(Body::Whole),
        Err(refusal) => return route.when_full.clone().unwrap_or(*refusal).map(Body::Whole),
    };
    exchange.leave(Leaving {
        protocol,
        token,
        place,
        opening,
        engine,
        upgraded,
    });
    head.map(|()| {
        if upgraded {
            Body::Whole(Bytes::new())
        } else {
            Body::HandedOver
        }
    })
}

fn not_allowed(route: &Route) -> Response<Body> {
    let allowed = cors::methods(route);
    let names = allowed.to_str().expect("names of methods are visible ASCII");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {names}"));
    response.headers_mut().insert(header::ALLOW, allowed);
    response.map(Body::Whole)
}

fn refusal(status: StatusCode, why: &'static str) -> Response<Body> {
    text(status, why).map(Body::Whole)
}
