//! A connection's outbox: frames that the socket does not take yet.
//!
//! Empty, it is one pointer. A frame is written straight to the socket when nothing is queued; otherwise its shared
//! handle is queued, in order. Bounded by bytes and by the age of the oldest frame; never thinned.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Buf;

use crate::session::Frame;
use crate::session::link::{FrameKind, SendError};

/// The bounds of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The most bytes that wait. One frame may wait whatever its size.
    pub outbox_bytes_max: usize,
    /// The longest a frame waits before the peer counts as too slow.
    pub outbox_age_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            outbox_bytes_max: 1 << 20,
            outbox_age_max: Duration::from_secs(10),
        }
    }
}

/// A frame that waits.
#[derive(Debug)]
struct Queued {
    frame: Frame,
    since_ms: u64,
    /// The next frame belongs to this one: it is as good as begun once this one is.
    leads: bool,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Queued>,
    bytes: usize,
    allowance: usize,
    /// Part of the first frame, or the one that leads it, has been written: the rest has to follow.
    begun: bool,
}

/// The most frames that one vectored write takes.
const SLICES: usize = 64;

/// The frames queued for one socket.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Queue>>);

impl Outbox {
    /// Reports whether nothing is queued.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Returns the age of the oldest frame.
    #[must_use]
    pub fn age(&self, now_ms: u64) -> Duration {
        let oldest = self.0.as_ref().and_then(|queue| queue.frames.front());
        oldest.map_or(Duration::ZERO, |queued| {
            Duration::from_millis(now_ms.saturating_sub(queued.since_ms))
        })
    }

    /// Writes a frame, or queues what the socket does not take.
    ///
    /// # Errors
    /// [`SendError::Overflow`] when the bound is reached, [`SendError::Gone`] when `write` fails.
    pub fn offer(
        &mut self,
        frame: &Frame,
        kind: FrameKind,
        now_ms: u64,
        config: &Config,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> Result<(), SendError> {
        let mut written = 0;
        if self.is_empty() {
            match write(frame) {
                Ok(count) if count == frame.len() => return Ok(()),
                Ok(count) => written = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(SendError::Gone),
            }
        }
        let rest = frame.slice(written..);
        let queue = self.0.get_or_insert_default();
        queue.reserve(rest.len(), kind, config)?;
        queue.begun |= written > 0;
        queue.push(rest, now_ms, false);
        Ok(())
    }

    /// Writes two frames as one, or queues what the socket does not take. Nothing ever comes between them, and the farewell
    /// drops both or neither.
    ///
    /// # Errors
    /// As [`Self::offer`].
    pub fn offer_behind(
        &mut self,
        own: &Frame,
        shared: &Frame,
        (kind, now_ms): (FrameKind, u64),
        config: &Config,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Result<(), SendError> {
        let (bytes, mut written) = (own.len() + shared.len(), 0);
        if self.is_empty() {
            match write(&[IoSlice::new(own), IoSlice::new(shared)]) {
                Ok(count) if count == bytes => return Ok(()),
                Ok(count) => written = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(SendError::Gone),
            }
        }
        let queue = self.0.get_or_insert_default();
        queue.reserve(bytes - written, kind, config)?;
        queue.begun |= written > 0;
        let of_shared = written.saturating_sub(own.len());
        if written < own.len() {
            queue.push(own.slice(written..), now_ms, true);
        }
        queue.push(shared.slice(of_shared..), now_ms, false);
        Ok(())
    }

    /// Lets go of everything but the rest of a frame of which a part was written, and ends with `farewell`.
    pub fn end_with(&mut self, farewell: Frame, now_ms: u64) {
        let queue = self.0.get_or_insert_default();
        let leads = queue.frames.front().is_some_and(|front| front.leads);
        let kept = if queue.begun { 1 + usize::from(leads) } else { 0 };
        queue.frames.truncate(kept);
        queue.bytes = queue.frames.iter().map(|queued| queued.frame.len()).sum();
        queue.push(farewell, now_ms, false);
    }

    /// Writes what waits until the socket takes no more; answers whether nothing waits any longer.
    ///
    /// # Errors
    /// What `write` failed with, other than that it would block.
    pub fn flush(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<bool> {
        while let Some(queue) = &mut self.0 {
            let slices: Vec<IoSlice<'_>> = queue
                .frames
                .iter()
                .take(SLICES)
                .map(|queued| IoSlice::new(&queued.frame))
                .collect();
            match write(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => queue.written(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if queue.frames.is_empty() {
                self.0 = None;
            }
        }
        Ok(true)
    }
}

impl Queue {
    /// Takes so many bytes into account.
    fn reserve(&mut self, bytes: usize, kind: FrameKind, config: &Config) -> Result<(), SendError> {
        if kind == FrameKind::Reply {
            self.allowance += bytes;
        } else if !self.frames.is_empty() && self.bytes + bytes > config.outbox_bytes_max + self.allowance {
            return Err(SendError::Overflow);
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame, since_ms: u64, leads: bool) {
        self.bytes += frame.len();
        self.frames.push_back(Queued { frame, since_ms, leads });
    }

    fn written(&mut self, mut written: usize) {
        self.bytes -= written;
        while written > 0 {
            let front = self.frames.front_mut().expect("no more is written than was queued");
            let part = written.min(front.frame.len());
            front.frame.advance(part);
            written -= part;
            let is_whole = front.frame.is_empty();
            self.begun = !is_whole || front.leads;
            if is_whole {
                self.frames.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes `room` bytes and then would block.
    struct Socket {
        room: usize,
        taken: Vec<u8>,
    }

    impl Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let part = bytes.len().min(self.room);
            if part == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= part;
            self.taken.extend_from_slice(&bytes[..part]);
            Ok(part)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut written = 0;
            for slice in slices {
                match self.write(slice) {
                    Ok(part) => written += part,
                    Err(_) if written > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(written)
        }
    }

    #[test]
    fn an_empty_outbox_is_one_pointer() {
        assert_eq!(size_of::<Outbox>(), size_of::<usize>());
    }

    #[test]
    fn a_full_outbox_refuses_live_frames_but_not_answers() {
        let config = Config {
            outbox_bytes_max: 10,
            ..Config::default()
        };
        let (mut outbox, blocked) = (Outbox::default(), |_: &[u8]| Err(io::ErrorKind::WouldBlock.into()));
        let frame = Frame::from_static(b"12345678");
        assert_eq!(outbox.offer(&frame, FrameKind::Push, 0, &config, blocked), Ok(()));
        assert_eq!(
            outbox.offer(&frame, FrameKind::Push, 0, &config, blocked),
            Err(SendError::Overflow)
        );
        assert_eq!(outbox.offer(&frame, FrameKind::Reply, 0, &config, blocked), Ok(()));
        assert_eq!((outbox.bytes(), outbox.age(7)), (16, Duration::from_millis(7)));
    }

    #[test]
    fn the_farewell_follows_only_what_was_begun() {
        let config = Config::default();
        let (mut outbox, mut socket) = (
            Outbox::default(),
            Socket {
                room: 3,
                taken: Vec::new(),
            },
        );
        for frame in ["first", "second"] {
            let frame = Frame::from_static(frame.as_bytes());
            outbox
                .offer(&frame, FrameKind::Push, 0, &config, |bytes| socket.write(bytes))
                .unwrap();
        }
        outbox.end_with(Frame::from_static(b"bye"), 0);
        socket.room = 100;
        assert!(outbox.flush(|slices| socket.write_vectored(slices)).unwrap());
        assert_eq!(socket.taken, b"firstbye");
    }

    #[test]
    fn the_farewell_never_comes_between_two_frames_that_were_sent_as_one() {
        let (config, kind) = (Config::default(), (FrameKind::Push, 0));
        let (own, shared) = (Frame::from_static(b"id"), Frame::from_static(b"event"));
        for at_once in 0..7 {
            for later in 0..7 {
                let (mut outbox, mut socket) = (
                    Outbox::default(),
                    Socket {
                        room: at_once,
                        taken: Vec::new(),
                    },
                );
                outbox
                    .offer_behind(&own, &shared, kind, &config, |slices| socket.write_vectored(slices))
                    .unwrap();
                socket.room = later;
                outbox.flush(|slices| socket.write_vectored(slices)).unwrap();
                let is_begun = !socket.taken.is_empty();
                outbox.end_with(Frame::from_static(b"bye"), 0);
                socket.room = 100;
                assert!(outbox.flush(|slices| socket.write_vectored(slices)).unwrap());
                let expected: &[u8] = if is_begun { b"ideventbye" } else { b"bye" };
                assert_eq!(socket.taken, expected, "{at_once} and {later}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn every_byte_leaves_in_order_whatever_the_socket_takes(
            frames in proptest::collection::vec(1usize..40, 1..60),
            rooms in proptest::collection::vec(0usize..60, 1..60),
        ) {
            let config = Config { outbox_bytes_max: usize::MAX / 2, ..Config::default() };
            let (mut outbox, mut socket) = (Outbox::default(), Socket { room: 0, taken: Vec::new() });
            let (mut expected, mut rooms) = (Vec::new(), rooms.into_iter());
            for (index, len) in frames.into_iter().enumerate() {
                let frame = Frame::from(vec![u8::try_from(index).unwrap(); len]);
                expected.extend_from_slice(&frame);
                outbox.offer(&frame, FrameKind::Push, 0, &config, |bytes| socket.write(bytes)).unwrap();
                if let Some(room) = rooms.next() {
                    socket.room += room;
                    outbox.flush(|slices| socket.write_vectored(slices)).unwrap();
                }
            }
            socket.room = usize::MAX;
            proptest::prop_assert!(outbox.flush(|slices| socket.write_vectored(slices)).unwrap());
            proptest::prop_assert_eq!(socket.taken, expected);
            proptest::prop_assert!(outbox.is_empty());
        }
    }
}
