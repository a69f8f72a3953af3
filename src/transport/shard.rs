//! A shard: one thread with the connections it serves.
//!
//! The shard owns a private epoll set, held in an `AsyncFd` (an epoll descriptor can itself be polled), so that timers and
//! channels stay ordinary tokio while a connection costs the runtime nothing. Bytes are read into one buffer of the
//! shard and parsed there; frames are written straight to the socket when nothing is queued for it.

mod engine;
mod read;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::read::Received;
use super::carrier::{Carrier, Limits};
use super::lingering::Lingering;
use super::link::ClientLink;
use super::outbox;
use super::protocol::Protocols;
use super::socket::{Socket, SocketId, SocketShared};
use super::socketio::{self, EngineConnections, EngineEntry};
use crate::admission::{Admission, Place};
use crate::error::CloseReason;
use crate::session::ProtocolId;
use crate::session::link::Link;
use crate::shard::{Services, Sessions, ShardEndpoint};
use crate::units::millis;

/// The bounds of a shard's sockets.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Of what waits to be written.
    pub outbox: outbox::Config,
    /// Of what is half received.
    pub frames: Limits,
    /// Of control frames.
    pub control: ControlConfig,
    /// Of Socket.IO.
    pub socketio: Arc<socketio::Config>,
}

/// Bounds of a client's control frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlConfig {
    /// Within one second.
    pub frames_per_second_max: u32,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            frames_per_second_max: 10,
        }
    }
}

/// A client that has connected, on its way to a shard.
#[derive(Debug)]
pub struct UpgradedClient {
    /// The connection, non-blocking.
    pub stream: std::net::TcpStream,
    /// Bytes read beyond the handshake.
    pub leftover: Vec<u8>,
    /// Its protocol.
    pub protocol: ProtocolId,
    /// The token, if it came with the handshake.
    pub token: Option<String>,
    /// Its place among the connections of its address.
    pub place: Place,
    /// Set for a client of Socket.IO.
    pub engine: Option<EngineEntry>,
}

/// A message from the client port to a shard.
#[derive(Debug)]
pub enum Visit {
    /// A client with its socket.
    Client(UpgradedClient),
    /// A request of a client that polls.
    Poll(socketio::Request),
}

/// The size of the buffer all sockets of a shard are read into, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// The interval at which the shard handles what is due.
const TICK: Duration = Duration::from_millis(250);

/// One shard.
pub struct Shard {
    poll: AsyncFd<Poll>,
    events: Events,
    buffer: Box<[u8]>,
    received: Vec<Received>,
    sessions: Sessions<ClientLink>,
    engine: EngineConnections,
    protocols: Protocols,
    shared: Rc<SocketShared>,
    serial: u32,
    stalled: Vec<SocketId>,
    partial: Vec<SocketId>,
    /// Something was not written because the lease did not hold.
    withheld: bool,
    lingering: Lingering,
    admission: Arc<Admission>,
}

impl Shard {
    /// A shard without connections, of a node by its incarnation. To be called on the shard's own thread, within its runtime.
    ///
    /// # Errors
    /// When the kernel gives no epoll descriptor.
    pub fn new(
        config: &Config,
        protocols: Protocols,
        services: Services,
        endpoint: ShardEndpoint,
        node: u64,
    ) -> std::io::Result<Self> {
        let shared = SocketShared {
            outbox: config.outbox,
            frames: config.frames,
            control_frames_per_second_max: config.control.frames_per_second_max,
            stalled: RefCell::default(),
            again: RefCell::default(),
            polls_due: RefCell::default(),
        };
        let shared = Rc::new(shared);
        let engine = EngineConnections::new(
            Arc::clone(&config.socketio),
            &protocols,
            (node, endpoint.index()),
            Rc::clone(&shared),
        );
        Ok(Self {
            poll: watch(Poll::new()?)?,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            received: Vec::new(),
            admission: Arc::clone(&services.admission),
            sessions: Sessions::new(services, endpoint),
            engine,
            protocols,
            shared,
            serial: 0,
            stalled: Vec::new(),
            partial: Vec::new(),
            withheld: false,
            lingering: Lingering::default(),
        })
    }

    /// Serves until `stop`. Sessions that are open then are dropped: drain first.
    pub async fn run(mut self, mut visits: mpsc::Receiver<Visit>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let busy = self.sessions.has_work();
            // The clock is looked at only where there is a deadline: most shards turn without one.
            let due_in = self
                .engine
                .next_ms()
                .map(|due_ms| due_ms.saturating_sub(self.sessions.now_ms()));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ready = self.poll.readable_mut() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                    self.poll_sockets();
                }
                happening = self.sessions.next() => self.sessions.handle(happening),
                Some(visit) = visits.recv() => self.visit(visit),
                () = self.engine.due(due_in) => self.engine_due(),
                _ = tick.tick() => self.tick(),
                () = std::future::ready(()), if busy => {}
            }
            self.sessions.take_inbound();
            self.sessions.fan_out();
            self.sessions.recheck_some();
            if self.withheld {
                self.flush_withheld();
            }
            self.read_again();
            self.answer_polls();
            self.reap();
            if busy {
                // Others on this thread, the runtime's own driver among them, get their turn between two chunks.
                tokio::task::yield_now().await;
            }
        }
    }

    fn adopt(&mut self, client: UpgradedClient) {
        let UpgradedClient {
            stream,
            leftover,
            protocol,
            token,
            place,
            engine,
        } = client;
        if let Some(entry) = engine {
            return self.adopt_engine(stream, &leftover, (protocol, token, place), entry);
        }
        let carrier = self.protocols.get(protocol).carrier();
        let mut stream = match prepare(stream, &carrier) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "connection lost before registration");
                return self.admission.leave(place);
            }
        };
        self.serial = self.serial.wrapping_add(1) % SocketId::ENGINE_SERIAL;
        let id = SocketId {
            key: self.sessions.next_key(),
            serial: self.serial,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self
            .poll
            .get_ref()
            .registry()
            .register(&mut stream, id.token(), interest)
        {
            tracing::warn!(%error, "connection registration failed");
            return self.admission.leave(place);
        }
        let socket = Socket::new(id, stream, (protocol, carrier), place, Rc::clone(&self.shared));
        self.sessions.open(ClientLink::Socket(socket), token);
        if !leftover.is_empty() && leftover.len() <= self.buffer.len() {
            self.buffer[..leftover.len()].copy_from_slice(&leftover);
            self.feed(id, leftover.len());
        }
    }

    fn poll_sockets(&mut self) {
        let (may_flush, now_ms) = (self.sessions.may_deliver(), self.sessions.now_ms());
        self.withheld |= !may_flush;
        loop {
            let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
            if let Err(error) = self.poll.get_mut().poll(&mut events, Some(Duration::ZERO)) {
                tracing::warn!(%error, "polling failed");
            }
            let count = events.iter().count();
            for event in &events {
                let id = SocketId::of(event.token());
                if id.serial == SocketId::LINGERING_SERIAL {
                    self.lingering.advance(id.key, &mut self.buffer, now_ms);
                    continue;
                }
                if may_flush && event.is_writable() {
                    self.flush(id);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(id, event.is_read_closed());
                }
            }
            self.events = events;
            if count < self.events.capacity() {
                return;
            }
        }
    }

    fn flush(&mut self, id: SocketId) {
        if id.is_engine() {
            return self.flush_engine_socket(id);
        }
        let Some(socket) = self.socket(id).filter(|socket| socket.backlog_bytes() > 0) else {
            return;
        };
        if socket.flush() {
            self.sessions.flushed(id.key);
        } else {
            self.sessions.close(id.key, CloseReason::ClientLeft);
        }
    }

    /// Writes what waits for anybody once the lease holds again: the kernel has said already that it would take it.
    fn flush_withheld(&mut self) {
        if !self.sessions.may_deliver() {
            return;
        }
        self.withheld = false;
        let ids = self.sessions.links().filter_map(ClientLink::socket_id);
        for id in ids.collect::<Vec<_>>() {
            self.flush(id);
        }
        self.flush_engine();
    }

    fn socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        socket_of(&mut self.sessions, id)
    }

    fn tick(&mut self) {
        self.sessions.tick();
        let now_ms = self.sessions.now_ms();
        if !self.withheld {
            self.check_stalled(now_ms);
        }
        self.check_partial(now_ms);
        if self.sessions.is_draining() {
            self.drain_engine();
        }
        self.lingering.end_overdue(now_ms);
    }

    /// Closes the peers whose oldest queued frame has waited too long.
    fn check_stalled(&mut self, now_ms: u64) {
        let age_max = self.shared.outbox.outbox_age_max;
        let mut stalled = std::mem::take(&mut self.stalled);
        stalled.append(&mut self.shared.stalled.borrow_mut());
        stalled.retain(|id| {
            if id.is_engine() {
                return self.check_stalled_engine(*id, age_max, now_ms);
            }
            let Some(socket) = self.socket(*id) else { return false };
            if socket.outbox().age(now_ms) > age_max {
                self.sessions.close(id.key, CloseReason::SlowConsumer);
                return false;
            }
            !socket.outbox().is_empty()
        });
        self.stalled = stalled;
    }

    /// Closes the peers that have been sending one message for too long.
    fn check_partial(&mut self, now_ms: u64) {
        let duration_max = millis(self.shared.frames.message_duration_max);
        let mut partial = std::mem::take(&mut self.partial);
        partial.retain(|id| {
            if id.is_engine() {
                return self.check_partial_engine(*id, duration_max, now_ms);
            }
            let since = self.socket(*id).and_then(|socket| socket.carrier.partial_since_ms());
            let Some(since) = since else { return false };
            let late = now_ms.saturating_sub(since) > duration_max;
            if late {
                self.sessions.close(id.key, CloseReason::PolicyViolation);
            }
            !late
        });
        self.partial = partial;
    }

    /// Sees the sessions off that have ended.
    fn reap(&mut self) {
        for closed in self.sessions.take_closed() {
            let ended = (closed.reason, &*closed.why);
            match closed.link {
                ClientLink::Socket(socket) => self.see_off(socket, ended),
                ClientLink::Channel(channel) => self.channel_closed(&channel, closed.key, closed.was_open, ended),
            }
        }
    }

    fn see_off(&mut self, socket: Socket, ended: (CloseReason, &str)) {
        self.admission.leave(socket.place);
        let (registry, now_ms) = (self.poll.get_ref().registry(), self.sessions.now_ms());
        let protocol = self.protocols.get(socket.protocol);
        self.lingering
            .see_off(socket, ended, protocol, registry, &mut self.buffer, now_ms);
    }
}

/// The socket of a session.
fn socket_of(sessions: &mut Sessions<ClientLink>, id: SocketId) -> Option<&mut Socket> {
    let socket = sessions.link(id.key).and_then(ClientLink::socket);
    socket.filter(|socket| socket.id == id)
}

#[expect(
    deprecated,
    reason = "the sound constructor is `unsafe`; a mio Poll keeps one descriptor for all its life"
)]
fn watch(poll: Poll) -> std::io::Result<AsyncFd<Poll>> {
    AsyncFd::new(poll)
}

/// Hands a connection over to the shard's own epoll set. Small writes leave at once, and the kernel holds little that
/// is not sent, so that a peer that does not read is noticed by 148 KiB instead of 4 MiB (measured).
///
/// The kernel also looks after a peer that never sends: it ends the connection when a heartbeat is not acknowledged.
fn prepare(stream: std::net::TcpStream, carrier: &Carrier) -> std::io::Result<mio::net::TcpStream> {
    const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;
    /// About what a WebSocket is given to answer a heartbeat, by default.
    const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    #[cfg(target_os = "linux")]
    if carrier.is_one_way() {
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    }
    stream.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(stream))
}
