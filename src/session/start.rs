//! Carrying out commands: the dispatch, and who may send what when.

use super::link::Link;
use super::sessions::Sessions;
use super::state::Phase;
use super::{Command, Message, Refusal, Request};
use crate::error::{CloseReason, ErrorCode};
use crate::event::{EventName, EventNameError, Payload, Timestamp};
use crate::hub::local::Key;
use crate::rate::{Rate, TokenBucket};
use crate::room::{Room, RoomError};

impl<L: Link> Sessions<L> {
    /// Starts a command; the session is not busy.
    pub(super) fn start(&mut self, key: Key, request: Request) {
        let Some(session) = self.session(key) else { return };
        let Request { id, command } = request;
        match (&session.phase, command) {
            (Phase::Doomed(_), _) => {}
            (
                Phase::Anonymous,
                Command::Connect {
                    token,
                    client: _,
                    resume,
                    // None of those that are known makes the server send more.
                    features: _,
                },
            ) => {
                self.authenticate(key, id, token, resume);
            }
            (Phase::Anonymous, command) if !matches!(command, Command::Refused(_)) => {
                self.refuse(key, id, Refusal::new(ErrorCode::Unauthenticated, "connect first"));
                self.doom(key, CloseReason::Unauthenticated);
            }
            (_, Command::Connect { .. }) => {
                self.refuse(key, id, Refusal::new(ErrorCode::AlreadyConnected, "already connected"));
                self.doom(key, CloseReason::Misuse);
            }
            (_, Command::Ping) => self.answer(key, id, &Message::Pong { time: Timestamp::now() }),
            (_, command) => {
                if let Err(refusal) = self.start_open(key, id, command) {
                    self.refuse(key, id, refusal);
                }
            }
        }
    }

    fn start_open(&mut self, key: Key, id: u32, command: Command) -> Result<(), Refusal> {
        self.take_rate(key, &command)?;
        // Without the lease a revocation may be in force that is not known here. Leaving needs no permission.
        if !matches!(command, Command::Leave { .. } | Command::Refused(_)) && !self.may_deliver() {
            return Err(unavailable());
        }
        match command {
            Command::Join { room, options } => self.join(key, id, &room, options),
            Command::Leave { room } => self.leave_command(key, id, &room),
            Command::Publish {
                room,
                event_name: event,
                payload,
                retention,
                key: idempotency,
            } => self.publish(
                key,
                id,
                super::publish::Wanted {
                    room,
                    event,
                    payload,
                    retention,
                    idempotency,
                },
            ),
            Command::Ask { method, room, payload } => self.ask(key, id, &method, &room, payload),
            Command::Presence { room } => self.query_presence(key, id, &room),
            Command::SetState { room, state } => self.set_state(key, id, &room, state),
            Command::UserRooms { user } => self.query_user_rooms(key, id, &user),
            Command::History { room, from, limit } => self.query_history(key, id, &room, from, limit),
            Command::Refresh { token } => {
                self.refresh(key, id, token);
                Ok(())
            }
            Command::Refused(refusal) => Err(refusal),
            Command::Connect { .. } | Command::Ping => Ok(()),
        }
    }

    /// Counts a command against its rate. A client that does not heed the refusals is closed.
    fn take_rate(&mut self, key: Key, command: &Command) -> Result<(), Refusal> {
        let (now_ms, config) = (self.now_ms(), self.services.config.load_full());
        let Some(session) = self.session(key) else {
            return Ok(());
        };
        let conduct = &mut session.conduct;
        let (bucket, rate): (&mut TokenBucket, Rate) = match command {
            Command::Join { .. } | Command::Leave { .. } => (&mut conduct.join_rate, config.join_rate),
            _ => (&mut conduct.publish_rate, config.publish_rate),
        };
        let Err(wait) = bucket.take(rate, now_ms) else {
            return Ok(());
        };
        conduct.strikes = conduct.strikes.saturating_add(1);
        if conduct.strikes > config.rate_strikes_max {
            self.doom(key, CloseReason::Flooding);
        }
        Err(Refusal::new(ErrorCode::RateLimited, "too many commands").retry_after(wait))
    }

    /// Parses a room name within the client's tenant.
    pub(super) fn room(&self, key: Key, name: &str) -> Result<Room, Refusal> {
        let identity = self.identity(key).ok_or_else(not_open)?;
        Room::parse(&identity.tenant, name).map_err(|error| invalid_room(&error))
    }

    pub(super) fn check_payload(&self, payload: &Payload) -> Result<(), Refusal> {
        let max = self.services.config.load().payload_bytes_max;
        if payload.bytes_len() <= max {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::PayloadTooLarge,
            format!("a payload has at most {max} bytes"),
        ))
    }
}

pub(super) fn not_open() -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, "connect first")
}

/// The same for every room, whether or not it exists, and whatever the rule: what a client may not know it is not told.
pub(super) fn forbidden() -> Refusal {
    Refusal::new(ErrorCode::Forbidden, "not allowed")
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "not possible now")
}

fn invalid_room(error: &RoomError) -> Refusal {
    Refusal::new(ErrorCode::InvalidRoom, format!("the room name {error}"))
}

pub(super) fn event_name(text: &str) -> Result<EventName, Refusal> {
    let refusal = |error: EventNameError| Refusal::new(ErrorCode::InvalidEventName, format!("the event name {error}"));
    EventName::parse(text).map_err(refusal)
}
