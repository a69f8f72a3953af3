//! Who is connected: users, connections, and the identity a token proved.

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

/// The user id is empty, longer than [`UserId::BYTES_MAX`] or holds a control character.
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

    /// The user id as it was given.
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

/// The token id is empty or longer than [`TokenId::BYTES_MAX`].
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

    /// The text.
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

/// One connection of one user: 96 random bits and the slot it has where it is served, written as 32 hexadecimal digits.
/// Public within its tenant; it is no credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Not zero, so that a value beside an identifier costs no room for saying which of the two it is.
    high: NonZeroU64,
    low: u64,
}

/// The text is not a connection id that any gateway has written.
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

    /// Draws a new identifier for the connection in a slot, by which it is found again without a table.
    #[must_use]
    pub fn for_slot(slot: u32) -> Self {
        Self {
            high: rand::random(),
            low: rand::random::<u64>() << 32 | u64::from(slot),
        }
    }

    /// The slot it was drawn for. Whether the connection there is this one has still to be compared.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the slot")]
    pub const fn slot(self) -> u32 {
        self.low as u32
    }

    /// The identifier's bits.
    #[must_use]
    pub fn bits(self) -> u128 {
        u128::from(self.high.get()) << 64 | u128::from(self.low)
    }

    /// The identifier with these bits; `None` when no gateway has drawn it.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken by itself")]
    pub const fn from_bits(bits: u128) -> Option<Self> {
        match NonZeroU64::new((bits >> 64) as u64) {
            Some(high) => Some(Self { high, low: bits as u64 }),
            None => None,
        }
    }

    /// Half of it, which is random: enough to tell the connections of a room apart.
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

/// Seconds since the Unix epoch from which a token proves nothing any more: its `exp` (RFC 7519 section 4.1.4) and the
/// leeway for the issuer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(pub u64);

impl Expiry {
    /// How long until then, by the wall clock; zero when it is past.
    #[must_use]
    pub fn left(self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::from_secs(self.0).saturating_sub(now)
    }
}

/// All claims of a token, as a JSON object. Kept as text: it is parsed only where a rule asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims(Box<str>);

impl Claims {
    /// The text of the object.
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

/// What a verified token said about its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The tenant; `default` in a deployment without tenants.
    pub tenant: Tenant,
    /// The user.
    pub user: UserId,
    /// All claims of the token.
    pub claims: Claims,
    /// When the session ends unless a newer token is given.
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
