//! The port of a connection, as its session sees it.

use super::recovery::Recovery;
use super::{Cursor, Frame, ProtocolId};

/// Reason why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer reads too slowly: the outbox is full.
    #[error("the outbox is full")]
    Overflow,
    /// The connection is broken.
    #[error("the connection is gone")]
    Gone,
}

/// The bound a frame counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A push: counts against the outbox's bound.
    Push,
    /// A reply: raises the bound by its size until the outbox is empty again. Reply sizes are bounded, and commands pause
    /// while the outbox is deep.
    Reply,
}

/// One connection, as its session sees it: a socket, a pending poll, a stream of events.
pub trait Link: 'static {
    /// The protocol the client speaks.
    fn protocol(&self) -> ProtocolId;

    /// Sends a frame, or queues it behind what is queued already.
    ///
    /// # Errors
    /// Every variant of [`SendError`]; the connection is of no further use then.
    fn send(&mut self, frame: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError>;

    /// Sends two frames as one: both are taken or neither, and a connection that is closed between the two still gets the
    /// second.
    ///
    /// # Errors
    /// As [`Self::send`].
    fn send_behind(&mut self, own: &Frame, shared: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        self.send(own, kind, now_ms)?;
        self.send(shared, kind, now_ms)
    }

    /// The cursor of the connection, in a protocol that keeps one.
    fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        None
    }

    /// The recovery of the session, in a protocol whose clients come back to it. Its cursor is [`Self::cursor_mut`].
    fn recovery_mut(&mut self) -> Option<&mut Recovery> {
        None
    }

    /// The number of queued bytes.
    fn backlog_bytes(&self) -> usize;

    /// Reports whether the client never sends: its silence is no sign of its end, which the kernel has to notice.
    fn is_one_way(&self) -> bool {
        false
    }

    /// Reports whether the connection itself asks its client for signs of life: its sessions need not.
    fn is_supervised(&self) -> bool {
        false
    }

    /// Stops or goes on reading commands. Control frames may wait meanwhile, too.
    fn pause(&mut self, paused: bool);
}
