//! The end of sessions: one that is to end is closing, does nothing more, and is taken out when its transport asks who has
//! ended.

use super::clients::{Closing, Key};
use super::sessions::Sessions;
use crate::error::CloseReason;
use crate::presence::{Activity, Departure};
use crate::room::Room;
use crate::session::link::Link;

/// A session that is to be closed, handed to its transport.
#[derive(Debug)]
pub struct ClosedSession<L> {
    /// The slot it had.
    pub key: Key,
    /// Its connection.
    pub link: L,
    /// Why.
    pub reason: CloseReason,
    /// Set if its token had been accepted.
    pub was_open: bool,
    /// The word a backend gave in place of the reason's; empty for none.
    pub why: Box<str>,
}

impl<L: Link> Sessions<L> {
    /// The connection is to end: it broke, its peer left, or the transport found a reason.
    pub fn close(&mut self, key: Key, reason: CloseReason) {
        self.clients.begin_close(key, reason);
    }

    /// The sessions that have ended since the last call. They have left every room already.
    pub fn take_closed(&mut self) -> Vec<ClosedSession<L>> {
        self.settle();
        std::mem::take(&mut self.closed)
    }

    /// Takes the sessions that are to end out of their rooms, and out of everything else that knows them.
    pub(super) fn settle(&mut self) {
        for closing in self.clients.take_closing() {
            let closed = self.remove(closing);
            self.closed.extend(closed);
        }
        self.save_changed();
    }

    fn remove(&mut self, closing: Closing) -> Option<ClosedSession<L>> {
        let Closing { ticket, reason, why } = closing;
        if self.clients.ticket(ticket.key) != Some(ticket) {
            return None;
        }
        let joining: Vec<Room> = self.clients.session(ticket.key)?.joining().to_vec();
        for room in &joining {
            self.members.abort_join(room, ticket.key);
        }
        // Who was sent away for good does not come back: others see that at once.
        let is_final = matches!(
            reason,
            CloseReason::Kicked | CloseReason::TokenExpired | CloseReason::ConnectionLimit | CloseReason::Forbidden
        );
        let departure = if is_final { Departure::Left } else { Departure::Lost };
        // After the end of its token a client may come back with another one.
        if is_final && reason != CloseReason::TokenExpired {
            self.forget(ticket.key);
        }
        self.kept.remove(ticket.key);
        self.members.leave_all(&mut self.clients, ticket.key, departure);
        self.asked.end(ticket.key);
        let client = self.clients.remove(ticket.key);
        let counters = &self.services.counters;
        counters.connections_ended.add(client.link.protocol().index());
        match client.session.identity() {
            Some(_) => counters.sessions_closed.add(reason),
            None => counters.sessions_refused.add(reason),
        }
        if let (Some(identity), Some(member)) = (client.session.identity(), client.session.member()) {
            self.services.admission.forget(identity);
            let closed = Activity::Closed(identity.tenant.clone(), member, reason);
            self.services.rooms.presence().announce(closed);
        }
        Some(ClosedSession {
            key: ticket.key,
            was_open: client.session.identity().is_some(),
            link: client.link,
            reason,
            why,
        })
    }
}
