//! Events: a publisher's message to a room, parsed once.
//!
//! `Publish` (parsed, not yet permitted) becomes an [`Envelope`] (permitted, stamped by the server) and, once the bus
//! has ordered it, an [`Event`]. None of them knows a wire: every edge has its own types and conversions.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::position::{ChainLink, Offset};
use crate::room::Room;
use crate::units::millis;

/// The reason why an event name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventNameError {
    /// A name has at least one byte.
    #[error("is empty")]
    Empty,
    /// The name is longer than [`EventName::BYTES_MAX`].
    #[error("is longer than 128 bytes")]
    TooLong,
    /// The name holds a control character (Unicode category Cc).
    #[error("contains a control character")]
    ControlCharacter,
    /// Socket.IO v5 reserves the name for the client library itself.
    #[error("is reserved by the Socket.IO protocol")]
    Reserved,
}

/// The name of an event, such as `task:created`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventName(Arc<str>);

impl EventName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// The names that are reserved, so that no publisher may use them (Socket.IO protocol v5, "Reserved events").
    pub const RESERVED: [&'static str; 7] = [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
        "error",
    ];

    /// Parses an event name.
    ///
    /// # Errors
    /// Every variant of [`EventNameError`].
    pub fn parse(text: &str) -> Result<Self, EventNameError> {
        if text.is_empty() {
            return Err(EventNameError::Empty);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(EventNameError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(EventNameError::ControlCharacter);
        }
        if Self::RESERVED.contains(&text) {
            return Err(EventNameError::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// Returns the name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The content of an event. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A validated JSON text, relayed verbatim.
    Json(Json),
    /// Opaque bytes.
    Binary(Bytes),
}

impl Payload {
    /// Returns the size on the wire, in bytes, before any encoding.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        match self {
            Self::Json(json) => json.bytes().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// The retention of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Retention {
    /// Delivered to the current members (at-most-once); has no position and is not kept.
    Ephemeral,
    /// Ordered, acknowledged once stored, kept within the room's history limits.
    #[default]
    Reliable,
    /// Reliable. In addition, the newest one of each event name is delivered once to every member that joins without a
    /// position.
    LastValue,
}

/// Identifies one publish, over all rooms it went to. A client in several of them can deduplicate by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId(u128);

impl EventId {
    /// Draws a new identifier.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Returns the identifier with these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns the identifier's bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Milliseconds since the Unix epoch, by the clock of the bus that ordered the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the current time; a clock before 1970 reads as 0.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(millis(since_epoch))
    }

    /// Returns the age of `self` at `now`; zero if it lies in the future.
    #[must_use]
    pub const fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }
}

/// Makes a repeated publish harmless: within the bus's deduplication window an event with the same key, publisher and
/// room is stored once. Each user's keys are a namespace of their own, apart from that of the backends: a client that
/// guesses a key must not be able to take it from a backend or from another user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

/// The key is empty, longer than [`IdempotencyKey::CHARACTERS_MAX`] or holds a control character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to 64 characters and no control characters")]
pub struct IdempotencyKeyError;

impl IdempotencyKey {
    /// The longest key, in characters.
    pub const CHARACTERS_MAX: usize = 64;

    /// Separates the publisher from the key in a scoped key. A control character, so it is in no user id and in no key.
    const SEPARATOR: char = '\0';

    /// Parses a backend's key.
    ///
    /// # Errors
    /// [`IdempotencyKeyError`].
    pub fn of_backend(text: &str) -> Result<Self, IdempotencyKeyError> {
        // No user has the empty id.
        Self::scoped_to("", text)
    }

    /// Parses the key of a user's client.
    ///
    /// # Errors
    /// [`IdempotencyKeyError`].
    pub fn of_user(user: &UserId, text: &str) -> Result<Self, IdempotencyKeyError> {
        Self::scoped_to(user.as_str(), text)
    }

    fn scoped_to(publisher: &str, text: &str) -> Result<Self, IdempotencyKeyError> {
        let valid =
            !text.is_empty() && text.chars().nth(Self::CHARACTERS_MAX).is_none() && !text.chars().any(char::is_control);
        if valid {
            Ok(Self(format!("{publisher}{}{text}", Self::SEPARATOR).into()))
        } else {
            Err(IdempotencyKeyError)
        }
    }

    /// Returns the key together with its publisher, which identifies it within a room.
    #[must_use]
    pub fn scoped(&self) -> &str {
        &self.0
    }

    /// Returns the key as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.split_once(Self::SEPARATOR).map_or("", |(_, key)| key)
    }
}

/// Members of a room that are excluded from an event. Cheap to clone; empty without an allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Except(Option<Arc<ExceptList>>);

#[derive(Debug, Default, PartialEq, Eq)]
struct ExceptList {
    connections: Vec<ConnectionId>,
    users: Vec<UserId>,
}

impl Except {
    /// Excludes no member.
    pub const NOBODY: Self = Self(None);

    /// The most connections, and the most users, that one event may exclude.
    pub const MAX: usize = 100;

    /// Excludes these connections and users.
    #[must_use]
    pub fn new(connections: Vec<ConnectionId>, users: Vec<UserId>) -> Self {
        if connections.is_empty() && users.is_empty() {
            return Self::NOBODY;
        }
        Self(Some(Arc::new(ExceptList { connections, users })))
    }

    /// Reports whether no member is excluded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Reports whether this member is excluded.
    #[must_use]
    pub fn covers(&self, connection: ConnectionId, user: &UserId) -> bool {
        self.0
            .as_deref()
            .is_some_and(|list| list.connections.contains(&connection) || list.users.contains(user))
    }

    /// Returns the excluded connections.
    #[must_use]
    pub fn connections(&self) -> &[ConnectionId] {
        self.0.as_deref().map_or(&[], |list| &list.connections)
    }

    /// Returns the excluded users.
    #[must_use]
    pub fn users(&self) -> &[UserId] {
        self.0.as_deref().map_or(&[], |list| &list.users)
    }
}

/// A request to publish to one room: valid in form, not yet permitted.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The room.
    pub room: Room,
    /// The identifier, shared by all rooms of one call.
    pub id: EventId,
    /// The event's name.
    pub name: EventName,
    /// The retention.
    pub retention: Retention,
    /// The content.
    pub payload: Payload,
    /// The acting user, as the server knows it; never taken from a client's claim.
    pub actor: Option<UserId>,
    /// The excluded members.
    pub except: Except,
    /// The idempotency key, which makes a retry harmless.
    pub key: Option<IdempotencyKey>,
    /// The expected offset of the room's head, as the bus reports it ([`Offset::ZERO`]: no event in it yet). With
    /// another head nothing is published. Ignored for [`Retention::Ephemeral`].
    pub expected: Option<Offset>,
}

/// A permitted publish on its way to the bus. Made from a [`Publish`] and a permit in [`crate::rooms`] only.
#[derive(Debug, Clone)]
pub struct Envelope(pub(crate) Publish);

impl Envelope {
    /// Returns the publish.
    #[must_use]
    pub fn into_inner(self) -> Publish {
        self.0
    }

    /// Returns the room.
    #[must_use]
    pub const fn room(&self) -> &Room {
        &self.0.room
    }
}

/// An ordered event, on its way to members or out of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The room.
    pub room: Room,
    /// The publish that it originates from.
    pub id: EventId,
    /// The event's name.
    pub name: EventName,
    /// The retention.
    pub retention: Retention,
    /// Its link in the room's chain; `None` for [`Retention::Ephemeral`].
    pub link: Option<ChainLink>,
    /// The time at which it was ordered.
    pub time: Timestamp,
    /// The acting user, stamped by the server.
    pub actor: Option<UserId>,
    /// The excluded members, live and in the history.
    pub except: Except,
    /// The content.
    pub payload: Payload,
}

impl Event {
    /// Returns the offset, if the event has a position.
    #[must_use]
    pub fn offset(&self) -> Option<Offset> {
        self.link.map(|link| link.position.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_long_and_control_names_are_refused() {
        for name in EventName::RESERVED {
            assert_eq!(EventName::parse(name), Err(EventNameError::Reserved));
        }
        assert_eq!(EventName::parse(""), Err(EventNameError::Empty));
        assert_eq!(EventName::parse(&"x".repeat(129)), Err(EventNameError::TooLong));
        assert_eq!(EventName::parse("a\u{1b}[0m"), Err(EventNameError::ControlCharacter));
        assert_eq!(EventName::parse("task:created").unwrap().as_str(), "task:created");
    }

    #[test]
    fn idempotency_keys_are_bounded() {
        for refused in ["", "a\nb", "a\0b", &"k".repeat(65), &"\u{e9}".repeat(65)] {
            assert!(IdempotencyKey::of_backend(refused).is_err(), "{refused:?}");
        }
        for accepted in ["k", &"k".repeat(64), &"\u{1f980}".repeat(64)] {
            assert_eq!(IdempotencyKey::of_backend(accepted).unwrap().as_str(), accepted);
        }
    }

    #[test]
    fn the_same_key_of_two_publishers_is_two_keys() {
        let (ada, ben) = (UserId::parse("ada").unwrap(), UserId::parse("ben").unwrap());
        let keys = [
            IdempotencyKey::of_backend("1").unwrap(),
            IdempotencyKey::of_user(&ada, "1").unwrap(),
            IdempotencyKey::of_user(&ben, "1").unwrap(),
        ];
        let scoped: std::collections::HashSet<_> = keys.iter().map(IdempotencyKey::scoped).collect();
        assert_eq!(scoped.len(), 3);
        assert!(keys.iter().all(|key| key.as_str() == "1"));
    }

    #[test]
    fn exceptions_cover_connections_and_all_connections_of_a_user() {
        let (mine, other) = (ConnectionId::random(), ConnectionId::random());
        let (ada, bob) = (UserId::parse("ada").unwrap(), UserId::parse("bob").unwrap());
        let except = Except::new(vec![mine], vec![bob.clone()]);
        assert!(except.covers(mine, &ada) && except.covers(other, &bob));
        assert!(!except.covers(other, &ada) && !Except::NOBODY.covers(mine, &ada));
    }
}
