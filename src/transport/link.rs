//! The link of a session: a socket of its own, or a share of a connection.

use super::socket::{Socket, SocketId};
use super::socketio::Channel;
use crate::session::link::{FrameKind, Link, SendError};
use crate::session::recovery::Recovery;
use crate::session::{Cursor, Frame, ProtocolId};

/// The connection of a session.
#[derive(Debug)]
pub(super) enum ClientLink {
    /// A socket that is this session's alone.
    Socket(Socket),
    /// A namespace of a Socket.IO connection.
    Channel(Channel),
}

impl ClientLink {
    pub(super) const fn socket(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Socket(socket) => Some(socket),
            Self::Channel(_) => None,
        }
    }

    pub(super) const fn socket_id(&self) -> Option<SocketId> {
        match self {
            Self::Socket(socket) => Some(socket.id),
            Self::Channel(_) => None,
        }
    }
}

impl Link for ClientLink {
    fn protocol(&self) -> ProtocolId {
        match self {
            Self::Socket(socket) => socket.protocol(),
            Self::Channel(channel) => channel.protocol(),
        }
    }

    fn send(&mut self, frame: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        match self {
            Self::Socket(socket) => socket.send(frame, kind, now_ms),
            Self::Channel(channel) => channel.send(frame, kind, now_ms),
        }
    }

    fn send_behind(&mut self, own: &Frame, shared: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        match self {
            Self::Socket(socket) => socket.send_behind(own, shared, kind, now_ms),
            Self::Channel(channel) => channel.send_behind(own, shared, kind, now_ms),
        }
    }

    fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        match self {
            Self::Socket(socket) => socket.cursor_mut(),
            Self::Channel(channel) => channel.cursor_mut(),
        }
    }

    fn recovery_mut(&mut self) -> Option<&mut Recovery> {
        match self {
            Self::Socket(socket) => socket.recovery_mut(),
            Self::Channel(channel) => channel.recovery_mut(),
        }
    }

    fn backlog_bytes(&self) -> usize {
        match self {
            Self::Socket(socket) => socket.backlog_bytes(),
            Self::Channel(channel) => channel.backlog_bytes(),
        }
    }

    fn is_one_way(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.is_one_way(),
            Self::Channel(channel) => channel.is_one_way(),
        }
    }

    fn is_supervised(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.is_supervised(),
            Self::Channel(channel) => channel.is_supervised(),
        }
    }

    fn pause(&mut self, paused: bool) {
        match self {
            Self::Socket(socket) => socket.pause(paused),
            Self::Channel(channel) => channel.pause(paused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_kind_of_link_costs_the_first_no_memory() {
        assert_eq!(size_of::<ClientLink>(), size_of::<Socket>());
    }
}
