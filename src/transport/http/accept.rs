//! The client port and its accept loop.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exchange::{Exchange, Standing};
use super::router::Router;
use super::{Config, connection};
use crate::accept::accept;
use crate::admission::{Admission, Place, Refused};
use crate::rate::{Notice, TokenBucket};
use crate::session::ProtocolId;
use crate::sync::lock;
use crate::transport::protocol::Protocols;
use crate::transport::shard::{UpgradedClient, Visit};
use crate::transport::socketio::Forwarding;
use crate::units::millis;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The smallest bound of a request head, in bytes: the smallest buffer that hyper takes.
pub const HEAD_BYTES_MIN: usize = 8192;

/// The part of the places for connections without a session that there is once more, for those that are read only to be told that there
/// is none: a poll of a connection that is open is answered, and every other request is refused in the words of its route.
const LATE_SHARE: usize = 4;

/// The client port and the shards behind it.
#[derive(Debug)]
pub struct ClientPort {
    config: Config,
    admission: Arc<Admission>,
    protocols: Protocols,
    router: Router,
    shards: Vec<mpsc::Sender<Visit>>,
    next_shard: AtomicUsize,
    handshakes: Arc<Semaphore>,
    /// Places for connections beyond those, each for one request.
    late: Arc<Semaphore>,
    unheard: Mutex<Unheard>,
    started: Instant,
    connects: Mutex<TokenBucket>,
    forwarding: Forwarding,
    pub(super) notices: Notices,
}

/// A misconfiguration that operators should know of: clients are counted together or refused by it.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// A trusted proxy has not named its client.
    pub(super) proxy_silent: Notice,
    /// A trusted proxy has named its client in a way that cannot be read.
    pub(super) proxy_unreadable: Notice,
    /// An address has as many connections as it may have.
    pub(super) address_full: Notice,
}

/// The connections whose first request may not be there yet, the oldest first.
#[derive(Debug, Default)]
struct Unheard(VecDeque<Weak<Exchange>>);

impl Unheard {
    /// Forgets those whose first request is there.
    fn tidy(&mut self, places: usize) {
        let is_unheard = |exchange: &Weak<Exchange>| exchange.upgrade().is_some_and(|exchange| !exchange.is_heard());
        while self.0.front().is_some_and(|front| !is_unheard(front)) {
            self.0.pop_front();
        }
        // Behind one that takes its time there are all that came since.
        if self.0.len() > 4 * places {
            self.0.retain(is_unheard);
        }
    }

    /// Takes the place of the oldest.
    fn displace(&mut self) -> Option<(OwnedSemaphorePermit, Standing)> {
        loop {
            let oldest = self.0.pop_front()?;
            if let Some(place) = oldest.upgrade().and_then(|exchange| exchange.displace()) {
                return Some(place);
            }
        }
    }
}

impl ClientPort {
    /// A port that hands its clients to these shards in turn.
    ///
    /// # Panics
    /// When two routes, of the port or of its protocols, have one path.
    #[must_use]
    pub fn new(
        config: Config,
        admission: Arc<Admission>,
        protocols: Protocols,
        shards: Vec<mpsc::Sender<Visit>>,
        forwarding: Forwarding,
    ) -> Self {
        let handshakes = Arc::new(Semaphore::new(config.handshakes_max));
        let late = Arc::new(Semaphore::new(config.handshakes_max.div_ceil(LATE_SHARE)));
        let router = Router::new(&config, &protocols);
        Self {
            config,
            admission,
            router,
            protocols,
            shards,
            next_shard: AtomicUsize::new(0),
            handshakes,
            late,
            unheard: Mutex::default(),
            started: Instant::now(),
            connects: Mutex::new(TokenBucket::new(0)),
            forwarding,
            notices: Notices::default(),
        }
    }

    /// The protocols of its clients.
    #[must_use]
    pub const fn protocols(&self) -> &Protocols {
        &self.protocols
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// Waits until no client waits here for the node of its connection. To be called once the port accepts no more of them.
    pub async fn drained(&self) {
        self.forwarding.drained().await;
    }

    /// The way to the connections of other nodes.
    pub(in crate::transport) const fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    pub(super) const fn router(&self) -> &Router {
        &self.router
    }

    /// Reports whether at least half of the places for connections without a session are free.
    pub(super) fn has_many_places(&self) -> bool {
        self.handshakes.available_permits() >= self.config.handshakes_max.div_ceil(2)
    }

    /// Counts a new connection; returns whether it is within the rate.
    pub(super) fn counts_new(&self) -> bool {
        let now_ms = millis(self.started.elapsed());
        lock(&self.connects).take(self.config.connect_rate, now_ms).is_ok()
    }

    /// Records that a connection was refused for there being too many new ones.
    pub(super) fn turned_away(&self) {
        self.admission.turned_away();
    }

    /// Gives a new connection a place, if need be that of the oldest one whose first request is not there yet: clients send theirs
    /// at once, so a crowd that says nothing keeps nobody out.
    fn arrive(&self) -> Option<Arc<Exchange>> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let mut unheard = lock(&self.unheard);
        unheard.tidy(self.config.handshakes_max);
        let place = take(&self.handshakes).map(|place| (place, Standing::Uncounted));
        let place = place.or_else(|| unheard.displace());
        let (place, standing) = place.or_else(|| Some((take(&self.late)?, Standing::Late)))?;
        let timeouts = (self.config.head_timeout, self.config.idle_timeout);
        let exchange = Arc::new(Exchange::new(timeouts, place, standing));
        unheard.0.push_back(Arc::downgrade(&exchange));
        Some(exchange)
    }

    pub(super) fn admit(&self, address: IpAddr) -> Result<Place, Refused> {
        self.admission.enter(address)
    }

    pub(super) fn dismiss(&self, place: Place) {
        self.admission.leave(place);
    }

    /// Takes a connection that is no WebSocket: a byte stream of a client at this address, that speaks this protocol from its
    /// first byte on.
    ///
    /// # Errors
    /// [`Refused`] when there are too many connections; the stream is dropped then.
    pub async fn adopt(
        &self,
        stream: std::net::TcpStream,
        address: IpAddr,
        protocol: ProtocolId,
    ) -> Result<(), Refused> {
        let place = self.admit(address)?;
        self.hand_over(UpgradedClient {
            stream,
            leftover: Vec::new(),
            protocol,
            token: None,
            place,
            engine: None,
        })
        .await;
        Ok(())
    }

    /// The way to the next shard in turn.
    pub(super) fn next_door(&self) -> &mpsc::Sender<Visit> {
        let index = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        &self.shards[index]
    }

    /// The way to a shard.
    pub(in crate::transport) fn door(&self, shard: u16) -> Option<&mpsc::Sender<Visit>> {
        self.shards.get(usize::from(shard))
    }

    /// The places for connections without a session.
    pub(super) const fn handshakes(&self) -> &Arc<Semaphore> {
        &self.handshakes
    }

    pub(super) async fn hand_over(&self, client: UpgradedClient) {
        let place = client.place;
        let upgraded = client.engine.as_ref().and_then(|entry| entry.upgrades);
        let door = upgraded
            .and_then(|sid| self.door(sid.shard))
            .unwrap_or_else(|| self.next_door());
        if door.send(Visit::Client(client)).await.is_err() {
            // The shard has ended: the node is shutting down.
            self.dismiss(place);
        }
    }
}

/// Serves the client port until `stop`. Connections under way are on `tasks`.
pub async fn serve(listener: TcpListener, port: Arc<ClientPort>, tasks: TaskTracker, stop: CancellationToken) {
    while let Some((stream, peer)) = stop.run_until_cancelled(accept(&listener, ACCEPT_PAUSE)).await {
        let Some(exchange) = port.arrive() else {
            port.admission.turned_away();
            tasks.spawn(turn_away(stream));
            continue;
        };
        let (port, stop) = (Arc::clone(&port), stop.clone());
        tasks.spawn(async move {
            connection::serve(stream, peer.ip(), exchange, &port, &stop).await;
        });
    }
}

/// Tells a client to come back later, without reading what it wants.
pub(super) async fn turn_away(mut stream: TcpStream) {
    use tokio::io::AsyncWriteExt as _;
    let seconds = super::retry_after_seconds();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: {seconds}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    // Best effort: a client that is gone needs no answer.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer.as_bytes())).await;
}
