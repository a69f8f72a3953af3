//! The Socket.IO connections of a shard: from their sockets and polls to sessions, and back.

mod polls;
mod steps;

use std::time::Duration;

use mio::Interest;

use super::{Shard, Visit, prepare};
use crate::admission::Place;
use crate::error::CloseReason;
use crate::session::link::FrameKind;
use crate::session::{Frame, ProtocolId};
use crate::shard::Key;
use crate::transport::carrier::Carrier;
use crate::transport::socket::{Socket, SocketId};
use crate::transport::socketio::{Channel, Connection, Due, EngineEntry, EngineId, Shared};
use crate::transport::websocket::frame::text_frame;

impl Shard {
    pub(super) fn visit(&mut self, visit: Visit) {
        match visit {
            Visit::Client(client) => self.adopt(client),
            Visit::Poll(request) => self.poll_request(request),
        }
    }

    /// Takes a WebSocket over: of a new connection, or of one that is to be upgraded.
    pub(super) fn adopt_engine(
        &mut self,
        stream: std::net::TcpStream,
        leftover: &[u8],
        (protocol, token, place): (ProtocolId, Option<String>, Place),
        entry: EngineEntry,
    ) {
        let now_ms = self.sessions.now_ms();
        let connection = match entry.upgrades {
            None => {
                let connection = self.engine.open(place, now_ms);
                let mut opened = connection.borrow_mut();
                opened.token = token.map(Into::into);
                opened.credential = entry.credential;
                drop(opened);
                connection
            }
            // One WebSocket at most, and none that is of no use any more. Such a client is cut off: it reads no answer yet.
            Some(sid) => match self
                .engine
                .find_to_upgrade(sid, entry.credential)
                .filter(can_be_upgraded)
            {
                Some(connection) => connection,
                None => return self.admission.leave(place),
            },
        };
        let id = connection.borrow().id;
        let carrier = Carrier::default();
        let registered = prepare(stream, &carrier).and_then(|mut stream| {
            let (registry, interest) = (self.poll.get_ref().registry(), Interest::READABLE | Interest::WRITABLE);
            registry.register(&mut stream, SocketId::of_engine(id).token(), interest)?;
            Ok(stream)
        });
        let Ok(stream) = registered else {
            self.admission.leave(place);
            if entry.upgrades.is_none() {
                self.engine.remove(id);
            }
            return;
        };
        let socket = Socket::new(
            SocketId::of_engine(id),
            stream,
            (protocol, carrier),
            place,
            self.shared.clone(),
        );
        connection.borrow_mut().socket = Some(socket);
        if entry.upgrades.is_some() {
            self.engine.probed(id, now_ms);
        } else {
            let packet = self.engine.open_packet(&connection.borrow());
            self.send_engine(&connection, &text_frame(&packet));
        }
        if !leftover.is_empty() && leftover.len() <= self.buffer.len() {
            self.buffer[..leftover.len()].copy_from_slice(leftover);
            self.feed(SocketId::of_engine(id), leftover.len());
        }
    }

    /// Writes to a connection what belongs to none of its sessions.
    fn send_engine(&mut self, connection: &Shared, frame: &Frame) {
        let now_ms = self.sessions.now_ms();
        let (id, sent) = {
            let mut connection = connection.borrow_mut();
            (connection.id, connection.send(frame, FrameKind::Push, now_ms))
        };
        if sent.is_err() {
            self.close_engine(id, (CloseReason::SlowConsumer, ""));
        }
    }

    pub(super) fn flush_engine_socket(&mut self, id: SocketId) {
        let Some(connection) = self.engine.in_slot(id.key) else {
            return;
        };
        let (keys, flushed) = {
            let mut connection = connection.borrow_mut();
            let keys: Vec<Key> = connection.members.iter().map(|member| member.key).collect();
            let Some(socket) = connection.socket.as_mut().filter(|socket| !socket.outbox().is_empty()) else {
                return;
            };
            (keys, socket.flush())
        };
        if flushed {
            for key in keys {
                self.sessions.flushed(key);
            }
        } else {
            self.socket_ended(&connection, CloseReason::ClientLeft);
        }
    }

    /// Writes what waits for anybody, once the lease holds again.
    pub(super) fn flush_engine(&mut self) {
        let ids: Vec<SocketId> = self
            .engine
            .iter()
            .map(|connection| SocketId::of_engine(connection.borrow().id))
            .collect();
        for id in ids {
            self.flush_engine_socket(id);
        }
        let now_ms = self.sessions.now_ms();
        for connection in self.engine.iter() {
            let connection = &mut *connection.borrow_mut();
            if let Some(polling) = &mut connection.polling {
                polling.restart_clock(now_ms);
                self.shared.polls_due.borrow_mut().push(connection.id);
            }
        }
    }

    /// The peer of a WebSocket has ended its side.
    pub(super) fn engine_ended(&mut self, id: SocketId) {
        if let Some(connection) = self.engine.in_slot(id.key) {
            self.socket_ended(&connection, CloseReason::ClientLeft);
        }
    }

    /// The WebSocket of a connection has ended, or broke a rule. A connection that was only probed by it goes on by polling.
    fn socket_ended(&mut self, connection: &Shared, reason: CloseReason) {
        let id = connection.borrow().id;
        if connection.borrow().polling.is_some() {
            self.end_probe(connection, reason);
        } else {
            self.close_engine(id, (reason, ""));
        }
    }

    /// Ends a WebSocket that was probed and not upgraded to.
    fn end_probe(&mut self, connection: &Shared, reason: CloseReason) {
        let socket = {
            let mut connection = connection.borrow_mut();
            if let Some(polling) = &mut connection.polling {
                polling.probed = false;
                polling.probing_since_ms = None;
            }
            connection.socket.take()
        };
        if let Some(socket) = socket {
            self.see_off(socket, (reason, ""));
        }
        self.shared.polls_due.borrow_mut().push(connection.borrow().id);
    }

    /// Carries out what is due.
    pub(super) fn engine_due(&mut self) {
        while let Some(due) = self.engine.take_due(self.sessions.now_ms()) {
            match due {
                Due::Ping(id) => {
                    let Some(connection) = self.engine.get(id) else {
                        continue;
                    };
                    let now_ms = self.sessions.now_ms();
                    self.engine.pinged(&mut connection.borrow_mut(), now_ms);
                    let sent = connection.borrow_mut().ping(now_ms);
                    if sent.is_err() {
                        self.close_engine(id, (CloseReason::SlowConsumer, ""));
                    }
                }
                Due::Connected(id) => self.check_connected(id),
                Due::Close(id, reason) => self.close_engine(id, (reason, "")),
                Due::EndProbe(id) => {
                    if let Some(connection) = self
                        .engine
                        .get(id)
                        .filter(|connection| connection.borrow().polling.is_some())
                    {
                        self.end_probe(&connection, CloseReason::PolicyViolation);
                    }
                }
            }
        }
    }

    /// Ends a connection that has had no open session in its time. A client that is refused again and again has none.
    fn check_connected(&mut self, id: EngineId) {
        let Some(connection) = self.engine.get(id) else { return };
        let keys: Vec<Key> = connection.borrow().members.iter().map(|member| member.key).collect();
        if keys.into_iter().any(|key| self.sessions.is_open(key)) {
            connection.borrow_mut().has_connected = true;
        } else {
            self.close_engine(id, (CloseReason::Unauthenticated, ""));
        }
    }

    /// Ends a connection with all of its sessions.
    pub(super) fn close_engine(&mut self, id: EngineId, ended: (CloseReason, &str)) {
        let Some(connection) = self.engine.remove(id) else {
            return;
        };
        // The poll that waits brings the advice that has just been queued, as a WebSocket does. After no other reason: what waits then may
        // be what a revocation withdraws.
        if ended.0 == CloseReason::Draining && self.sessions.may_deliver() {
            connection.borrow_mut().answer_poll(true);
        }
        let (members, socket, place, is_polled) = {
            let mut connection = connection.borrow_mut();
            connection.is_closed = true;
            connection.end_polling(ended.0);
            (
                std::mem::take(&mut connection.members),
                connection.socket.take(),
                connection.place,
                connection.polling.take().is_some(),
            )
        };
        for member in members {
            self.sessions.close(member.key, ended.0);
        }
        if is_polled {
            self.admission.leave(place);
        }
        if let Some(socket) = socket {
            self.see_off(socket, ended);
        }
    }

    /// Ends the connections that have no session: those that have one end in their turn.
    pub(super) fn drain_engine(&mut self) {
        let ids = self.engine.iter().filter_map(|connection| {
            let connection = connection.borrow();
            connection.members.is_empty().then_some(connection.id)
        });
        for id in ids.collect::<Vec<_>>() {
            self.close_engine(id, (CloseReason::Draining, ""));
        }
    }

    /// A session of a connection has ended. What the client is told decides what it does: after a DISCONNECT it stays away, after the
    /// end of its transport it comes back by itself, with a new token if its application has one.
    pub(super) fn channel_closed(&mut self, channel: &Channel, key: Key, was_open: bool, ended: (CloseReason, &str)) {
        let Some(connection) = self.engine.get(channel.connection()) else {
            return;
        };
        let left = connection.borrow_mut().remove_member(|member| member.key == key);
        connection.borrow_mut().has_connected |= was_open;
        // It had left by itself.
        if left.is_none() {
            return;
        }
        let id = connection.borrow().id;
        match ended.0 {
            reason if reason.may_reconnect() || reason == CloseReason::TokenExpired && was_open => {
                self.close_engine(id, ended);
            }
            // The answer to CONNECT was an error.
            _ if !was_open => {}
            CloseReason::Kicked | CloseReason::Forbidden | CloseReason::Unauthenticated | CloseReason::TokenExpired => {
                let packet = channel.disconnect_packet(self.engine.namespaces());
                self.send_engine(&connection, &packet);
            }
            _ => self.close_engine(id, ended),
        }
    }

    /// Closes a connection whose oldest frame has waited too long; returns whether it is to be looked at again.
    pub(super) fn check_stalled_engine(&mut self, id: SocketId, age_max: Duration, now_ms: u64) -> bool {
        let Some(connection) = self.engine.in_slot(id.key) else {
            return false;
        };
        let (engine_id, age) = {
            let connection = connection.borrow();
            (connection.id, connection.oldest_age(now_ms))
        };
        match age {
            Some(age) if age > age_max => {
                self.close_engine(engine_id, (CloseReason::SlowConsumer, ""));
                false
            }
            age => age.is_some(),
        }
    }

    /// Closes a WebSocket that has been sending one message for too long, and a connection whose packet has waited for its attachments
    /// for as long; returns whether it is to be looked at again.
    pub(super) fn check_partial_engine(&mut self, id: SocketId, duration_max: u64, now_ms: u64) -> bool {
        let Some(connection) = self.engine.in_slot(id.key) else {
            return false;
        };
        let (id, of_message, of_packet) = {
            let mut connection = connection.borrow_mut();
            if connection.is_paused() {
                connection.inbox.restart_clock(now_ms);
            }
            let socket = connection.socket.as_ref();
            let of_message = socket.and_then(|socket| socket.carrier.partial_since_ms());
            (connection.id, of_message, connection.inbox.partial_since_ms())
        };
        let is_late = |since: Option<u64>| since.is_some_and(|since| now_ms.saturating_sub(since) > duration_max);
        if is_late(of_packet) {
            self.close_engine(id, (CloseReason::PolicyViolation, ""));
            return false;
        }
        if is_late(of_message) {
            self.socket_ended(&connection, CloseReason::PolicyViolation);
        }
        of_packet.is_some() || of_message.is_some() && !is_late(of_message)
    }
}

/// Reports whether a connection polls and has no WebSocket yet.
fn can_be_upgraded(connection: &Shared) -> bool {
    let connection: &Connection = &connection.borrow();
    connection.polling.is_some() && connection.socket.is_none()
}
