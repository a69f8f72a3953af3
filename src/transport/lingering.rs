//! Connections whose session has ended: what is left to say is said, then they are let go.
//!
//! A close frame that is followed at once by the end of the connection may be lost: the kernel resets a connection that
//! still has unread input. So the sending side is shut down first, and the rest of the input is read away until the peer
//! has ended too, or for a bounded time.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::session::outbox::Outbox;

/// How long an ended connection may take to go, in milliseconds.
const LINGER_MS: u64 = 3_000;

/// One connection on its way out.
#[derive(Debug)]
pub(super) struct Lingering {
    stream: TcpStream,
    outbox: Outbox,
    ends_ms: u64,
    shut: bool,
}

impl Lingering {
    /// Takes over what is left of a connection, its close frame included.
    pub(super) const fn new(stream: TcpStream, outbox: Outbox, now_ms: u64) -> Self {
        Self {
            stream,
            outbox,
            ends_ms: now_ms + LINGER_MS,
            shut: false,
        }
    }

    pub(super) const fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.ends_ms
    }

    /// Goes on with it; answers whether it is done.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> bool {
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
