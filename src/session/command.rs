//! Commands of clients, independent of transport and encoding.
//!
//! Codecs make these; names are still text here and are parsed once, by the session.

use super::Refusal;
use crate::event::{Payload, Retention};
use crate::json::Json;
use crate::notice::Notice;
use crate::position::Position;
use crate::presence::Detail;

/// A command and the number its reply will carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Chosen by the client; not 0.
    pub id: u32,
    /// The command.
    pub command: Command,
}

/// The position at which a client says it left off. One that cannot be ours is not an error: it is not recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// A well-formed position.
    At(Position),
    /// Something else, such as another kind of epoch or an offset out of range.
    Unreadable,
}

/// The part of a room's presence that a client wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PresenceMode {
    /// Nothing.
    #[default]
    None,
    /// The counts.
    Counts,
    /// The roster and its changes.
    Members,
    /// The same, without the client's own user.
    Others,
}

impl PresenceMode {
    /// Returns the detail in which the room is observed for it.
    #[must_use]
    pub const fn detail(self) -> Option<Detail> {
        match self {
            Self::None => None,
            Self::Counts => Some(Detail::Counts),
            Self::Members | Self::Others => Some(Detail::Members),
        }
    }
}

/// Options of a join.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JoinOptions {
    /// The position it has seen last.
    pub since: Option<Since>,
    /// Without `since`: how many of the newest events it wants.
    pub rewind: u32,
    /// The part of the room's presence it wants to see.
    pub presence: PresenceMode,
    /// Its presence state.
    pub state: Option<Json>,
}

/// The part of a history that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFrom {
    /// The newest events.
    Newest,
    /// The oldest after a position.
    After(Since),
    /// The newest before a position.
    Before(Since),
}

/// A client's answer to an ask of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The answer.
    Payload(Payload),
    /// The client's refusal.
    Error(Notice),
    /// Something that is no payload, in a protocol whose clients cannot answer again.
    Unreadable,
}

/// A command of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Authenticates the session.
    Connect {
        /// The token; empty when it came with the handshake.
        token: String,
        /// Name and version of the client, for the log.
        client: String,
        /// Positions at which it left off in rooms that the server puts it into.
        resume: Vec<(String, Since)>,
        /// Its features beyond the first version of its protocol.
        features: Vec<String>,
    },
    /// Joins a room, or changes how it is joined.
    Join {
        /// The room.
        room: String,
        /// The options.
        options: JoinOptions,
    },
    /// Leaves a room.
    Leave {
        /// The room.
        room: String,
    },
    /// Publishes an event.
    Publish {
        /// The room.
        room: String,
        /// The event's name.
        event_name: String,
        /// The payload.
        payload: Payload,
        /// The retention.
        retention: Retention,
        /// Makes a retry harmless; empty for none.
        key: String,
    },
    /// Asks a backend.
    Ask {
        /// The method.
        method: String,
        /// The room it is about; may be empty.
        room: String,
        /// The payload.
        payload: Payload,
    },
    /// Asks who is in a room.
    Presence {
        /// The room.
        room: String,
    },
    /// Sets what the client says about itself in a room.
    SetState {
        /// The room.
        room: String,
        /// The state; `None` clears it.
        state: Option<Json>,
    },
    /// Asks which rooms a user is in.
    UserRooms {
        /// The user; empty for the asker.
        user: String,
    },
    /// Asks for past events.
    History {
        /// The room.
        room: String,
        /// The part.
        from: HistoryFrom,
        /// The most events; 0 for the default.
        limit: u32,
    },
    /// Replaces the token.
    Refresh {
        /// The new token.
        token: String,
    },
    /// Answers an ask of a backend. Carried out before commands that wait.
    Answer {
        /// The ask.
        ask: u32,
        /// The answer.
        answer: Answer,
    },
    /// Asks for a sign of life.
    Ping,
    /// Was read and cannot be carried out: it is of another version, or says something that is not acceptable. Answered in
    /// its turn, and counted against a rate like any other, but never as misuse.
    Refused(Refusal),
}
