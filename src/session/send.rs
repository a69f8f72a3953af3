//! Writing to a client, in the encoding of its connection.

use std::sync::Arc;

use super::link::{Kind, Link, SendError};
use super::sessions::Sessions;
use super::{Encoder, Frame, Message, Refusal};
use crate::error::CloseReason;
use crate::hub::local::Key;

impl<L: Link> Sessions<L> {
    /// Sends a reply (or a push, with `id` 0) that its sender asked for.
    pub(super) fn answer(&mut self, key: Key, id: u32, message: &Message) {
        if let Some(frame) = self.encode(key, id, message) {
            self.send(key, &frame, Kind::Answer);
        }
    }

    /// Sends a push that nobody asked for.
    pub(super) fn push(&mut self, key: Key, message: &Message) {
        if let Some(frame) = self.encode(key, 0, message) {
            self.send(key, &frame, Kind::Live);
        }
    }

    pub(super) fn refuse(&mut self, key: Key, id: u32, refusal: Refusal) {
        self.answer(key, id, &Message::Error(refusal));
    }

    pub(super) fn encoder(&self, key: Key) -> Option<Arc<dyn Encoder>> {
        let conn = self.conns.get(key as usize)?;
        Some(Arc::clone(&self.services.encoders[conn.link.protocol().index()]))
    }

    pub(super) fn send(&mut self, key: Key, frame: &Frame, kind: Kind) {
        self.send_at(self.now_ms(), key, frame, kind);
    }

    /// The same, for many at once that share one look at the clock.
    pub(super) fn send_at(&mut self, now_ms: u64, key: Key, frame: &Frame, kind: Kind) {
        let Some(conn) = self.conns.get_mut(key as usize) else {
            return;
        };
        if conn.session.is_doomed() {
            return;
        }
        match conn.link.send(frame, kind, now_ms) {
            Ok(()) => {}
            Err(SendError::Overflow) => self.doom(key, CloseReason::SlowConsumer),
            Err(SendError::Gone) => self.doom(key, CloseReason::ClientLeft),
        }
    }

    fn encode(&self, key: Key, id: u32, message: &Message) -> Option<Frame> {
        self.encoder(key).map(|encoder| encoder.message(id, message))
    }
}
