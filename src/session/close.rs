//! The end of sessions: one that is to end is doomed, does nothing more, and is taken out when its transport asks who has
//! ended.

use super::link::Link;
use super::sessions::{Sessions, Ticket};
use super::state::Phase;
use crate::error::CloseReason;
use crate::hub::local::Key;
use crate::presence::{Activity, Departure};
use crate::room::Room;

/// A session that is to be closed, handed to its transport.
#[derive(Debug)]
pub struct Closed<L> {
    /// The slot it had.
    pub key: Key,
    /// Its connection.
    pub link: L,
    /// Why.
    pub reason: CloseReason,
    /// The word a backend gave in place of the reason's; empty for none.
    pub why: Box<str>,
}

impl<L: Link> Sessions<L> {
    /// The connection is to end: it broke, its peer left, or the transport found a reason.
    pub fn close(&mut self, key: Key, reason: CloseReason) {
        self.doom(key, reason);
    }

    /// The sessions that have ended since the last call. They have left every room already.
    pub fn take_closed(&mut self) -> Vec<Closed<L>> {
        let doomed = std::mem::take(&mut self.doomed);
        doomed
            .into_iter()
            .filter_map(|(ticket, reason, why)| self.remove(ticket, reason, why))
            .collect()
    }

    pub(super) fn doom(&mut self, key: Key, reason: CloseReason) {
        self.doom_saying(key, reason, "");
    }

    /// The same, with a word of a backend; empty for none.
    pub(super) fn doom_saying(&mut self, key: Key, reason: CloseReason, why: &str) {
        let Some(session) = self.session(key) else { return };
        if session.is_doomed() {
            return;
        }
        session.phase = Phase::Doomed(session.identity().cloned());
        let ticket = Ticket {
            key,
            generation: session.generation,
        };
        self.doomed.push((ticket, reason, why.into()));
    }

    fn remove(&mut self, ticket: Ticket, reason: CloseReason, why: Box<str>) -> Option<Closed<L>> {
        let session = self.session(ticket.key)?;
        if session.generation != ticket.generation {
            return None;
        }
        let joining: Vec<Room> = session.joining().to_vec();
        let identity = session.identity().cloned();
        for room in &joining {
            self.local.abort_join(room, ticket.key);
        }
        // Who was sent away for good does not come back: others see that at once.
        let is_final = matches!(
            reason,
            CloseReason::Kicked | CloseReason::TokenExpired | CloseReason::ConnectionLimit | CloseReason::Forbidden
        );
        self.leave_all(ticket.key, if is_final { Departure::Left } else { Departure::Lost });
        self.end_vacated();
        let conn = self.conns.remove(ticket.key as usize);
        if let (Some(identity), Some(member)) = (identity, conn.session.member()) {
            self.services.admission.forget(&identity);
            self.unindex(ticket.key, &identity);
            self.services
                .rooms
                .presence()
                .announce(Activity::Closed(identity.tenant.clone(), member, reason));
        }
        self.shrink();
        Some(Closed {
            key: ticket.key,
            link: conn.link,
            reason,
            why,
        })
    }

    /// Gives memory back after a wave of clients has left.
    fn shrink(&mut self) {
        if self.conns.is_empty() {
            self.conns.shrink_to_fit();
        }
    }
}
