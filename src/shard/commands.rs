//! Commands of clients: the dispatch, rate limits and checks, and one module per kind of command.

mod answer;
mod connect;
mod emit;
mod join;
mod publish;
mod query;
mod refresh;

use std::future::Future;
use std::sync::Arc;

use super::clients::{ClientFacts, Clients, Key, Phase, Session, Ticket};
use super::members::RoomMembers;
use super::services::Principal;
use super::sessions::Sessions;
use super::turns::CommandTurns;
use crate::error::{CloseReason, ErrorCode};
use crate::event::{EventName, EventNameError, Payload, Timestamp};
use crate::identity::Identity;
use crate::rate::{Rate, TokenBucket};
use crate::room::{Room, RoomError};
use crate::session::link::Link;
use crate::session::{ASKS, Command, Message, Refusal};

pub(super) use self::connect::OpenedSession;
pub(super) use self::join::permit_entry;
use self::publish::PublishCommand;

/// One command of one client, as it is carried out. Its session is there when it is made, and need not be open.
pub(super) struct CommandContext<'a, L: Link> {
    sessions: &'a mut Sessions<L>,
    ticket: Ticket,
    /// The number of the replies; 0 for a token that came with the handshake.
    id: u32,
}

impl<'a, L: Link> CommandContext<'a, L> {
    pub fn new(sessions: &'a mut Sessions<L>, ticket: Ticket, id: u32) -> Self {
        Self { sessions, ticket, id }
    }

    /// Starts a command; the session is not busy.
    pub fn start(mut self, command: Command) {
        let Some(session) = self.sessions.clients.session_mut(self.ticket.key) else {
            return;
        };
        match (&session.phase, command) {
            (Phase::Closing(_), _) => {}
            (
                Phase::Anonymous,
                Command::Connect {
                    token,
                    client: _,
                    resume,
                    features,
                },
            ) => {
                if features.iter().any(|feature| feature == ASKS) {
                    session.rates.facts.note(ClientFacts::ANSWERS);
                }
                self.connect(token, resume);
            }
            (Phase::Open(_), Command::Answer { ask, answer }) if self.sessions.asked.waits(self.ticket.key, ask) => {
                self.take_answer(ask, answer);
            }
            (Phase::Anonymous, command) if !matches!(command, Command::Refused(_)) => {
                self.refuse(not_open());
                self.begin_close(CloseReason::Unauthenticated);
            }
            (_, Command::Connect { .. }) => {
                self.refuse(Refusal::new(ErrorCode::AlreadyConnected, "already connected"));
                self.begin_close(CloseReason::Misuse);
            }
            (_, Command::Ping) => self.answer(&Message::Pong { time: Timestamp::now() }),
            (_, command) => {
                if let Err(refusal) = self.start_open(command) {
                    self.refuse(refusal);
                }
            }
        }
    }

    fn start_open(&mut self, command: Command) -> Result<(), Refusal> {
        self.take_rate(&command)?;
        // Without the lease a revocation may be in force that is not known here. Leaving needs no permission.
        if !matches!(
            command,
            Command::Leave { .. } | Command::Answer { .. } | Command::Refused(_)
        ) {
            self.check_lease()?;
        }
        match command {
            Command::Join { room, options } => self.join(&room, options),
            Command::Leave { room } => self.leave(&room),
            Command::Publish {
                room,
                event_name: event,
                payload,
                retention,
                key: idempotency,
            } => self.publish(PublishCommand {
                room,
                event,
                payload,
                retention,
                idempotency,
            }),
            Command::Ask { method, room, payload } => self.ask(&method, &room, payload),
            Command::Presence { room } => self.query_presence(&room),
            Command::SetState { room, state } => self.set_state(&room, state),
            Command::UserRooms { user } => self.query_user_rooms(&user),
            Command::History { room, from, limit } => self.query_history(&room, from, limit),
            Command::Refresh { token } => {
                self.refresh(token);
                Ok(())
            }
            Command::Answer { .. } => {
                self.ignore_answer();
                Ok(())
            }
            Command::Refused(refusal) => Err(refusal),
            Command::Connect { .. } | Command::Ping => Ok(()),
        }
    }

    /// Counts a command against its rate. A client that does not heed the refusals is closed.
    fn take_rate(&mut self, command: &Command) -> Result<(), Refusal> {
        // One request holds all commands of a client that never sends: bounded, and not to be repeated.
        if self.sessions.clients.link(self.key()).is_some_and(Link::is_one_way) {
            return Ok(());
        }
        let (now_ms, config) = (self.sessions.now_ms(), self.sessions.services.config.load());
        let Some(session) = self.session_mut() else {
            return Ok(());
        };
        let rates = &mut session.rates;
        let (bucket, rate): (&mut TokenBucket, Rate) = match command {
            Command::Join { .. } | Command::Leave { .. } => (&mut rates.join_rate, config.join_rate),
            _ => (&mut rates.publish_rate, config.publish_rate),
        };
        let Err(wait) = bucket.take(rate, now_ms) else {
            return Ok(());
        };
        rates.strikes = rates.strikes.saturating_add(1);
        if rates.strikes > config.rate_strikes_max {
            self.begin_close(CloseReason::Flooding);
        }
        Err(Refusal::new(ErrorCode::RateLimited, "too many commands").retry_after(wait))
    }

    fn leave(&mut self, room: &str) -> Result<(), Refusal> {
        let room = self.room(room)?;
        let Sessions { clients, members, .. } = &mut *self.sessions;
        members.leave(clients, self.ticket.key, &room);
        self.answer_kept(Message::Left { room });
        Ok(())
    }

    // What a command needs of its session.

    const fn key(&self) -> Key {
        self.ticket.key
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        self.sessions.clients.session_mut(self.ticket.key)
    }

    fn identity(&self) -> Result<Arc<Identity>, Refusal> {
        self.sessions.clients.identity(self.ticket.key).ok_or_else(not_open)
    }

    fn principal(&self) -> Result<Principal, Refusal> {
        let principal = self.sessions.clients.principal(self.ticket.key);
        principal.ok_or_else(not_open)
    }

    /// Parses a room name within the client's tenant.
    fn room(&self, name: &str) -> Result<Room, Refusal> {
        let identity = self.identity()?;
        Room::parse(&identity.tenant, name).map_err(|error| invalid_room(&error))
    }

    fn check_payload(&self, payload: &Payload) -> Result<(), Refusal> {
        let max = self.sessions.services.config.load().payload_bytes_max;
        if payload.bytes_len() <= max {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::PayloadTooLarge,
            format!("a payload has at most {max} bytes"),
        ))
    }

    /// Refuses the command while the lease does not hold: an answer from a node without it may be stale.
    fn check_lease(&mut self) -> Result<(), Refusal> {
        if self.sessions.gate.may_deliver() {
            Ok(())
        } else {
            Err(unavailable())
        }
    }

    /// Refuses the command if a revocation covers the room: a permit may be older than it.
    fn check_revoked(&self, room: &Room) -> Result<(), Refusal> {
        let Sessions {
            clients, revocations, ..
        } = &*self.sessions;
        if revocations.is_revoked(clients, self.ticket.key, room) {
            return Err(forbidden());
        }
        Ok(())
    }

    // How a command goes on and ends.

    /// Sends a reply.
    fn answer(&mut self, message: &Message) {
        self.sessions.clients.answer(self.ticket.key, self.id, message);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.sessions.clients.refuse(self.ticket.key, self.id, refusal);
    }

    fn begin_close(&mut self, reason: CloseReason) {
        self.sessions.clients.begin_close(self.ticket.key, reason);
    }

    /// Suspends the command until `effect` is complete; the session's next command stays queued. The continuation is dropped if
    /// the session has ended.
    fn wait<C>(&mut self, effect: impl Future<Output = C> + 'static)
    where
        C: FnOnce(CommandContext<'_, L>) + 'static,
    {
        let (ticket, id) = (self.ticket, self.id);
        CommandTurns::begin(&mut self.sessions.clients, ticket);
        self.sessions.run_then(effect, move |go_on| {
            Box::new(move |sessions| {
                if sessions.clients.alive(ticket).is_some() {
                    go_on(CommandContext::new(sessions, ticket, id));
                }
            })
        });
    }

    /// Completes a suspended command: the next one may start.
    fn done(self) {
        self.sessions.turns.done(&mut self.sessions.clients, self.ticket);
    }

    /// Replies to a command that has changed the session's rooms, once its record says so.
    fn answer_kept(&mut self, message: Message) {
        let Some(kept) = self.sessions.take_into_record(self.key()) else {
            return self.answer(&message);
        };
        self.wait(async move {
            let saved = kept.saved().await;
            move |command: CommandContext<'_, L>| command.end(saved.map(|()| message).map_err(|_| unavailable()))
        });
    }

    /// Completes a suspended command with its reply.
    fn end(mut self, outcome: Result<Message, Refusal>) {
        self.answer(&outcome.unwrap_or_else(Message::Error));
        self.done();
    }
}

/// Checks that a client may be in one more room, if it is not in this one already.
pub(super) fn room_limit<L: Link>(
    clients: &Clients<L>,
    members: &RoomMembers,
    key: Key,
    room: &Room,
    max: usize,
) -> Result<(), Refusal> {
    let Some(session) = clients.session(key) else {
        return Ok(());
    };
    if !members.has(clients, key, room) && session.memberships.len() + session.joining().len() >= max {
        return Err(Refusal::new(
            ErrorCode::RoomLimit,
            format!("a connection is in at most {max} rooms"),
        ));
    }
    Ok(())
}

fn not_open() -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, "connect first")
}

/// The refusal of the policy. The same for every room, existing or not, and every rule: it must not reveal anything.
pub(super) fn forbidden() -> Refusal {
    Refusal::new(ErrorCode::Forbidden, "not allowed")
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "not possible now")
}

fn invalid_room(error: &RoomError) -> Refusal {
    Refusal::new(ErrorCode::InvalidRoom, format!("the room name {error}"))
}

fn event_name(text: &str) -> Result<EventName, Refusal> {
    let refusal = |error: EventNameError| Refusal::new(ErrorCode::InvalidEventName, format!("the event name {error}"));
    EventName::parse(text).map_err(refusal)
}
