//! The end of a session's token: the notice before it, and the end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clients::Ticket;
use super::sessions::Sessions;
use super::timers::DueAction;
use crate::error::{CloseReason, ErrorCode};
use crate::identity::Expiry;
use crate::session::link::Link;
use crate::session::{Message, Refusal};

impl<L: Link> Sessions<L> {
    /// Sets the timers of the notice and the end, once the end is near: a client that stays for a day must not leave a
    /// timer for a day behind when it goes. Each is for one token: those of one that was replaced do nothing.
    pub(super) fn schedule_expiry(&mut self, ticket: Ticket, expiry: Expiry) {
        let config = self.services.config.load();
        let (left, notice) = (until(expiry), config.expiry_notice);
        let near = notice + config.heartbeat_interval * 2;
        if let Some(session) = self.clients.session_mut(ticket.key) {
            session.ends_soon = left <= near;
        }
        if left > near {
            return;
        }
        self.schedule(left.saturating_sub(notice), ticket, DueAction::ExpiryNotice(expiry));
        self.schedule(left, ticket, DueAction::Expiry(expiry));
    }

    pub(super) fn expiry_notice_due(&mut self, ticket: Ticket, expiry: Expiry) {
        let is_near = until(expiry) <= self.services.config.load().expiry_notice + Duration::from_secs(1);
        // If it is not, the clock was set back: the end will set both timers again.
        if is_near && self.is_token_of(ticket, expiry) {
            self.clients.push(ticket.key, &Message::Expiring { expiry });
        }
    }

    pub(super) fn expiry_due(&mut self, ticket: Ticket, expiry: Expiry) {
        if !self.is_token_of(ticket, expiry) {
            return;
        }
        let left = until(expiry);
        if left.is_zero() {
            let expired = Refusal::new(ErrorCode::TokenExpired, "the token has expired");
            self.clients.refuse(ticket.key, 0, expired);
            self.clients.begin_close(ticket.key, CloseReason::TokenExpired);
        } else if left < Duration::from_secs(2) {
            // Timers are less precise than tokens.
            self.schedule(left, ticket, DueAction::Expiry(expiry));
        } else {
            // The clock was set back.
            self.schedule_expiry(ticket, expiry);
        }
    }

    /// Reports whether the session is open with the token that ends then.
    fn is_token_of(&mut self, ticket: Ticket, expiry: Expiry) -> bool {
        self.clients.alive(ticket).is_some()
            && self
                .clients
                .identity(ticket.key)
                .is_some_and(|identity| identity.expiry == expiry)
    }

    fn schedule(&mut self, after: Duration, ticket: Ticket, due: DueAction) {
        self.timers.schedule(self.clients.now_ms(), after, ticket, due);
    }
}

/// Returns the time until a token ends, by the wall clock.
fn until(expiry: Expiry) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(expiry.0).saturating_sub(now)
}
