//! Writing to a client, in the encoding of its connection.

use super::{Clients, Key};
use crate::error::CloseReason;
use crate::event::Event;
use crate::session::link::{Kind, Link, SendError};
use crate::session::{Encoder, Frame, Message, Refusal};

impl<L: Link> Clients<L> {
    /// Sends a reply (or a push, with `id` 0) that its receiver asked for.
    pub fn answer(&mut self, key: Key, id: u32, message: &Message) {
        self.send_encoded(key, Kind::Answer, |encoder| Some(encoder.message(id, message)));
    }

    /// Sends a push that nobody asked for.
    pub fn push(&mut self, key: Key, message: &Message) {
        self.send_encoded(key, Kind::Live, |encoder| Some(encoder.message(0, message)));
    }

    pub fn refuse(&mut self, key: Key, id: u32, refusal: Refusal) {
        self.answer(key, id, &Message::Error(refusal));
    }

    /// Sends an event, or its link in the chain alone where it is not for this client.
    pub fn send_event(&mut self, key: Key, event: &Event, kind: Kind) {
        let Some(session) = self.session(key) else { return };
        let excepted = session
            .identity()
            .is_some_and(|identity| event.except.covers(session.connection, &identity.user));
        self.send_encoded(key, kind, |encoder| {
            if excepted {
                event.link.and_then(|_| encoder.passed(event))
            } else {
                Some(encoder.event(event))
            }
        });
    }

    /// Sends what the encoder of the client's protocol makes; answers whether there is such a client.
    pub fn send_encoded(&mut self, key: Key, kind: Kind, encode: impl FnOnce(&dyn Encoder) -> Option<Frame>) -> bool {
        let Some(format) = self.format(key) else { return false };
        if let Some(frame) = encode(self.encoder(format)) {
            self.send(key, &frame, kind);
        }
        true
    }

    /// The slot of the client's protocol among the encoders, and among the forms of a delivery.
    pub fn format(&self, key: Key) -> Option<usize> {
        self.link(key).map(|link| link.protocol().index())
    }

    pub fn encoder(&self, format: usize) -> &dyn Encoder {
        &*self.encoders[format]
    }

    pub fn send(&mut self, key: Key, frame: &Frame, kind: Kind) {
        self.send_at(self.now_ms(), key, frame, kind);
    }

    /// The same, for many at once that share one look at the clock.
    pub fn send_at(&mut self, now_ms: u64, key: Key, frame: &Frame, kind: Kind) {
        let Some(client) = self.client(key) else { return };
        if client.session.is_doomed() {
            return;
        }
        match client.link.send(frame, kind, now_ms) {
            Ok(()) => {}
            Err(SendError::Overflow) => self.doom(key, CloseReason::SlowConsumer),
            Err(SendError::Gone) => self.doom(key, CloseReason::ClientLeft),
        }
    }
}
