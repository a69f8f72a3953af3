//! The identities of clients: users, connections, and the content of a verified token.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::json::Json;
use crate::room::Tenant;

/// A user within a tenant, as the token's subject names it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// The error for a user id that is empty, longer than [`UserId::BYTES_MAX`] or holds a control character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a user id has 1 to 128 bytes and no control characters")]
pub struct UserIdError;

impl UserId {
    /// The longest user id, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// Parses a user id.
    ///
    /// # Errors
    /// [`UserIdError`].
    pub fn parse(text: &str) -> Result<Self, UserIdError> {
        let valid = (1..=Self::BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if valid { Ok(Self(text.into())) } else { Err(UserIdError) }
    }

    /// Returns the user id as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The id of a token: its `jti` claim (RFC 7519 section 4.1.7). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(Arc<str>);

/// The error for a token id that is empty or longer than [`TokenId::BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token id has 1 to 256 bytes")]
pub struct TokenIdError;

impl TokenId {
    /// The longest token id, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Parses a token id.
    ///
    /// # Errors
    /// [`TokenIdError`].
    pub fn parse(text: &str) -> Result<Self, TokenIdError> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        fits.then(|| Self(text.into())).ok_or(TokenIdError)
    }

    /// Returns the token id as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// One connection of one user: 96 random bits and the slot on its shard, written as 32 hexadecimal digits. Public
/// within its tenant; it is no credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Not zero, so that an enum of an identifier or another value needs no space for its tag.
    high: NonZeroU64,
    low: u64,
}

/// The error for a text that no gateway has written as a connection id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection id is 32 lowercase hexadecimal digits, the first 16 not all zero")]
pub struct ConnectionIdError;

impl ConnectionId {
    /// Draws a new identifier.
    #[must_use]
    pub fn random() -> Self {
        Self {
            high: rand::random(),
            low: rand::random(),
        }
    }

    /// Draws a new identifier for the connection in a slot, which is found by it without a table.
    #[must_use]
    pub fn for_slot(slot: u32) -> Self {
        Self {
            high: rand::random(),
            low: rand::random::<u64>() << 32 | u64::from(slot),
        }
    }

    /// Returns the slot that it was drawn for. The caller must still compare the connection there.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the slot")]
    pub const fn slot(self) -> u32 {
        self.low as u32
    }

    /// Returns the identifier's bits.
    #[must_use]
    pub fn bits(self) -> u128 {
        u128::from(self.high.get()) << 64 | u128::from(self.low)
    }

    /// Returns the identifier with these bits; `None` when no gateway has drawn it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken by itself")]
    pub const fn from_bits(bits: u128) -> Option<Self> {
        match NonZeroU64::new((bits >> 64) as u64) {
            Some(high) => Some(Self { high, low: bits as u64 }),
            None => None,
        }
    }

    /// Returns the random half: enough to distinguish the connections of a room.
    #[must_use]
    pub const fn half(self) -> NonZeroU64 {
        self.high
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ConnectionId {
    type Err = ConnectionIdError;

    fn from_str(text: &str) -> Result<Self, ConnectionIdError> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return Err(ConnectionIdError);
        }
        let half = |text: &str| u64::from_str_radix(text, 16).map_err(|_| ConnectionIdError);
        Ok(Self {
            high: NonZeroU64::new(half(&text[..16])?).ok_or(ConnectionIdError)?,
            low: half(&text[16..])?,
        })
    }
}

/// The time from which a token proves nothing any more, in seconds since the Unix epoch: its `exp` (RFC 7519 section
/// 4.1.4) plus the leeway for the issuer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(pub u64);

impl Expiry {
    /// Returns the time left, by the wall clock; zero when it is past.
    #[must_use]
    pub fn left(self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(self.0).saturating_sub(now)
    }
}

/// All claims of a token, as a JSON object. Kept as text: it is parsed only where a rule needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims(Box<str>);

impl Claims {
    /// Returns the text of the object.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Json> for Claims {
    fn from(json: Json) -> Self {
        Self(json.as_str().into())
    }
}

/// The content of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant; `default` in a deployment without tenants.
    pub tenant: Tenant,
    /// The user.
    pub user: UserId,
    /// All claims of the token.
    pub claims: Claims,
    /// The time at which the session ends unless the client presents a newer token.
    pub expiry: Expiry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_is_read_back_as_it_was_written() {
        let id = ConnectionId::for_slot(7);
        assert_eq!((id.to_string().parse(), id.slot()), (Ok(id), 7));
        for text in [
            "",
            "0",
            "11111111111111111111111111111111z",
            "00000000000000001111111111111111",
            "DEADBEEFDEADBEEFDEADBEEFDEADBEEF",
        ] {
            assert_eq!(text.parse::<ConnectionId>(), Err(ConnectionIdError), "{text}");
        }
    }

    #[test]
    fn user_ids_are_bounded() {
        assert!(UserId::parse("").is_err() && UserId::parse("a\0").is_err());
        assert!(UserId::parse(&"u".repeat(129)).is_err() && UserId::parse(&"u".repeat(128)).is_ok());
    }
}
