//! What a socket would not take yet: shared bytes, in order, without a bound. Nothing may be lost in a measurement.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Write},
    rc::Rc,
};

/// Pieces given to one `writev()`.
const PIECES_MAX: usize = 64;

/// The bytes that wait for one socket.
#[derive(Debug, Default)]
pub struct Backlog {
    pieces: VecDeque<Rc<[u8]>>,
    /// How much of the first piece was written already.
    written: usize,
}

impl Backlog {
    /// Nothing but the end of one piece, of which `written` bytes left already.
    pub fn of(piece: Rc<[u8]>, written: usize) -> Self {
        Self {
            pieces: VecDeque::from([piece]),
            written,
        }
    }

    pub fn push(&mut self, piece: Rc<[u8]>) {
        self.pieces.push_back(piece);
    }

    /// Writes until all is gone, which is true, or until the writer would block.
    pub fn drain(&mut self, mut to: impl Write) -> io::Result<bool> {
        while let Some(first) = self.pieces.front() {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            slices[0] = IoSlice::new(&first[self.written..]);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces).skip(1) {
                *slice = IoSlice::new(piece);
            }
            let count = self.pieces.len().min(PIECES_MAX);
            match to.write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(first) = self.pieces.front()
            && self.written >= first.len()
        {
            self.written -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, then blocks.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room).min(3);
            if taken == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= taken;
            self.taken.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_blocked_leaves_later_whole_and_in_order() {
        let mut backlog = Backlog::of(Rc::from(*b"--one"), 2);
        backlog.push(Rc::from(*b"two"));
        backlog.push(Rc::from(*b"three"));
        let mut to = Narrow {
            taken: Vec::new(),
            room: 4,
        };
        assert!(!backlog.drain(&mut to).unwrap());
        assert_eq!(to.taken, b"onet");
        to.room = 100;
        assert!(backlog.drain(&mut to).unwrap());
        assert_eq!(to.taken, b"onetwothree");
    }
}
