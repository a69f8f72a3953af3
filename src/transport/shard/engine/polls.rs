//! Requests of clients that poll.

use bytes::Bytes;

use super::Shard;
use crate::error::CloseReason;
use crate::transport::socket::SocketId;
use crate::transport::socketio::{self, Polled, Reply, ReplyTo, Request, Shared};

/// Answers a request whose client may have gone.
fn answer(reply: ReplyTo, with: Reply) {
    let _ = reply.send(with);
}

impl Shard {
    pub(super) fn poll_request(&mut self, request: Request) {
        match request {
            Request::Open {
                place,
                token,
                credential,
                reply,
            } => {
                let connection = self.engine.open(place, self.sessions.now_ms());
                let (id, packet) = {
                    let mut connection = connection.borrow_mut();
                    connection.polling = Some(Box::default());
                    connection.token = token.map(Into::into);
                    connection.credential = credential;
                    (connection.id, self.engine.open_packet(&connection))
                };
                if reply.send(Reply::Body(packet.into())).is_err() {
                    self.close_engine(id, (CloseReason::ClientLeft, ""));
                }
            }
            Request::Poll { sid, credential, reply } => match self.engine.find(sid, credential) {
                Some(connection) => self.wait_for_packets(&connection, reply),
                None => answer(reply, Reply::Unknown),
            },
            Request::Post {
                sid,
                credential,
                body,
                reply,
            } => match self.engine.find(sid, credential) {
                Some(connection) => self.post(&connection, &body, reply),
                None => answer(reply, Reply::Unknown),
            },
            Request::Release { sid } => {
                let released = self.engine.in_slot(sid.key);
                if let Some(connection) = released.filter(|connection| connection.borrow().sid == sid) {
                    let mut connection = connection.borrow_mut();
                    if let Some(polling) = &mut connection.polling {
                        polling.release();
                    }
                    // A client that has gone is noticed there.
                    self.shared.polls_due.borrow_mut().push(connection.id);
                }
            }
            Request::Abort { sid } => {
                let aborted = self.engine.in_slot(sid.key).filter(|connection| {
                    let connection = connection.borrow();
                    connection.sid == sid && connection.polling.is_some()
                });
                if let Some(connection) = aborted {
                    let id = connection.borrow().id;
                    self.close_engine(id, (CloseReason::ClientLeft, ""));
                }
            }
        }
    }

    /// Lets a poll wait for packets. There is one at a time: a second one ends the connection.
    fn wait_for_packets(&mut self, connection: &Shared, reply: ReplyTo) {
        let id = {
            let mut connection = connection.borrow_mut();
            let id = connection.id;
            let Some(polling) = &mut connection.polling else {
                return answer(reply, Reply::BadRequest);
            };
            match polling.wait(reply) {
                None => {
                    self.shared.polls_due.borrow_mut().push(id);
                    return;
                }
                Some(first) => {
                    answer(first, Reply::Body(Bytes::from_static(b"1")));
                    polling.reply(Reply::BadRequest);
                }
            }
            id
        };
        self.close_engine(id, (CloseReason::ProtocolError, ""));
    }

    /// Carries out the packets of a request, and answers it once the client may send more.
    fn post(&mut self, connection: &Shared, body: &[u8], reply: ReplyTo) {
        let (id, is_expected, is_second) = {
            let mut connection = connection.borrow_mut();
            let is_expected = connection.polling.is_some() || std::mem::take(&mut connection.may_post_late);
            (connection.id, is_expected, connection.posted.is_some())
        };
        if !is_expected {
            return answer(reply, Reply::BadRequest);
        }
        let steps = match self.steps_of(connection, body) {
            Ok(steps) if !is_second => steps,
            Ok(_) => {
                answer(reply, Reply::BadRequest);
                return self.close_engine(id, (CloseReason::ProtocolError, ""));
            }
            Err(reason) => {
                answer(reply, Reply::BadRequest);
                return self.close_engine(id, (reason, ""));
            }
        };
        self.watch_partial(connection);
        for step in steps {
            // What comes behind the end of the connection counts for nothing.
            if self.engine.get(id).is_none() {
                break;
            }
            self.step(connection, step);
        }
        let mut connection = connection.borrow_mut();
        if connection.is_paused() && !connection.is_closed {
            connection.posted = Some(reply);
        } else {
            answer(reply, Reply::Body(Bytes::from_static(b"ok")));
        }
    }

    fn steps_of(&self, connection: &Shared, body: &[u8]) -> Result<Vec<socketio::Step>, CloseReason> {
        let config = self.engine.config();
        let inbox = &mut connection.borrow_mut().inbox;
        inbox.packets(
            body,
            (config.packets_max, config.payload_bytes_max),
            self.engine.namespaces(),
        )
    }

    /// Lets a packet that waits for its attachments be looked at.
    pub(super) fn watch_partial(&mut self, connection: &Shared) {
        let now_ms = self.sessions.now_ms();
        let connection = &mut *connection.borrow_mut();
        if connection.inbox.note_partial(now_ms) {
            self.partial.push(SocketId::of_engine(connection.id));
        }
    }

    /// Answers the polls that wait, where there are packets for them. Without the lease nothing is told but pings: a client takes
    /// silence for the end of its connection.
    pub(in crate::transport::shard) fn answer_polls(&mut self) {
        if self.shared.polls_due.borrow().is_empty() {
            return;
        }
        let may_deliver = self.sessions.may_deliver();
        let due = std::mem::take(&mut *self.shared.polls_due.borrow_mut());
        for id in due {
            let Some(connection) = self.engine.get(id) else {
                continue;
            };
            let (polled, keys): (_, Vec<_>) = {
                let mut connection = connection.borrow_mut();
                let polled = connection.answer_poll(may_deliver);
                (polled, connection.members.iter().map(|member| member.key).collect())
            };
            match polled {
                Polled::Done => {}
                Polled::Withheld => {
                    self.withheld = true;
                    continue;
                }
                Polled::Gone => {
                    self.close_engine(id, (CloseReason::ClientLeft, ""));
                    continue;
                }
            }
            for key in keys {
                self.sessions.flushed(key);
            }
        }
    }
}
