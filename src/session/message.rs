//! Messages to clients, independent of transport and encoding.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{CloseReason, ErrorCode};
use crate::event::{Event, EventName, Payload, Timestamp};
use crate::identity::{ConnectionId, Expiry, UserId};
use crate::notice::Notice;
use crate::position::Position;
use crate::presence::{Change, Roster};
use crate::room::Room;

/// A refusal of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error code.
    pub code: ErrorCode,
    /// Machine-readable; the code's name, or what a backend gave.
    pub reason: String,
    /// For a developer to read; not stable.
    pub message: String,
    /// The time after which a retry makes sense.
    pub retry_after: Option<Duration>,
}

/// The default time before a retry.
const RETRY_AFTER_USUAL: Duration = Duration::from_secs(1);

impl Refusal {
    /// A refusal whose reason is the code's name. One that time may mend says when to try again.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: code.as_str().to_owned(),
            message: message.into(),
            retry_after: code.may_repeat().then_some(RETRY_AFTER_USUAL),
        }
    }

    /// The same, with a time after which trying again makes sense.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }
}

/// A room that was joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The room.
    pub room: Room,
    /// Its head: everything replayed is at or before it, everything live after it.
    pub head: Position,
    /// Set if everything missed since the given position follows.
    pub recovered: bool,
    /// The number of events that follow and stand at or before `position`.
    pub replayed: u32,
    /// The roster, if asked for.
    pub roster: Option<Roster>,
}

/// Reason why the server moved a client into or out of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomChange {
    /// A backend asked for it.
    Backend,
    /// Access was withdrawn.
    Revoked,
    /// A refreshed token no longer allows it, or newly does.
    TokenChanged,
    /// The time is over for which an authorizer allowed it.
    Expired,
}

/// A page of past events.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// The room.
    pub room: Room,
    /// From old to new.
    pub events: Vec<Arc<Event>>,
    /// The room's head.
    pub head: Position,
    /// With "after": whether everything after the position is kept.
    pub complete: bool,
    /// Set if the limit, of events or of bytes, cut the answer: more is kept in the direction that was read.
    pub more: bool,
}

/// A message to a client. Events are apart, encoded once for all members (see `session::Encoder`).
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The command was refused.
    Error(Refusal),
    /// The session is open.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// The user.
        user: UserId,
        /// The end of the session.
        expiry: Expiry,
        /// The interval of the server's heartbeats.
        heartbeat: Duration,
        /// The server's clock.
        time: Timestamp,
        /// The rooms it was put into.
        rooms: Vec<Joined>,
        /// The server's features beyond the first version of its protocol.
        features: &'static [&'static str],
        /// The server's version.
        server_version: &'static str,
    },
    /// A room is joined.
    Joined(Joined),
    /// A room is left.
    Left {
        /// The room.
        room: Room,
    },
    /// An event is published.
    Published {
        /// Its position; `None` for an ephemeral one.
        position: Option<Position>,
        /// Set if the idempotency key had been used for it before.
        duplicate: bool,
        /// The number of connections it was meant for; `None` if that is not known.
        reached: Option<u32>,
        /// The reply of a backend that handled the event itself.
        reply: Option<Payload>,
    },
    /// A backend's answer.
    Reply(Payload),
    /// The presence of a room.
    Presence {
        /// The room.
        room: Room,
        /// Who.
        roster: Roster,
    },
    /// The state is set.
    StateSet {
        /// The room.
        room: Room,
    },
    /// The rooms of a user.
    UserRooms {
        /// The user.
        user: UserId,
        /// By name.
        rooms: Vec<Room>,
        /// Not every node has been heard: there may be more.
        partial: bool,
    },
    /// Past events.
    History(HistoryPage),
    /// The token is replaced.
    Refreshed {
        /// The new end of the session.
        expiry: Expiry,
    },
    /// A sign of life.
    Pong {
        /// The server's clock.
        time: Timestamp,
    },
    /// An answer is read.
    Answered {
        /// Set if it goes to the backend; otherwise nobody waits for it.
        accepted: bool,
    },
    /// Push: a backend asks the client.
    Asked {
        /// Names the ask on the connection.
        ask: u32,
        /// The method.
        method: EventName,
        /// The payload.
        payload: Payload,
    },
    /// Push: the server put the client into a room.
    RoomJoined {
        /// The room.
        joined: Joined,
        /// Why.
        change: RoomChange,
    },
    /// Push: the server took the client out of a room.
    RoomLeft {
        /// The room.
        room: Room,
        /// Why.
        change: RoomChange,
        /// The backend's words.
        notice: Notice,
    },
    /// Push: a backend closes the connection.
    Disconnected {
        /// How.
        reason: CloseReason,
        /// The backend's words.
        notice: Notice,
    },
    /// Push: who came, went or changed in a room.
    PresenceChanged(Arc<Change>),
    /// Push: deliveries are interrupted behind the server, or go on again.
    Degraded {
        /// Set while they are interrupted.
        active: bool,
    },
    /// Push: a room's continuity is lost.
    Resync {
        /// The room.
        room: Room,
        /// Its head now.
        head: Position,
    },
    /// Push: the server will close the connection soon.
    ReconnectAdvice {
        /// Wait at least this long.
        delay: Duration,
        /// Add a random part of this.
        jitter: Duration,
    },
    /// Push: the session ends soon.
    Expiring {
        /// When.
        expiry: Expiry,
    },
}
