//! Packets of a Socket.IO client, carried out.

use super::Shard;
use crate::error::CloseReason;
use crate::rate::Rate;
use crate::session::link::{FrameKind, Link as _};
use crate::session::recovery::Claim;
use crate::session::{ASKS, Command, ProtocolId, Request};
use crate::shard::Key;
use crate::transport::carrier::Arrival;
use crate::transport::link::ClientLink;
use crate::transport::protocol::{Decoded, Message};
use crate::transport::socket::SocketId;
use crate::transport::socketio::{self, Channel, Shared, Step};
use crate::transport::websocket::frame::{CloseFrame, text_frame};

/// A thing that a WebSocket brought.
enum Brought {
    Step(Step),
    Ping(Vec<u8>),
    Pong,
    Close(CloseFrame),
    /// A packet that cannot be read.
    Broken(CloseReason),
}

impl Shard {
    /// Parses what was read off a WebSocket and carries it out.
    pub(in crate::transport::shard) fn feed_engine(&mut self, id: SocketId, count: usize) {
        let now_ms = self.sessions.now_ms();
        let Some(connection) = self.engine.in_slot(id.key) else {
            return;
        };
        let (mut brought, mut fed) = (Vec::new(), Ok(()));
        let engine_id = {
            let connection = &mut *connection.borrow_mut();
            let Some(socket) = &mut connection.socket else { return };
            let (inbox, limits, namespaces) = (&mut connection.inbox, self.engine.limits(), self.engine.namespaces());
            let read = &mut |arrival: Arrival<'_>| {
                let step = match arrival {
                    Arrival::Message(Message::Text(text)) => {
                        // Pongs and packets of nothing are control frames of this protocol, and as many of them are taken.
                        if text.starts_with(['3', '6']) {
                            brought.push(Brought::Pong);
                        }
                        inbox.text(text, namespaces)
                    }
                    Arrival::Message(Message::Binary(bytes)) => {
                        inbox.binary(bytes, limits.message_bytes_max, namespaces)
                    }
                    Arrival::Ping(payload) => return brought.push(Brought::Ping(payload.to_vec())),
                    Arrival::Pong => return brought.push(Brought::Pong),
                    Arrival::Close(close) => return brought.push(Brought::Close(close)),
                };
                brought
                    .extend(step.map_or_else(|reason| Some(Brought::Broken(reason)), |step| step.map(Brought::Step)));
            };
            fed = fed.and(socket.carrier.feed(&mut self.buffer[..count], limits, now_ms, read));
            if socket.carrier.partial_since_ms() == Some(now_ms) {
                self.partial.push(id);
            }
            connection.id
        };
        self.watch_partial(&connection);
        for item in brought {
            // What came behind the end of the connection counts for nothing.
            if self.engine.get(engine_id).is_none() || connection.borrow().socket.is_none() {
                return;
            }
            self.carry_out_brought(&connection, item);
        }
        if let Err(reason) = fed
            && self.engine.get(engine_id).is_some()
        {
            self.socket_ended(&connection, reason);
        }
    }

    fn carry_out_brought(&mut self, connection: &Shared, item: Brought) {
        match item {
            Brought::Step(step) if connection.borrow().polling.is_some() => self.probe_step(connection, step),
            Brought::Step(step) => self.step(connection, step),
            Brought::Ping(payload) => self.engine_control_frame(connection, Some(&payload)),
            Brought::Pong => self.engine_control_frame(connection, None),
            Brought::Close(close) => {
                if let Some(socket) = &mut connection.borrow_mut().socket {
                    socket.peer_close = Some(close);
                }
                self.socket_ended(connection, CloseReason::ClientLeft);
            }
            Brought::Broken(reason) => self.socket_ended(connection, reason),
        }
    }

    /// Carries out a packet of a WebSocket that is being probed: a ping, then the upgrade, and nothing else.
    fn probe_step(&mut self, connection: &Shared, step: Step) {
        let now_ms = self.sessions.now_ms();
        let is_probed = connection
            .borrow()
            .polling
            .as_ref()
            .is_some_and(|polling| polling.probed);
        match step {
            Step::Ping(data) if &*data == "probe" => {
                let mut connection = connection.borrow_mut();
                let connection = &mut *connection;
                if let (Some(socket), Some(polling)) = (&mut connection.socket, &mut connection.polling) {
                    // A WebSocket that breaks here is noticed when it is read.
                    let _ = socket.send(&text_frame("3probe"), FrameKind::Push, now_ms);
                    polling.probed = true;
                    polling.release();
                }
            }
            Step::Upgrade if is_probed => {
                let (id, place, upgraded) = {
                    let mut connection = connection.borrow_mut();
                    let place = connection.socket.as_ref().map(|socket| socket.place);
                    (connection.id, place, connection.upgrade(now_ms))
                };
                // The connection keeps its own place.
                if let Some(place) = place {
                    self.admission.leave(place);
                }
                if upgraded.is_err() {
                    self.close_engine(id, (CloseReason::ClientLeft, ""));
                }
            }
            _ => self.end_probe(connection, CloseReason::ProtocolError),
        }
    }

    /// Carries out a packet of a connection.
    pub(super) fn step(&mut self, connection: &Shared, step: Step) {
        let id = connection.borrow().id;
        let fault = (CloseReason::ProtocolError, "");
        if matches!(step, Step::Connect(..) | Step::Recover(..) | Step::ConnectNowhere(_))
            && !self.may_connect(connection)
        {
            return self.close_engine(id, (CloseReason::Flooding, ""));
        }
        match step {
            Step::Connect(namespace, token) => self.connect(connection, namespace, token.as_deref(), None),
            Step::Recover(namespace, token, claim) => {
                self.connect(connection, namespace, token.as_deref(), Some(claim));
            }
            Step::ConnectNowhere(name) => {
                let name: String = name.chars().take(128).collect();
                let packet = text_frame(&format!("44{name},{{\"message\":\"Invalid namespace\"}}"));
                self.send_engine(connection, &packet);
            }
            Step::Disconnect(namespace) => {
                let left = connection
                    .borrow_mut()
                    .remove_member(|member| member.namespace == namespace);
                match left.map(|member| member.key) {
                    Some(key) => {
                        connection.borrow_mut().has_connected |= self.sessions.is_open(key);
                        // It has left for good: a later CONNECT begins anew.
                        self.sessions.forget(key);
                        self.sessions.close(key, CloseReason::ClientLeft);
                    }
                    None => self.close_engine(id, fault),
                }
            }
            Step::Command(namespace, decoded) => match (used(connection, namespace), decoded) {
                (Some(key), Decoded::Request(request)) => self.sessions.command(key, request),
                (Some(key), Decoded::Refused { id, refusal }) => {
                    if refusal.reason == socketio::UNHANDLED {
                        self.sessions.counters().events_unhandled.add();
                    }
                    self.sessions.undecoded(key, id, refusal);
                }
                _ => self.close_engine(id, fault),
            },
            Step::Echo(frame) => self.send_engine(connection, &frame),
            Step::Pong => {
                let now_ms = self.sessions.now_ms();
                self.engine.ponged(&mut connection.borrow_mut(), now_ms);
            }
            // Pings go the other way in this version.
            Step::Ping(_) | Step::Upgrade => self.close_engine(id, fault),
            Step::Close => {
                if let Some(polling) = &mut connection.borrow_mut().polling {
                    polling.release();
                }
                self.close_engine(id, (CloseReason::ClientLeft, ""));
            }
        }
    }

    /// Counts a CONNECT packet; returns whether it is within the rate.
    fn may_connect(&self, connection: &Shared) -> bool {
        /// A page connects to each of its namespaces, of which there are at most 8, and to some again. A session has limits of its own,
        /// which begin anew with it.
        const RATE: Rate = Rate {
            per_second: 2,
            burst: 32,
        };
        connection
            .borrow_mut()
            .connects
            .take(RATE, self.sessions.now_ms())
            .is_ok()
    }

    /// Opens a session in a namespace.
    fn connect(&mut self, connection: &Shared, namespace: ProtocolId, token: Option<&str>, claim: Option<Claim>) {
        let (id, is_used) = {
            let mut connection = connection.borrow_mut();
            (connection.id, connection.member(namespace).map(|member| member.is_used))
        };
        match is_used {
            // Impatient clients connect twice, before they have had an answer.
            Some(false) => return,
            Some(true) => return self.close_engine(id, (CloseReason::ProtocolError, "")),
            None => {}
        }
        let token = self.token(connection, token);
        let channel = Channel::new(connection.clone(), namespace);
        let channel = match self.engine.config().recovery {
            Some(_) => channel.recoverable(claim),
            None => channel,
        };
        let key = self.sessions.open(ClientLink::Channel(channel), None);
        {
            let mut connection = connection.borrow_mut();
            connection.members.push(socketio::Member {
                namespace,
                key,
                is_used: false,
                is_paused: false,
            });
        }
        self.sessions.command(key, connect(token));
    }

    /// The token of a session: from the CONNECT packet or the handshake, in the configured order.
    fn token(&self, connection: &Shared, given: Option<&str>) -> String {
        let connection = connection.borrow();
        let mut sources = self.engine.config().token_sources.iter();
        let token = sources.find_map(|source| match source {
            socketio::TokenSource::Auth => given,
            socketio::TokenSource::Handshake => connection.token.as_deref(),
        });
        token.unwrap_or_default().to_owned()
    }

    fn engine_control_frame(&mut self, connection: &Shared, ping: Option<&[u8]>) {
        let now_ms = self.sessions.now_ms();
        let taken = match &mut connection.borrow_mut().socket {
            Some(socket) => socket.control_frame(ping, now_ms),
            None => return,
        };
        if let Err(reason) = taken {
            self.socket_ended(connection, reason);
        }
    }
}

/// The session in a namespace, which the client uses.
fn used(connection: &Shared, namespace: ProtocolId) -> Option<Key> {
    let mut connection = connection.borrow_mut();
    let member = connection.member(namespace)?;
    member.is_used = true;
    Some(member.key)
}

/// The command that opens a session.
fn connect(token: String) -> Request {
    Request {
        id: socketio::CONNECT,
        command: Command::Connect {
            token,
            client: String::new(),
            resume: Vec::new(),
            // By acknowledgements, of which every client knows.
            features: vec![ASKS.to_owned()],
        },
    }
}
