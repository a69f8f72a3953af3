//! A revocation: whose access is withdrawn, from which rooms, until when.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::event::Timestamp;
use crate::identity::{ConnectionId, Identity, TokenId, UserId};
use crate::notice::Notice;
use crate::room::{Room, RoomGlob, Tenant};

/// Names one revocation: when it was made, and 80 random bits; written as 32 hexadecimal digits. Later ones sort later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevocationId(u128);

/// The text is not an id of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a revocation is 32 lowercase hexadecimal digits")]
pub struct RevocationIdError;

impl RevocationId {
    const RANDOM_BITS: u32 = 80;

    /// Draws the id of a revocation that is made now.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let random = rand::random::<u128>() >> (u128::BITS - Self::RANDOM_BITS);
        Self(u128::from(now.0) << Self::RANDOM_BITS | random)
    }

    /// The id's bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The id with these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RevocationId {
    type Err = RevocationIdError;

    fn from_str(text: &str) -> Result<Self, RevocationIdError> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bits = canonical.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        bits.map(Self).ok_or(RevocationIdError)
    }
}

impl TokenId {
    /// The id of the token that an identity came with, if it has one.
    #[must_use]
    pub fn of(identity: &Identity) -> Option<Self> {
        TokenFacts::of(identity).id()
    }
}

/// The subject whose access a revocation withdraws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationSubject {
    /// Every session of a user.
    User(UserId),
    /// One connection.
    Connection(ConnectionId),
    /// Every session whose present token has this id.
    Token(TokenId),
}

/// The rooms that a revocation covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationScope {
    /// One room.
    Room(Room),
    /// Every room whose name matches.
    Pattern(RoomGlob),
    /// Every room of the tenant.
    Everything,
}

/// The subject and the rooms of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The tenant.
    pub tenant: Tenant,
    /// The subject.
    pub subject: RevocationSubject,
    /// Only sessions whose present token was issued (`iat`) before this. A token that does not say when counts as older.
    pub issued_before: Option<Timestamp>,
    /// The rooms.
    pub scope: RevocationScope,
}

impl Revocation {
    /// Reports whether this session is kept out of this room.
    #[must_use]
    pub fn covers(&self, bearer: Bearer<'_>, room: &Room) -> bool {
        self.covers_known(bearer, &TokenFacts::of(bearer.identity), room)
    }

    /// The same, where several revocations are asked about one session: its claims are read once at most.
    pub(super) fn covers_known(&self, bearer: Bearer<'_>, facts: &TokenFacts<'_>, room: &Room) -> bool {
        // What costs nothing goes first: claims are read only for sessions that everything else fits.
        self.reaches(room) && self.is_of(bearer, facts) && self.is_older(facts)
    }

    /// Reports whether it covers this session in some room.
    #[must_use]
    pub fn hits(&self, bearer: Bearer<'_>) -> bool {
        let facts = TokenFacts::of(bearer.identity);
        bearer.identity.tenant == self.tenant && self.is_of(bearer, &facts) && self.is_older(&facts)
    }

    /// Reports whether it covers some session in this room.
    #[must_use]
    pub fn reaches(&self, room: &Room) -> bool {
        self.tenant.as_str() == room.tenant()
            && match &self.scope {
                RevocationScope::Room(revoked) => revoked == room,
                RevocationScope::Pattern(glob) => glob.matches(room.name()),
                RevocationScope::Everything => true,
            }
    }

    /// Reports whether it may cover sessions of this user.
    #[must_use]
    pub fn may_hit(&self, user: &UserId) -> bool {
        match &self.subject {
            RevocationSubject::User(revoked) => revoked == user,
            RevocationSubject::Connection(_) | RevocationSubject::Token(_) => true,
        }
    }

    fn is_of(&self, bearer: Bearer<'_>, facts: &TokenFacts<'_>) -> bool {
        match &self.subject {
            RevocationSubject::User(user) => *user == bearer.identity.user,
            RevocationSubject::Connection(connection) => *connection == bearer.connection,
            RevocationSubject::Token(id) => facts.may_name(id) && facts.read().id.as_deref() == Some(id.as_str()),
        }
    }

    fn is_older(&self, facts: &TokenFacts<'_>) -> bool {
        let Some(before) = self.issued_before else {
            return true;
        };
        facts.read().issued.is_none_or(|issued| issued < before)
    }
}

/// A session as revocations see it.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    /// The identity of its present token.
    pub identity: &'a Identity,
    /// Its connection.
    pub connection: ConnectionId,
}

/// A revocation that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationEntry {
    /// Names it.
    pub id: RevocationId,
    /// The subject and the rooms.
    pub revocation: Revocation,
    /// The time at which it was made.
    pub created: Timestamp,
    /// The time at which it ends by itself.
    pub expires: Timestamp,
    /// The notice to clients.
    pub notice: Notice,
}

impl RevocationEntry {
    /// Returns the time for which it stays in force from `now` on.
    #[must_use]
    pub const fn left(&self, now: Timestamp) -> Duration {
        Duration::from_millis(self.expires.0.saturating_sub(now.0))
    }
}

/// The facts of a token that revocations depend on. Read from the claims when first asked for, never kept beside a session.
pub(super) struct TokenFacts<'a> {
    claims: &'a str,
    read: OnceCell<Facts<'a>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Facts<'a> {
    issued: Option<Timestamp>,
    id: Option<Cow<'a, str>>,
}

impl<'a> TokenFacts<'a> {
    pub(super) fn of(identity: &'a Identity) -> Self {
        Self {
            claims: identity.claims.as_str(),
            read: OnceCell::new(),
        }
    }

    /// Cheap, and false for nearly every other token: a text that is nowhere in the claims is no claim, unless escapes hide it.
    fn may_name(&self, id: &TokenId) -> bool {
        self.read.get().is_some() || self.claims.contains(id.as_str()) || self.claims.contains('\\')
    }

    /// The token's id, if it has one.
    pub(super) fn id(&self) -> Option<TokenId> {
        TokenId::parse(self.read().id.as_deref()?).ok()
    }

    fn read(&self) -> &Facts<'a> {
        self.read.get_or_init(|| {
            let mut reader = serde_json::Deserializer::from_str(self.claims);
            // Claims that are no object have neither: the token counts as older than every moment, and has no id.
            reader.deserialize_map(FactsVisitor).unwrap_or_default()
        })
    }
}

struct FactsVisitor;

impl<'de> Visitor<'de> for FactsVisitor {
    type Value = Facts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the claims of a token")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Facts<'de>, M::Error> {
        let mut facts = Facts::default();
        while let Some(Text(name)) = members.next_key()? {
            match &*name {
                "iat" => facts.issued = issued(&members.next_value()?),
                "jti" => {
                    facts.id = match members.next_value()? {
                        Value::String(id) => Some(id.into()),
                        _ => None,
                    };
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(facts)
    }
}

/// A string of the text, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a numeric date (RFC 7519 section 2): seconds, which may have a fraction.
fn issued(value: &Value) -> Option<Timestamp> {
    let seconds = value
        .as_f64()
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is positive, and the cast stops at the largest number"
    )]
    Some(Timestamp((seconds * 1000.0) as u64))
}

#[cfg(test)]
mod tests;
