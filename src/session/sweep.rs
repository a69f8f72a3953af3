//! What time does to sessions: heartbeats, ends of tokens, peers that do not read. No timer per connection: a coarse wheel
//! looks at each connection once per heartbeat interval.

use super::Refusal;
use super::link::{Kind, Link};
use super::sessions::{Due, Sessions, Ticket};
use super::state::Phase;
use crate::error::{CloseReason, ErrorCode};
use crate::hub::local::Key;

impl<L: Link> Sessions<L> {
    /// Looks at what is due. To be called about once a second.
    pub fn tick(&mut self) {
        self.check_newcomers();
        self.fire_timers();
        self.end_expired();
        self.recheck_undecided();
        let now_s = self.now_s();
        while self.swept_s < now_s {
            self.swept_s += 1;
            self.beat(self.swept_s);
            self.check_beats(self.swept_s);
        }
    }

    fn fire_timers(&mut self) {
        let now_ms = self.now_ms();
        while let Some(entry) = self.timers.first_entry() {
            if *entry.key() > now_ms {
                break;
            }
            for (ticket, due) in entry.remove() {
                self.fire(ticket, due);
            }
        }
    }

    /// Closes who has shown no token in time.
    fn check_newcomers(&mut self) {
        let timeout_ms =
            u64::try_from(self.services.config.load().authentication_timeout.as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.now_ms();
        while let Some((since_ms, ticket)) = self.newcomers.front().copied()
            && now_ms.saturating_sub(since_ms) >= timeout_ms
        {
            self.newcomers.pop_front();
            if self
                .alive(ticket)
                .is_some_and(|session| session.phase == Phase::Anonymous)
            {
                self.refuse(
                    ticket.key,
                    0,
                    Refusal::new(ErrorCode::Unauthenticated, "no token in time"),
                );
                self.doom(ticket.key, CloseReason::Unauthenticated);
            }
        }
        if self.newcomers.len() < self.newcomers.capacity() / 4 {
            self.newcomers.shrink_to(self.newcomers.len() * 2);
        }
    }

    fn fire(&mut self, ticket: Ticket, due: Due) {
        match due {
            Due::ExpiryNotice(expiry) => self.expiry_notice_due(ticket, expiry),
            Due::Expiry(expiry) => self.expiry_due(ticket, expiry),
            Due::Drain => self.doom(ticket.key, CloseReason::Draining),
        }
    }

    /// Gives one second's share of the connections a sign of life: those whose key falls on this spoke of the wheel.
    fn beat(&mut self, second: u32) {
        let now_s = self.now_s();
        for key in self.spoke(second) {
            let Some(session) = self.session(key) else { continue };
            session.conduct.strikes = 0;
            session.conduct.malformed = 0;
            let ends_soon = session.ends_soon;
            if let (false, Some(ticket), Some(identity)) = (ends_soon, self.ticket(key), self.identity(key)) {
                self.schedule_expiry(ticket, identity.expiry);
            }
            let Some(session) = self.session(key) else { continue };
            if now_s > session.seen_s
                && let Some(encoder) = self.encoder(key)
            {
                self.send(key, &encoder.heartbeat(), Kind::Live);
            }
        }
    }

    /// Ends the connections that were given a sign of life one grace ago and have given none since.
    fn check_beats(&mut self, second: u32) {
        let grace_s = seconds(self.services.config.load().heartbeat_grace);
        let Some(beaten_s) = second.checked_sub(grace_s) else {
            return;
        };
        for key in self.spoke(beaten_s) {
            let Some(session) = self.session(key) else { continue };
            // A client whose commands wait here is not read: its silence is ours.
            if session.seen_s < beaten_s && !session.paused && !self.is_one_way(key) {
                self.doom(key, CloseReason::HeartbeatTimeout);
            }
        }
    }

    fn is_one_way(&self, key: Key) -> bool {
        let conn = self.conns.get(key as usize);
        conn.is_some_and(|conn| conn.link.is_one_way())
    }

    fn spoke(&self, second: u32) -> impl Iterator<Item = Key> + use<L> {
        let spokes = seconds(self.services.config.load().heartbeat_interval);
        let end = Key::try_from(self.conns.capacity()).unwrap_or(Key::MAX);
        (second % spokes..end).step_by(spokes as usize)
    }
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
