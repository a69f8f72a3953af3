//! Connections whose session has ended: what is left to say is said, then they are let go.
//!
//! A close frame that is followed at once by the end of the connection may be lost: the kernel resets a connection that
//! still has unread input. So the sending side is shut down first, and the rest of the input is read away until the peer
//! has ended too, or for a bounded time.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use slab::Slab;

use super::socket::{Socket, SocketId};
use super::websocket::frame::{self, CloseFrame};
use crate::error::CloseReason;
use crate::session::Closed;
use crate::session::outbox::Outbox;

/// The most ended connections that are given time to go.
const LINGERING_MAX: usize = 4096;

/// Marks the tokens of ended connections.
pub(super) const LINGERING_SERIAL: u32 = u32::MAX;

/// How long an ended connection may take to go, in milliseconds.
const LINGER_MS: u64 = 3_000;

/// The connections of a shard that are on their way out.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    ends: Slab<End>,
}

impl Lingering {
    /// Takes over a connection whose session has ended, and tells its peer why, if it is still there.
    pub(super) fn see_off(&mut self, closed: Closed<Socket>, registry: &Registry, buffer: &mut [u8], now_ms: u64) {
        let Closed {
            mut link, reason, why, ..
        } = closed;
        let farewell = match (reason, link.peer_close.take()) {
            (CloseReason::ClientLeft, None) => return,
            (CloseReason::ClientLeft, Some(CloseFrame { code: None })) => frame::close_without_code(),
            (CloseReason::ClientLeft, Some(CloseFrame { code: Some(code) })) => frame::close(code, ""),
            (reason, _) if why.is_empty() => frame::close(reason.code(), reason.as_str()),
            (reason, _) => frame::close(reason.code(), &why),
        };
        if self.ends.len() >= LINGERING_MAX {
            return;
        }
        let (mut stream, mut outbox) = link.into_parts();
        outbox.end_with(farewell, now_ms);
        let entry = self.ends.vacant_entry();
        let id = SocketId {
            key: u32::try_from(entry.key()).expect("few connections linger"),
            serial: LINGERING_SERIAL,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.reregister(&mut stream, id.token(), interest).is_ok() {
            entry.insert(End::new(stream, outbox, now_ms));
            self.advance(id.key, buffer);
        }
    }

    /// Goes on with one, by the key of its [`SocketId`].
    pub(super) fn advance(&mut self, key: u32, buffer: &mut [u8]) {
        let index = key as usize;
        if self.ends.get_mut(index).is_some_and(|end| end.advance(buffer)) {
            self.ends.remove(index);
        }
    }

    /// Lets those go whose time is over.
    pub(super) fn end_overdue(&mut self, now_ms: u64) {
        self.ends.retain(|_, end| !end.is_over(now_ms));
        if self.ends.is_empty() {
            self.ends.shrink_to_fit();
        }
    }
}

/// One connection on its way out.
#[derive(Debug)]
struct End {
    stream: TcpStream,
    outbox: Outbox,
    ends_ms: u64,
    shut: bool,
}

impl End {
    /// Takes over what is left of a connection, its close frame included.
    const fn new(stream: TcpStream, outbox: Outbox, now_ms: u64) -> Self {
        Self {
            stream,
            outbox,
            ends_ms: now_ms + LINGER_MS,
            shut: false,
        }
    }

    const fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.ends_ms
    }

    /// Goes on with it; answers whether it is done.
    fn advance(&mut self, buffer: &mut [u8]) -> bool {
        let stream = &mut self.stream;
        if !self.shut {
            match self.outbox.flush(|slices| stream.write_vectored(slices)) {
                Ok(true) => {}
                Ok(false) => return self.read_away(buffer),
                Err(_) => return true,
            }
            self.shut = true;
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return true;
            }
        }
        self.read_away(buffer)
    }

    fn read_away(&mut self, buffer: &mut [u8]) -> bool {
        // Bounded: a peer that goes on sending does not keep the shard.
        for _ in 0..16 {
            match self.stream.read(buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }
}
