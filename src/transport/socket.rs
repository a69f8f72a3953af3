//! One connection: its descriptor, its carrier and its outbox. The link of a session.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use mio::net::TcpStream;

use super::carrier::{Carrier, Limits};
use super::outbox::{self, Outbox};
use super::socketio::EngineId;
use super::websocket::frame::{self, CloseFrame};
use crate::admission::Place;
use crate::error::CloseReason;
use crate::session::link::{FrameKind, Link, SendError};
use crate::session::{Cursor, Frame, ProtocolId};

/// State that the sockets of a shard share.
#[derive(Debug)]
pub(super) struct SocketShared {
    pub outbox: outbox::Config,
    pub frames: Limits,
    /// The most control frames a client may send within a second.
    pub control_frames_per_second_max: u32,
    /// Sockets that have begun to queue since the shard last looked.
    pub stalled: RefCell<Vec<SocketId>>,
    /// Sockets that may be read again without a new sign from the kernel.
    pub again: RefCell<Vec<SocketId>>,
    /// Connections of Socket.IO that have begun to queue frames for polls since the shard last looked.
    pub polls_due: RefCell<Vec<EngineId>>,
}

/// Names a socket for as long as it lives: its session's slot and the shard's running number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketId {
    pub key: u32,
    pub serial: u32,
}

impl SocketId {
    /// Marks connections that are on their way out.
    pub(super) const LINGERING_SERIAL: u32 = u32::MAX;

    /// Marks the WebSockets of Socket.IO.
    pub(super) const ENGINE_SERIAL: u32 = u32::MAX - 1;

    pub(super) fn token(self) -> mio::Token {
        mio::Token((self.serial as usize) << 32 | self.key as usize)
    }

    /// Reports whether it names the WebSocket of a Socket.IO connection.
    pub(super) const fn is_engine(self) -> bool {
        self.serial == Self::ENGINE_SERIAL
    }

    /// Names the WebSocket of a Socket.IO connection, whose slot is one among those.
    pub(super) const fn of_engine(id: EngineId) -> Self {
        Self {
            key: id.key,
            serial: Self::ENGINE_SERIAL,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes apart what `token` has put together"
    )]
    pub(super) const fn of(token: mio::Token) -> Self {
        Self {
            key: token.0 as u32,
            serial: (token.0 >> 32) as u32,
        }
    }
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// So many bytes; there may be more.
    Bytes(usize),
    /// So many bytes, and no more for now.
    Last(usize),
    /// Nothing for now.
    Nothing,
    /// The peer has ended its side, or the connection is broken.
    End,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub id: SocketId,
    pub carrier: Carrier,
    pub protocol: ProtocolId,
    stream: TcpStream,
    outbox: Outbox,
    shared: Rc<SocketShared>,
    pub place: Place,
    paused: bool,
    /// Control frames within one second, by the low bits of the shard's clock.
    control: (u16, u16),
    /// The peer's close frame, to be answered.
    pub peer_close: Option<CloseFrame>,
}

impl Socket {
    pub(super) fn new(
        id: SocketId,
        stream: TcpStream,
        (protocol, carrier): (ProtocolId, Carrier),
        place: Place,
        shared: Rc<SocketShared>,
    ) -> Self {
        Self {
            id,
            carrier,
            protocol,
            stream,
            outbox: Outbox::default(),
            shared,
            place,
            paused: false,
            control: (0, 0),
            peer_close: None,
        }
    }

    pub(super) const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Reads what the kernel has. Nothing while the session is paused.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        if self.paused {
            return ReadOutcome::Nothing;
        }
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => ReadOutcome::End,
                Ok(count) if count == buffer.len() => ReadOutcome::Bytes(count),
                Ok(count) => ReadOutcome::Last(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => ReadOutcome::End,
            };
        }
    }

    /// Writes what waits; answers whether the connection still works.
    pub(super) fn flush(&mut self) -> bool {
        let stream = &mut self.stream;
        self.outbox.is_empty() || self.outbox.flush(|slices| stream.write_vectored(slices)).is_ok()
    }

    /// Takes a control frame of the client, a ping with its payload.
    ///
    /// # Errors
    /// Why the connection has to be closed: too many within a second, or it is broken.
    pub(super) fn control_frame(&mut self, ping: Option<&[u8]>, now_ms: u64) -> Result<(), CloseReason> {
        let second = u16::try_from(now_ms / 1000 % 65_536).expect("a remainder of 65,536");
        if self.is_flooded(second) {
            return Err(CloseReason::Flooding);
        }
        // A peer that does not read gets no pongs on top: one per flush is enough of an answer (RFC 6455, 5.5.3).
        let Some(payload) = ping.filter(|_| self.outbox.is_empty()) else {
            return Ok(());
        };
        let sent = self.send(&frame::pong(payload), FrameKind::Push, now_ms);
        sent.map_err(|_| CloseReason::ClientLeft)
    }

    /// Counts a control frame of the client; answers whether it is one too many.
    fn is_flooded(&mut self, second: u16) -> bool {
        if self.control.0 != second {
            self.control = (second, 0);
        }
        self.control.1 = self.control.1.saturating_add(1);
        u32::from(self.control.1) > self.shared.control_frames_per_second_max
    }

    /// Gives up the session's side: what is to be written before the end.
    pub(super) fn into_parts(self) -> (TcpStream, Outbox) {
        (self.stream, self.outbox)
    }
}

impl Link for Socket {
    fn protocol(&self) -> ProtocolId {
        self.protocol
    }

    fn send(&mut self, frame: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        let (stream, was_clear) = (&mut self.stream, self.outbox.is_empty());
        self.outbox
            .offer(frame, kind, now_ms, &self.shared.outbox, |bytes| stream.write(bytes))?;
        if was_clear && !self.outbox.is_empty() {
            self.shared.stalled.borrow_mut().push(self.id);
        }
        Ok(())
    }

    fn send_behind(&mut self, own: &Frame, shared: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        let (stream, was_clear) = (&mut self.stream, self.outbox.is_empty());
        let (when, config) = ((kind, now_ms), &self.shared.outbox);
        self.outbox
            .offer_behind(own, shared, when, config, |slices| stream.write_vectored(slices))?;
        if was_clear && !self.outbox.is_empty() {
            self.shared.stalled.borrow_mut().push(self.id);
        }
        Ok(())
    }

    fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        self.carrier.cursor_mut()
    }

    fn backlog_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    fn is_one_way(&self) -> bool {
        self.carrier.is_one_way()
    }

    fn pause(&mut self, paused: bool) {
        self.paused = paused;
        if paused {
            self.carrier.stop_clock();
        } else {
            // What came meanwhile has been signalled already.
            self.shared.again.borrow_mut().push(self.id);
        }
    }
}
