//! Writing to a client, in the encoding of its connection.

use super::{Clients, Key};
use crate::error::CloseReason;
use crate::event::Event;
use crate::session::link::{FrameKind, Link, SendError};
use crate::session::{Encoder, Frame, Message, Refusal};

impl<L: Link> Clients<L> {
    /// Sends a reply (or a push, with `id` 0) that its receiver asked for.
    pub fn answer(&mut self, key: Key, id: u32, message: &Message) {
        self.send_with(self.now_ms(), key, FrameKind::Reply, |_, encoder| {
            Some(encoder.message(id, message))
        });
    }

    /// Sends a push that nobody asked for.
    pub fn push(&mut self, key: Key, message: &Message) {
        self.send_with(self.now_ms(), key, FrameKind::Push, |_, encoder| {
            Some(encoder.message(0, message))
        });
    }

    pub fn refuse(&mut self, key: Key, id: u32, refusal: Refusal) {
        self.answer(key, id, &Message::Error(refusal));
    }

    /// Sends an event, or its link in the chain alone where it is not for this client.
    pub fn send_event(&mut self, key: Key, event: &Event, kind: FrameKind) {
        let Some(session) = self.session(key) else { return };
        let excepted = session
            .identity()
            .is_some_and(|identity| event.except.covers(session.connection, &identity.user));
        self.send_with(self.now_ms(), key, kind, |_, encoder| {
            if excepted {
                event.link.and_then(|_| encoder.passed(event))
            } else {
                Some(encoder.event(event))
            }
        });
    }

    /// Sends what `encode` makes of the client's protocol: its slot among the encoders, and the encoder. Returns whether it
    /// made something, and there is a client that is not about to be closed. Many sends share one look at the clock.
    pub fn send_with(
        &mut self,
        now_ms: u64,
        key: Key,
        kind: FrameKind,
        encode: impl FnOnce(usize, &dyn Encoder) -> Option<Frame>,
    ) -> bool {
        let Some(client) = self.slots.get_mut(key as usize) else {
            return false;
        };
        if client.session.is_closing() {
            return false;
        }
        let format = client.link.protocol().index();
        let Some(frame) = encode(format, &*self.encoders[format]) else {
            return false;
        };
        match client.link.send(&frame, kind, now_ms) {
            Ok(()) => {}
            Err(SendError::Overflow) => self.begin_close(key, CloseReason::SlowConsumer),
            Err(SendError::Gone) => self.begin_close(key, CloseReason::ClientLeft),
        }
        true
    }

    /// The name of the client's protocol.
    pub fn protocol_name(&self, key: Key) -> Option<&'static str> {
        let client = self.slots.get(key as usize)?;
        Some(self.encoders[client.link.protocol().index()].name())
    }
}
