//! One command of a session at a time: the next ones are queued, which keeps the client's order. A client with too many
//! queued commands is not read any more (back-pressure).

use super::clients::{Client, Clients, Key, Session, Ticket};
use crate::session::Request;
use crate::session::link::Link;

/// The queued bytes above which no further command of a client is carried out: it gets answers as fast as it reads them.
const BACKLOG_BYTES_MAX: usize = 64 * 1024;

/// The sessions whose next command may start.
#[derive(Debug, Default)]
pub(super) struct CommandTurns {
    ready: Vec<Ticket>,
}

impl CommandTurns {
    /// Returns a command that may start now. Any other is queued, and from `waiting_max` on the client is not read.
    pub fn admit<L: Link>(clients: &mut Clients<L>, key: Key, request: Request, waiting_max: usize) -> Option<Request> {
        let client = clients.client(key)?;
        if may_start(client) {
            return Some(request);
        }
        if client.session.wait(request) >= waiting_max && !client.session.paused {
            client.session.paused = true;
            client.link.pause(true);
        }
        None
    }

    /// Puts a session whose outbox has drained back into the turns.
    pub fn flushed<L: Link>(&mut self, clients: &Clients<L>, key: Key) {
        if clients.session(key).is_some_and(Session::is_waiting) {
            self.ready.extend(clients.ticket(key));
        }
    }

    /// Marks a session as carrying out a command until [`Self::done`].
    pub fn begin<L: Link>(clients: &mut Clients<L>, ticket: Ticket) {
        if let Some(session) = clients.alive(ticket) {
            session.busy = true;
        }
    }

    /// Ends the command under way.
    pub fn done<L: Link>(&mut self, clients: &mut Clients<L>, ticket: Ticket) {
        let Some(session) = clients.alive(ticket) else { return };
        session.busy = false;
        // Resume a paused reader even if its queue is empty: the last command may have taken its time.
        if session.is_waiting() || session.paused {
            self.ready.push(ticket);
        }
    }

    /// Returns the next command that was waiting and may start.
    pub fn next<L: Link>(&mut self, clients: &mut Clients<L>) -> Option<(Ticket, Request)> {
        loop {
            let ticket = *self.ready.last()?;
            if let Some(request) = next_of(clients, ticket) {
                return Some((ticket, request));
            }
            self.ready.retain(|other| *other != ticket);
        }
    }
}

fn may_start<L: Link>(client: &Client<L>) -> bool {
    !client.session.busy && client.link.backlog_bytes() <= BACKLOG_BYTES_MAX
}

fn next_of<L: Link>(clients: &mut Clients<L>, ticket: Ticket) -> Option<Request> {
    clients.alive(ticket)?;
    let client = clients.client(ticket.key)?;
    if !may_start(client) {
        return None;
    }
    let request = client.session.next_waiting();
    if request.is_none() && client.session.paused {
        client.session.paused = false;
        client.link.pause(false);
    }
    request
}
