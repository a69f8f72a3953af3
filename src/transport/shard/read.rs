//! Reading: messages of clients are read into the shard's buffer, parsed there, and carried out.

use super::{Shard, socket_of};
use crate::error::CloseReason;
use crate::session::Frame;
use crate::session::link::{FrameKind, Link as _, SendError};
use crate::transport::carrier::Arrival;
use crate::transport::protocol::Decoded;
use crate::transport::socket::{ReadOutcome, SocketId};
use crate::transport::websocket::frame::CloseFrame;

/// The most reads of one socket in a row before others get their turn.
const READS_MAX: usize = 4;

/// A message read off a socket.
#[derive(Debug)]
pub(super) enum Received {
    Decoded(Decoded),
    Ping(Vec<u8>),
    Pong,
    Close(CloseFrame),
}

impl Shard {
    pub(super) fn read_again(&mut self) {
        let again = std::mem::take(&mut *self.shared.again.borrow_mut());
        for id in again {
            self.read(id, true);
        }
    }

    /// Reads a socket until it is empty. A short read empties it, unless the peer may have ended its side: that is only
    /// seen by reading on.
    pub(super) fn read(&mut self, id: SocketId, ended: bool) {
        for _ in 0..READS_MAX {
            let Some(outcome) = self.read_once(id) else { return };
            match outcome {
                ReadOutcome::Bytes(count) => self.feed(id, count),
                ReadOutcome::Last(count) => {
                    self.feed(id, count);
                    if !ended {
                        return;
                    }
                }
                ReadOutcome::Nothing => return,
                ReadOutcome::End if id.is_engine() => return self.engine_ended(id),
                ReadOutcome::End => return self.sessions.close(id.key, CloseReason::ClientLeft),
            }
        }
        self.shared.again.borrow_mut().push(id);
    }

    /// Reads what a socket has; `None` when there is no such socket.
    fn read_once(&mut self, id: SocketId) -> Option<ReadOutcome> {
        if id.is_engine() {
            let connection = self.engine.in_slot(id.key)?;
            let mut connection = connection.borrow_mut();
            return Some(connection.socket.as_mut()?.read(&mut self.buffer));
        }
        Some(socket_of(&mut self.sessions, id)?.read(&mut self.buffer))
    }

    /// Parses what was read and carries it out.
    pub(super) fn feed(&mut self, id: SocketId, count: usize) {
        if id.is_engine() {
            return self.feed_engine(id, count);
        }
        let now_ms = self.sessions.now_ms();
        let Some(socket) = socket_of(&mut self.sessions, id) else {
            return;
        };
        let (protocol, received) = (self.protocols.get(socket.protocol), &mut self.received);
        let fed = socket
            .carrier
            .feed(&mut self.buffer[..count], &self.shared.frames, now_ms, &mut |arrival| {
                received.push(match arrival {
                    Arrival::Message(message) => Received::Decoded(protocol.decode(message)),
                    Arrival::Ping(payload) => Received::Ping(payload.to_vec()),
                    Arrival::Pong => Received::Pong,
                    Arrival::Close(close) => Received::Close(close),
                });
            });
        if socket.carrier.partial_since_ms() == Some(now_ms) {
            self.partial.push(id);
        }
        self.sessions.seen(id.key);
        let mut received = std::mem::take(&mut self.received);
        for item in received.drain(..) {
            self.carry_out(id, item);
        }
        self.received = received;
        if let Err(reason) = fed {
            self.sessions.close(id.key, reason);
        }
    }

    fn carry_out(&mut self, id: SocketId, item: Received) {
        match item {
            Received::Decoded(Decoded::Request(request)) => self.sessions.command(id.key, request),
            Received::Decoded(Decoded::Refused { id: number, refusal }) => {
                self.sessions.undecoded(id.key, number, refusal);
            }
            Received::Decoded(Decoded::Reply(frame)) => self.reply(id, &frame),
            Received::Decoded(Decoded::Unsupported) => self.sessions.close(id.key, CloseReason::UnsupportedData),
            Received::Ping(payload) => self.control_frame(id, Some(&payload)),
            Received::Pong => self.control_frame(id, None),
            Received::Close(close) => {
                if let Some(socket) = self.socket(id) {
                    socket.peer_close = Some(close);
                }
                self.sessions.close(id.key, CloseReason::ClientLeft);
            }
        }
    }

    /// Sends what the protocol answers by itself. Counted like a push: a peer that asks and does not read is closed.
    fn reply(&mut self, id: SocketId, frame: &Frame) {
        let now_ms = self.sessions.now_ms();
        let Some(socket) = self.socket(id) else { return };
        match socket.send(frame, FrameKind::Push, now_ms) {
            Ok(()) => {}
            Err(SendError::Overflow) => self.sessions.close(id.key, CloseReason::SlowConsumer),
            Err(SendError::Gone) => self.sessions.close(id.key, CloseReason::ClientLeft),
        }
    }

    fn control_frame(&mut self, id: SocketId, ping: Option<&[u8]>) {
        let now_ms = self.sessions.now_ms();
        let Some(socket) = self.socket(id) else { return };
        if let Err(reason) = socket.control_frame(ping, now_ms) {
            self.sessions.close(id.key, reason);
        }
    }
}
