//! Writing to a client, in the encoding of its connection.

use super::{Clients, Key, Phase, Session};
use crate::error::CloseReason;
use crate::event::Event;
use crate::session::link::{FrameKind, Link, SendError};
use crate::session::{Encoder, Ending, Frame, Message, Refusal};

impl<L: Link> Clients<L> {
    /// Sends a reply (or a push, with `id` 0) that its receiver asked for.
    pub fn answer(&mut self, key: Key, id: u32, message: &Message) {
        self.send_message(key, FrameKind::Reply, id, message);
        if let Message::Error(refusal) = message {
            self.end_if_helpless(key, id, refusal);
        }
    }

    /// Sends a push that nobody asked for.
    pub fn push(&mut self, key: Key, message: &Message) {
        self.send_message(key, FrameKind::Push, 0, message);
    }

    fn send_message(&mut self, key: Key, kind: FrameKind, id: u32, message: &Message) {
        let now_ms = self.now_ms();
        if self.cursor(key).is_some() {
            self.send_behind_cursor(now_ms, key, kind, |_, encoder| Some(encoder.message(id, message)));
        } else {
            self.send_with(now_ms, key, kind, |_, encoder| Some(encoder.message(id, message)));
        }
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
        self.send_item(key, kind, event, |_, encoder| {
            if excepted {
                event.link.and_then(|_| encoder.passed(event))
            } else {
                Some(encoder.event(event))
            }
        });
    }

    /// Sends what `encode` makes of an event of a room. A cursor is advanced by it, also where nothing is sent.
    pub fn send_item(
        &mut self,
        key: Key,
        kind: FrameKind,
        event: &Event,
        encode: impl FnOnce(usize, &dyn Encoder) -> Option<Frame>,
    ) {
        let now_ms = self.now_ms();
        let Some(cursor) = self.cursor(key) else {
            self.send_with(now_ms, key, kind, encode);
            return;
        };
        if let Some(link) = event.link {
            cursor.advance(&event.room, link.position);
        }
        self.send_behind_cursor(now_ms, key, kind, encode);
    }

    /// Sends what `encode` makes, behind the client's cursor.
    fn send_behind_cursor(
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
        let encoder = &*self.encoders[format];
        let Some(frame) = encode(format, encoder).filter(|frame| !frame.is_empty()) else {
            return false;
        };
        let before = client.link.cursor_mut().and_then(|cursor| encoder.before_event(cursor));
        let recovery = client.link.recovery_mut();
        let ending = recovery.map_or(Ending::None, |recovery| encoder.complete(&frame, recovery));
        let sent = match (before, ending) {
            (Some(before), _) => client.link.send_behind(&before, &frame, kind, now_ms),
            (None, Ending::None) => client.link.send(&frame, kind, now_ms),
            (None, Ending::Tail(tail)) => client.link.send_behind(&frame, &tail, kind, now_ms),
            (None, Ending::Whole(whole)) => client.link.send(&whole, kind, now_ms),
        };
        match sent {
            Ok(()) => {}
            Err(SendError::Overflow) => self.begin_close(key, CloseReason::SlowConsumer),
            Err(SendError::Gone) => self.begin_close(key, CloseReason::ClientLeft),
        }
        true
    }

    /// Sends what belongs to no position, with the bytes that all clients of a protocol share. As [`Self::send_with`], for the few
    /// that complete each frame with their own end.
    pub fn send_apart(
        &mut self,
        key: Key,
        kind: FrameKind,
        encode: impl FnOnce(usize, &dyn Encoder) -> Option<Frame>,
    ) -> bool {
        let now_ms = self.now_ms();
        if self.recovery(key).is_some() {
            return self.send_behind_cursor(now_ms, key, kind, encode);
        }
        self.send_with(now_ms, key, kind, encode)
    }

    /// Closes a client that never sends, and so cannot ask again, after a refusal that time may mend: it comes back. After any
    /// other it is looked at again once its other commands are carried out.
    fn end_if_helpless(&mut self, key: Key, id: u32, refusal: &Refusal) {
        let Some(client) = self.slots.get(key as usize) else {
            return;
        };
        if id == 0 || !client.link.is_one_way() || !matches!(client.session.phase, Phase::Open(_)) {
            return;
        }
        if refusal.code.may_repeat() {
            self.begin_close(key, CloseReason::Overloaded);
        } else {
            self.refused.extend(self.ticket(key));
        }
    }

    /// Closes the clients that never send and were refused everything: they would wait for nothing. One that still waits for
    /// an answer is refused again, or is in a room then.
    pub(super) fn close_refused(&mut self) {
        for ticket in std::mem::take(&mut self.refused) {
            let is_idle = |session: &mut Session| {
                session.memberships.is_empty() && session.joining().is_empty() && !session.busy && !session.is_waiting()
            };
            if self.alive(ticket).is_some_and(is_idle) {
                self.begin_close(ticket.key, CloseReason::Forbidden);
            }
        }
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
