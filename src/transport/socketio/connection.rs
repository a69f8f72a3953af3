//! One Engine.IO connection: its carrier, what waits to be written, and the sessions that share it.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::inbox::Inbox;
use super::polling::{PING, Polled, Polling};
use super::sid::Sid;
use crate::admission::Place;
use crate::error::CloseReason;
use crate::rate::TokenBucket;
use crate::session::link::{FrameKind, Link, SendError};
use crate::session::{Frame, ProtocolId};
use crate::shard::Key;
use crate::transport::socket::{Socket, SocketId, SocketShared};
use crate::transport::websocket::frame::text_frame;

/// Names a connection of a shard for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) struct EngineId {
    pub key: u32,
    pub serial: u32,
}

/// The answer to a polling request.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Packets, or `ok`.
    Body(Bytes),
    /// There is no such connection.
    Unknown,
    /// The request does not fit the connection.
    BadRequest,
    /// The connection has ended, and the client is to open a new one.
    Gone,
}

/// Where a polling request is waited for.
pub type ReplyTo = oneshot::Sender<Reply>;

/// A session of the connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::transport) struct Member {
    pub namespace: ProtocolId,
    pub key: Key,
    /// The client has sent something to it, so it knows that it is connected.
    pub is_used: bool,
    /// Its commands wait: the client is not read meanwhile.
    pub is_paused: bool,
}

/// One connection.
#[derive(Debug)]
pub(in crate::transport) struct Connection {
    pub id: EngineId,
    pub sid: Sid,
    pub inbox: Inbox,
    /// The WebSocket; while there is polling, the one that is being probed.
    pub socket: Option<Socket>,
    /// Set until the upgrade is complete.
    pub polling: Option<Box<Polling>>,
    pub members: Vec<Member>,
    pub place: Place,
    /// The token of the handshake, for every namespace whose CONNECT has none.
    pub token: Option<Box<str>>,
    /// The hash of the handshake's `Authorization`: later requests have the same.
    pub credential: Option<u64>,
    /// It has had an open session, so it may be without one.
    pub has_connected: bool,
    /// The CONNECT packets of its client: each opens a session, with rates of its own.
    pub connects: TokenBucket,
    /// The time of the last ping that has not been answered.
    pub pinged_ms: Option<u64>,
    /// Set by the upgrade, until it has come: a client has one POST under way at most, which may arrive after its upgrade.
    pub may_post_late: bool,
    /// A POST whose answer waits until its commands are carried out.
    pub posted: Option<ReplyTo>,
    pub is_closed: bool,
    shared: Rc<SocketShared>,
}

impl Connection {
    pub(super) fn new(id: EngineId, sid: Sid, place: Place, now_ms: u64, shared: Rc<SocketShared>) -> Self {
        Self {
            id,
            sid,
            inbox: Inbox::default(),
            socket: None,
            polling: None,
            members: Vec::new(),
            place,
            token: None,
            credential: None,
            has_connected: false,
            connects: TokenBucket::new(now_ms),
            pinged_ms: None,
            may_post_late: false,
            posted: None,
            is_closed: false,
            shared,
        }
    }

    /// Reports whether the client is not read because its commands wait.
    pub(in crate::transport) fn is_paused(&self) -> bool {
        self.members.iter().any(|member| member.is_paused)
    }

    /// Writes a frame to the WebSocket, or queues it for the next poll.
    ///
    /// # Errors
    /// Every variant of [`SendError`].
    pub(in crate::transport) fn send(&mut self, frame: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        if frame.is_empty() {
            return Ok(());
        }
        match (&mut self.polling, &mut self.socket) {
            (Some(polling), _) => {
                let was_empty = polling.queue.is_empty();
                polling.push(frame.clone(), kind, now_ms, &self.shared.outbox)?;
                if was_empty {
                    self.shared.polls_due.borrow_mut().push(self.id);
                    // A client that does not poll is looked after like one that does not read.
                    self.shared.stalled.borrow_mut().push(SocketId::of_engine(self.id));
                }
                Ok(())
            }
            (None, Some(socket)) => socket.send(frame, kind, now_ms),
            (None, None) => Err(SendError::Gone),
        }
    }

    /// Writes two frames as one.
    ///
    /// # Errors
    /// Every variant of [`SendError`].
    pub(super) fn send_behind(
        &mut self,
        first: &Frame,
        second: &Frame,
        kind: FrameKind,
        now_ms: u64,
    ) -> Result<(), SendError> {
        if let (None, Some(socket)) = (&self.polling, &mut self.socket) {
            return socket.send_behind(first, second, kind, now_ms);
        }
        self.send(first, kind, now_ms)?;
        // A reply: one that is begun is completed, whatever waits.
        self.send(second, FrameKind::Reply, now_ms)
    }

    /// The bytes that wait to be written.
    pub(super) fn backlog_bytes(&self) -> usize {
        let polled = self.polling.as_ref().map(|polling| polling.bytes);
        let written = || self.socket.as_ref().map(Socket::backlog_bytes);
        polled.or_else(written).unwrap_or_default()
    }

    /// Answers the poll that waits, if there are packets for it. What is queued may be of a room, and goes only where the lease
    /// holds; a ping goes always.
    pub(in crate::transport) fn answer_poll(&mut self, may_deliver: bool) -> Polled {
        let Some(polling) = &mut self.polling else {
            return Polled::Done;
        };
        polling.answer(may_deliver);
        if polling.is_aborted {
            Polled::Gone
        } else if may_deliver || polling.queue.is_empty() {
            Polled::Done
        } else {
            Polled::Withheld
        }
    }

    /// Writes a ping, or lets the next answer to a poll have it.
    ///
    /// # Errors
    /// Every variant of [`SendError`].
    pub(in crate::transport) fn ping(&mut self, now_ms: u64) -> Result<(), SendError> {
        let Some(polling) = &mut self.polling else {
            return self.send(&text_frame(PING), FrameKind::Push, now_ms);
        };
        polling.owes_ping = true;
        self.shared.polls_due.borrow_mut().push(self.id);
        Ok(())
    }

    /// Ends polling: what was queued for polls goes to the WebSocket, in order.
    ///
    /// # Errors
    /// Every variant of [`SendError`].
    pub(in crate::transport) fn upgrade(&mut self, now_ms: u64) -> Result<(), SendError> {
        let (Some(mut polling), Some(socket)) = (self.polling.take(), &mut self.socket) else {
            return Err(SendError::Gone);
        };
        polling.release();
        socket.place = self.place;
        self.may_post_late = true;
        if polling.owes_ping {
            socket.send(&text_frame(PING), FrameKind::Reply, now_ms)?;
        }
        for (frame, _) in polling.queue {
            // A reply: it was bounded when it was queued, and is not refused now.
            socket.send(&frame, FrameKind::Reply, now_ms)?;
        }
        if self.is_paused() {
            self.pause_or_go_on();
        }
        Ok(())
    }

    /// The session in a namespace.
    pub(in crate::transport) fn member(&mut self, namespace: ProtocolId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.namespace == namespace)
    }

    /// Answers the requests that wait, as the connection ends.
    pub(in crate::transport) fn end_polling(&mut self, reason: CloseReason) {
        if let Some(polling) = &mut self.polling {
            // A close packet keeps some clients away for good; after an error all come back.
            polling.reply(if reason.may_reconnect() || reason == CloseReason::TokenExpired {
                Reply::Gone
            } else {
                Reply::Body(Bytes::from_static(b"1"))
            });
        }
        if let Some(posted) = self.posted.take() {
            // The client may have given up.
            let _ = posted.send(Reply::Gone);
        }
    }

    /// The age of the oldest frame that waits to be written.
    pub(in crate::transport) fn oldest_age(&self, now_ms: u64) -> Option<Duration> {
        match (&self.polling, &self.socket) {
            (Some(polling), _) => {
                let (_, since_ms) = polling.queue.front()?;
                Some(Duration::from_millis(now_ms.saturating_sub(*since_ms)))
            }
            (None, Some(socket)) if !socket.outbox().is_empty() => Some(socket.outbox().age(now_ms)),
            (None, _) => None,
        }
    }

    /// Takes a session out, which ends a pause of the connection that was for its commands.
    pub(in crate::transport) fn remove_member(&mut self, is_it: impl Fn(&Member) -> bool) -> Option<Member> {
        let index = self.members.iter().position(is_it)?;
        let removed = self.members.remove(index);
        if removed.is_paused {
            self.pause_or_go_on();
        }
        Some(removed)
    }

    pub(super) fn pause(&mut self, namespace: ProtocolId, paused: bool) {
        if let Some(member) = self.member(namespace) {
            member.is_paused = paused;
            self.pause_or_go_on();
        }
    }

    /// Reads the client, or does not, and answers the request whose commands have waited.
    fn pause_or_go_on(&mut self) {
        let is_paused = self.is_paused();
        // A WebSocket that is only probed brings no commands.
        if let (Some(socket), None) = (&mut self.socket, &self.polling) {
            socket.pause(is_paused);
        }
        if !is_paused && let Some(posted) = self.posted.take() {
            // The client may have given up.
            let _ = posted.send(Reply::Body(Bytes::from_static(b"ok")));
        }
    }
}
