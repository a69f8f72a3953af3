//! A share of a connection: the link of a session in one namespace.

use std::cell::RefCell;
use std::rc::Rc;

use super::connection::{Connection, EngineId};
use super::inbox::Namespaces;
use crate::session::link::{FrameKind, Link, SendError};
use crate::session::recovery::{Claim, Recovery};
use crate::session::{Cursor, Frame, ProtocolId};
use crate::transport::websocket::frame::text_frame;

/// The link of a session that shares a connection.
#[derive(Debug)]
pub(in crate::transport) struct Channel {
    connection: Rc<RefCell<Connection>>,
    /// Set where sessions can be recovered.
    recovery: Option<Box<Recovery>>,
    namespace: ProtocolId,
}

impl Channel {
    /// The share of a namespace in a connection.
    pub(in crate::transport) const fn new(connection: Rc<RefCell<Connection>>, namespace: ProtocolId) -> Self {
        Self {
            connection,
            recovery: None,
            namespace,
        }
    }

    /// The same, of a session that can be recovered, with the claim that its client has shown.
    pub(in crate::transport) fn recoverable(self, claim: Option<Claim>) -> Self {
        let recovery = Recovery {
            claim: claim.map(Box::new),
            ..Recovery::default()
        };
        Self {
            recovery: Some(Box::new(recovery)),
            ..self
        }
    }

    pub(in crate::transport) fn connection(&self) -> EngineId {
        self.connection.borrow().id
    }

    /// The packet that ends the session and leaves the connection.
    pub(in crate::transport) fn disconnect_packet(&self, namespaces: &Namespaces) -> Frame {
        text_frame(&format!("41{}", namespaces.mark(self.namespace)))
    }
}

impl Link for Channel {
    fn protocol(&self) -> ProtocolId {
        self.namespace
    }

    fn send(&mut self, frame: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        self.connection.borrow_mut().send(frame, kind, now_ms)
    }

    fn send_behind(&mut self, own: &Frame, shared: &Frame, kind: FrameKind, now_ms: u64) -> Result<(), SendError> {
        self.connection.borrow_mut().send_behind(own, shared, kind, now_ms)
    }

    fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        self.recovery.as_mut().map(|recovery| &mut recovery.cursor)
    }

    fn recovery_mut(&mut self) -> Option<&mut Recovery> {
        self.recovery.as_deref_mut()
    }

    fn backlog_bytes(&self) -> usize {
        self.connection.borrow().backlog_bytes()
    }

    /// The connection is pinged, whatever its sessions do.
    fn is_supervised(&self) -> bool {
        true
    }

    fn pause(&mut self, paused: bool) {
        self.connection.borrow_mut().pause(self.namespace, paused);
    }
}
