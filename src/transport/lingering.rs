//! Connections whose session has ended: what is left to say is said, then they are let go.
//!
//! A close frame that is followed at once by the end of the connection may be lost: the kernel resets a connection that
//! still has unread input. So the sending side is shut down first, and the rest of the input is read away until the peer
//! has ended too, or for a bounded time.
//!
//! A peer that does not read cannot be told anything before it takes up again. It is waited for longer, with nothing held
//! for it but the rest of the frame it has the beginning of, and the close frame.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry};
use slab::Slab;

use super::carrier::close_answer;
use super::outbox::Outbox;
use super::protocol::Protocol;
use super::socket::{Socket, SocketId};
use crate::error::CloseReason;

/// The most ended connections that are given time to go.
const LINGERING_MAX: usize = 4096;

/// The time a peer has to close after the farewell, in milliseconds.
const LINGER_MS: u64 = 3_000;

/// The time a slow reader has to read the close frame, in milliseconds. Half of the places are for such
/// peers; beyond, they get no more time than others.
const UNREAD_MS: u64 = 30_000;

/// The connections of a shard that are on their way out.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    ends: Slab<End>,
}

impl Lingering {
    /// Takes over a socket whose session has ended, and tells its peer why, if it is still there. `why` is a backend's reason;
    /// empty for none.
    pub(super) fn see_off(
        &mut self,
        mut link: Socket,
        (reason, why): (CloseReason, &str),
        protocol: &dyn Protocol,
        registry: &Registry,
        buffer: &mut [u8],
        now_ms: u64,
    ) {
        let farewell = match (reason, link.peer_close.take()) {
            (CloseReason::ClientLeft, None) => return,
            (CloseReason::ClientLeft, Some(close)) => close_answer(close),
            (reason, _) if why.is_empty() => protocol.farewell(reason, reason.as_str()),
            (reason, _) => protocol.farewell(reason, why),
        };
        if self.ends.len() >= LINGERING_MAX {
            return;
        }
        let patience_ms = if self.ends.len() < LINGERING_MAX / 2 {
            UNREAD_MS
        } else {
            LINGER_MS
        };
        let (mut stream, mut outbox) = link.into_parts();
        outbox.end_with(farewell, now_ms);
        let entry = self.ends.vacant_entry();
        let id = SocketId {
            key: u32::try_from(entry.key()).expect("few connections linger"),
            serial: SocketId::LINGERING_SERIAL,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.reregister(&mut stream, id.token(), interest).is_ok() {
            entry.insert(End::new(stream, outbox, now_ms + patience_ms));
            self.advance(id.key, buffer, now_ms);
        }
    }

    /// Goes on with one, by the key of its [`SocketId`].
    pub(super) fn advance(&mut self, key: u32, buffer: &mut [u8], now_ms: u64) {
        let index = key as usize;
        if self.ends.get_mut(index).is_some_and(|end| end.advance(buffer, now_ms)) {
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
    const fn new(stream: TcpStream, outbox: Outbox, ends_ms: u64) -> Self {
        Self {
            stream,
            outbox,
            ends_ms,
            shut: false,
        }
    }

    const fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.ends_ms
    }

    /// Goes on with it; answers whether it is done.
    fn advance(&mut self, buffer: &mut [u8], now_ms: u64) -> bool {
        let stream = &mut self.stream;
        if !self.shut {
            match self.outbox.flush(|slices| stream.write_vectored(slices)) {
                Ok(true) => {}
                Ok(false) => return self.read_away(buffer),
                Err(_) => return true,
            }
            self.shut = true;
            self.ends_ms = now_ms + LINGER_MS;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Frame;
    use crate::session::link::FrameKind;
    use crate::transport::outbox;

    /// A connection whose peer has not read anything: its kernel takes no more, and a frame is half written.
    fn unread() -> (std::net::TcpStream, End, Vec<u8>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        let (mut outbox, config, frame) = (
            Outbox::default(),
            outbox::Config::default(),
            Frame::from(vec![7; 100_000]),
        );
        let mut sent = 0;
        while outbox.is_empty() {
            outbox
                .offer(&frame, FrameKind::Push, 0, &config, |bytes| stream.write(bytes))
                .unwrap();
            sent += frame.len();
        }
        let farewell = super::super::websocket::frame::close(4002, "slow_consumer");
        let mut expected = vec![7; sent];
        expected.extend_from_slice(&farewell);
        outbox.end_with(farewell, 0);
        (peer, End::new(stream, outbox, UNREAD_MS), expected)
    }

    #[test]
    fn a_peer_that_reads_again_reads_the_close_frame_behind_whole_frames() {
        let (mut peer, mut end, expected) = unread();
        let mut buffer = vec![0; 64 << 10];
        // Much later, but within its time.
        assert!(!end.advance(&mut buffer, 29_000) && !end.is_over(29_000));
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).unwrap();
            read
        });
        while !end.shut {
            assert!(!end.advance(&mut buffer, 29_000));
            std::thread::yield_now();
        }
        assert_eq!(reading.join().unwrap().len(), expected.len());
        // It was told; now it has as long as everybody to go.
        assert!(!end.is_over(31_999) && end.is_over(32_000));
    }

    #[test]
    fn a_peer_that_never_reads_is_let_go_after_its_time() {
        let (_peer, mut end, _) = unread();
        assert!(!end.advance(&mut vec![0; 1024], 29_999) && !end.is_over(29_999));
        assert!(end.is_over(30_000));
    }
}
