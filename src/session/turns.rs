//! One command of a session at a time: the next ones wait, so a client's own order is kept. Whoever has too many of them
//! waiting is not read any more.

use super::Request;
use super::link::Link;
use super::sessions::{Sessions, Ticket};
use crate::hub::local::Key;

/// The queued bytes above which no further command of a client is carried out: it gets answers as fast as it reads them.
const BACKLOG_BYTES_MAX: usize = 64 * 1024;

impl<L: Link> Sessions<L> {
    /// Carries a command out, or puts it in line.
    pub fn command(&mut self, key: Key, request: Request) {
        let waiting_max = self.services.config.load().commands_waiting_max;
        let Some(conn) = self.conns.get_mut(key as usize) else {
            return;
        };
        if conn.session.busy || conn.link.backlog_bytes() > BACKLOG_BYTES_MAX {
            if conn.session.wait(request) >= waiting_max && !conn.session.paused {
                conn.session.paused = true;
                conn.link.pause(true);
            }
            return;
        }
        self.start(key, request);
        self.go_on();
    }

    /// The connection has taken some of what was queued for it.
    pub fn flushed(&mut self, key: Key) {
        if self.session(key).is_some_and(|session| session.is_waiting()) {
            self.ready.extend(self.ticket(key));
            self.go_on();
        }
    }

    /// Marks a session as carrying out a command until [`Self::done`].
    pub(super) fn begin(&mut self, key: Key) -> Option<Ticket> {
        let session = self.session(key)?;
        session.busy = true;
        Some(Ticket {
            key,
            generation: session.generation,
        })
    }

    /// The command under way is done.
    pub(super) fn done(&mut self, ticket: Ticket) {
        let Some(session) = self.alive(ticket) else { return };
        session.busy = false;
        // Whoever is not read goes on even when nothing waits any more: the last command may have taken its time.
        if session.is_waiting() || session.paused {
            self.ready.push(ticket);
        }
    }

    /// Starts what waits for commands that are done.
    pub(super) fn go_on(&mut self) {
        while let Some(ticket) = self.ready.pop() {
            while let Some(request) = self.next_waiting(ticket) {
                self.start(ticket.key, request);
            }
        }
    }

    fn next_waiting(&mut self, ticket: Ticket) -> Option<Request> {
        self.alive(ticket)?;
        let conn = self.conns.get_mut(ticket.key as usize)?;
        if conn.session.busy || conn.link.backlog_bytes() > BACKLOG_BYTES_MAX {
            return None;
        }
        let request = conn.session.next_waiting();
        if request.is_none() && conn.session.paused {
            conn.session.paused = false;
            conn.link.pause(false);
        }
        request
    }
}
