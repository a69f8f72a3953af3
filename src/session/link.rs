//! What a session needs of the connection it speaks over.

use super::{Frame, ProtocolId};

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer reads too slowly: the outbox is full.
    #[error("the outbox is full")]
    Overflow,
    /// The connection is broken.
    #[error("the connection is gone")]
    Gone,
}

/// Which bound a frame counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What goes on by itself: counts against the outbox's bound.
    Live,
    /// What the client asked for, bounded by the answer's own limit, and by commands not being carried out while much is
    /// queued: raises the bound by its size until the outbox is empty again.
    Answer,
}

/// One connection, as its session sees it: a socket, a pending poll, a stream of events.
pub trait Link: 'static {
    /// What the client speaks.
    fn protocol(&self) -> ProtocolId;

    /// Sends a frame, or queues it behind what is queued already.
    ///
    /// # Errors
    /// Every variant of [`SendError`]; the connection is of no further use then.
    fn send(&mut self, frame: &Frame, kind: Kind, now_ms: u64) -> Result<(), SendError>;

    /// The bytes that are queued.
    fn backlog_bytes(&self) -> usize;

    /// Reports whether the client never sends: its silence is no sign of its end, which the kernel has to notice.
    fn is_one_way(&self) -> bool {
        false
    }

    /// Stops or goes on reading commands. Control frames may wait meanwhile, too.
    fn pause(&mut self, paused: bool);
}
