//! The periodic sweep over sessions: heartbeats, expired tokens, silent peers.

use super::clients::{Phase, Ticket};
use super::sessions::Sessions;
use super::timers::{DueAction, seconds, spoke};
use crate::error::{CloseReason, ErrorCode};
use crate::session::Refusal;
use crate::session::link::{FrameKind, Link};

/// The seconds between two passes over the kept sessions. Their records are good for many times longer.
const KEPT_PASS_S: u32 = 60;

impl<L: Link> Sessions<L> {
    /// Handles what is due. To be called about once a second.
    pub fn tick(&mut self) {
        self.check_newcomers();
        while let Some(due) = self.timers.take_due(self.now_ms()) {
            for (ticket, due) in due {
                self.fire(ticket, due);
            }
        }
        self.members.end_expired(&mut self.clients);
        self.asked.forget_withdrawn();
        self.recheck.retry_undecided(self.clients.now_ms());
        while let Some(second) = self.timers.next_second(self.clients.now_s()) {
            if second.is_multiple_of(KEPT_PASS_S) {
                self.save_old();
            }
            self.beat(second);
            self.check_beats(second);
        }
    }

    /// Closes connections that did not authenticate in time.
    fn check_newcomers(&mut self) {
        let (timeout, now_ms) = (self.services.config.load().authentication_timeout, self.now_ms());
        while let Some(ticket) = self.timers.take_newcomer(now_ms, timeout) {
            let session = self.clients.alive(ticket);
            if session.is_some_and(|session| session.phase == Phase::Anonymous) {
                let refusal = Refusal::new(ErrorCode::Unauthenticated, "no token in time");
                self.clients.refuse(ticket.key, 0, refusal);
                self.clients.begin_close(ticket.key, CloseReason::Unauthenticated);
            }
        }
    }

    fn fire(&mut self, ticket: Ticket, due: DueAction) {
        match due {
            DueAction::ExpiryNotice(expiry) => self.expiry_notice_due(ticket, expiry),
            DueAction::Expiry(expiry) => self.expiry_due(ticket, expiry),
            DueAction::Drain => self.clients.begin_close(ticket.key, CloseReason::Draining),
        }
    }

    /// Sends a heartbeat to one second's share of the connections.
    fn beat(&mut self, second: u32) {
        let (now_ms, now_s) = (self.clients.now_ms(), self.clients.now_s());
        let interval = self.services.config.load().heartbeat_interval;
        for key in spoke(second, interval, self.clients.end()) {
            let Some(session) = self.clients.session_mut(key) else {
                continue;
            };
            session.rates.strikes = 0;
            session.rates.malformed = 0;
            let (ends_soon, is_silent) = (session.ends_soon, now_s > session.seen_s);
            if !ends_soon && let (Some(ticket), Some(identity)) = (self.clients.ticket(key), self.clients.identity(key))
            {
                self.schedule_expiry(ticket, identity.expiry);
            }
            if is_silent {
                self.clients
                    .send_with(now_ms, key, FrameKind::Push, |_, encoder| Some(encoder.heartbeat()));
            }
        }
    }

    /// Closes the connections that have not answered a heartbeat within the grace.
    fn check_beats(&mut self, second: u32) {
        let config = self.services.config.load();
        let Some(beaten_s) = second.checked_sub(seconds(config.heartbeat_grace)) else {
            return;
        };
        for key in spoke(beaten_s, config.heartbeat_interval, self.clients.end()) {
            let Some(client) = self.clients.client(key) else {
                continue;
            };
            // A client whose commands wait here is not read: its silence is ours.
            let (seen_s, is_read) = (client.session.seen_s, !client.session.paused);
            let is_expected = !client.link.is_one_way() && !client.link.is_supervised();
            if seen_s < beaten_s && is_read && is_expected {
                self.clients.begin_close(key, CloseReason::HeartbeatTimeout);
            }
        }
    }
}
