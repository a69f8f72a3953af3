//! Routes: a path of the client port with its methods, access and bounds.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, Uri};

use super::exchange::Exchange;
use super::token::{cookie, token};
use super::{ClientPort, admit};
use crate::admission::Place;
use crate::session::ProtocolId;
use crate::transport::protocol::Protocols;
use crate::transport::shard::Visit;
use crate::transport::socketio::{EngineEntry, Forwarding};

/// The deadline of a request unless its route sets another: from its complete head until its answer has left. Enough
/// for a body over a slow mobile network, and soon over for a client that is slow on purpose.
const DEADLINE: Duration = Duration::from_secs(10);

/// The pages that may use a route from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Every page may ask, and none but the gateway's own may read the answer.
    Public,
    /// Only pages of [`super::Origins`] may ask. For WebSockets, which browsers do not hold to CORS.
    Listed,
    /// Only pages of [`super::Origins`] may ask, and they may read the answer (CORS with credentials).
    Shared {
        /// The request headers that they may set beside the safelisted ones, in lower case.
        headers: &'static [&'static str],
    },
    /// As `Shared`, with any request headers: applications add some of their own.
    SharedAnyHeader,
}

impl Access {
    /// Reports whether a listed page may read the answer.
    pub(super) const fn is_shared(&self) -> bool {
        matches!(self, Self::Shared { .. } | Self::SharedAnyHeader)
    }
}

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync>;

/// One path of the client port.
#[derive(Clone)]
pub struct Route {
    pub(super) path: Box<str>,
    pub(super) methods: Vec<Method>,
    pub(super) access: Access,
    pub(super) body_bytes_max: usize,
    pub(super) deadline: Duration,
    pub(super) when_full: Option<Response<Bytes>>,
    pub(super) goes_on: fn(&Uri) -> bool,
    pub(super) handler: Handler,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("path", &self.path)
            .field("methods", &self.methods)
            .field("access", &self.access)
            .field("body_bytes_max", &self.body_bytes_max)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Route {
    /// Answers these methods at exactly this path. Public, and takes no body, until told otherwise.
    ///
    /// A `GET` is answered to `HEAD` as well only where `HEAD` is listed.
    pub fn new<F>(
        methods: impl IntoIterator<Item = Method>,
        path: impl Into<Box<str>>,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self {
            path: path.into(),
            methods: methods.into_iter().collect(),
            access: Access::Public,
            body_bytes_max: 0,
            deadline: DEADLINE,
            when_full: None,
            goes_on: |_| false,
            handler: Arc::new(move |call| Box::pin(handler(call))),
        }
    }

    /// Answers `GET` and `HEAD`.
    pub fn get<F>(path: impl Into<Box<str>>, handler: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self::new([Method::GET, Method::HEAD], path, handler)
    }

    /// Sets the pages that may use it.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Takes a body of at most so many bytes. It is read before the handler is called.
    #[must_use]
    pub fn body_bytes_max(self, body_bytes_max: usize) -> Self {
        Self { body_bytes_max, ..self }
    }

    /// Sets the deadline of a request, from its complete head until its answer has left.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Tells the requests that belong to a connection which is open: they are answered however many new ones there are.
    #[must_use]
    pub fn goes_on(self, goes_on: fn(&Uri) -> bool) -> Self {
        Self { goes_on, ..self }
    }

    /// Sets the answer when there are too many connections for one more session, for clients that would not come back from a
    /// 429 or a 503.
    #[must_use]
    pub fn when_full(self, response: Response<Bytes>) -> Self {
        Self {
            when_full: Some(response),
            ..self
        }
    }
}

/// A request for a route, complete with its body.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request<Bytes>,
    /// The protocol that has brought the route; the default one for the port's own routes.
    pub protocol: ProtocolId,
    pub(super) port: Arc<ClientPort>,
    pub(super) peer: IpAddr,
    pub(super) exchange: Arc<Exchange>,
}

impl Call {
    /// The token, from `Authorization`, the subprotocols or, where that is allowed, the query.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        let in_query = self.port.config().token_in_query;
        token(self.request.headers(), self.request.uri().query(), in_query)
    }

    /// The value of a cookie, where it can stand for its user: browsers send cookies along with the requests of every page, so
    /// only where pages are listed, and not with a request that a page of another site makes without saying so.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<String> {
        let origins = &self.port.config().origins;
        cookie(origins, self.request.headers(), name).map(str::to_owned)
    }

    /// The protocols of the gateway.
    #[must_use]
    pub fn protocols(&self) -> &Protocols {
        self.port.protocols()
    }

    /// The way to the connections of other nodes.
    pub(in crate::transport) fn forwarding(&self) -> &Forwarding {
        self.port.forwarding()
    }

    /// Takes a place among the connections of the client's address.
    ///
    /// # Errors
    /// The refusal.
    pub(in crate::transport) fn admit(&self) -> Result<Place, Box<Response<Bytes>>> {
        admit::admit(&self.port, self.peer, self.request.headers())
    }

    /// Gives a place back.
    pub(in crate::transport) fn dismiss(&self, place: Place) {
        self.port.dismiss(place);
    }

    /// Sends a visit to any shard, the next in turn.
    ///
    /// # Errors
    /// [`NoShard`] when the shard has ended.
    pub(in crate::transport) async fn visit_any(&self, visit: Visit) -> Result<(), NoShard> {
        self.port.next_door().send(visit).await.map_err(|_| NoShard)
    }

    /// Sends a visit to a shard.
    ///
    /// # Errors
    /// [`NoShard`] when there is no such shard, or it has ended.
    pub(in crate::transport) async fn visit(&self, shard: u16, visit: Visit) -> Result<(), NoShard> {
        let door = self.port.door(shard).ok_or(NoShard)?;
        door.send(visit).await.map_err(|_| NoShard)
    }

    /// Sends a visit to a shard, unless its queue is full.
    pub(in crate::transport) fn try_visit(&self, shard: u16, visit: Visit) {
        if let Some(door) = self.port.door(shard) {
            let _ = door.try_send(visit);
        }
    }

    /// Lets the request wait so long for something to tell, without a place among the connections that have no session.
    pub(in crate::transport) fn rest(&self, deadline: Duration) {
        self.exchange.rest(deadline);
    }
}

/// The shard of a request is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct NoShard;

/// The answer to a [`Call`].
#[derive(Debug)]
pub enum Answer {
    /// A complete response.
    Response(Response<Bytes>),
    /// A session, which writes what follows the head.
    Session(HandOver),
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        Self::Response(response)
    }
}

/// A connection on its way from HTTP to a shard.
///
/// HTTP writes the head. Behind a 101 the protocol writes whatever it likes; behind a 200 its frames are chunks of the body
/// ([`super::chunked`]), and its last one ends it.
#[derive(Debug)]
pub struct HandOver {
    /// The head of the response.
    pub head: Response<()>,
    /// The protocol from there on.
    pub protocol: ProtocolId,
    /// The token, if the request has one.
    pub token: Option<String>,
    /// The first bytes that its carrier gets: the request, as the protocol says it to the session.
    pub opening: Vec<u8>,
    /// Set for a client of Socket.IO, whose sessions come later.
    pub engine: Option<EngineEntry>,
}
