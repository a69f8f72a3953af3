//! Grants of credentials, and digests of tokens.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use crate::rate::Rate;

/// A right that a credential may grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Publish events.
    Publish,
    /// Read members, history, statistics and decisions.
    Read,
    /// Join, remove, disconnect and revoke.
    Manage,
    /// Watch joins, leaves and connections.
    Watch,
    /// Receive the events of rooms.
    Subscribe,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Read, Self::Manage, Self::Watch, Self::Subscribe];

    /// Returns the scope's name in settings, claims and errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Manage => "manage",
            Self::Watch => "watch",
            Self::Subscribe => "subscribe",
        }
    }

    /// Returns the scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// The rights of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The service's name, for logs, rates and the permits' rule.
    pub name: String,
    /// The granted scopes.
    pub scopes: Vec<Scope>,
    /// The tenants; `None` for all.
    pub tenants: Option<Vec<String>>,
    /// The publish rate; `None` for the listener's default.
    pub publish_rate: Option<Rate>,
}

/// The SHA-256 digest of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Computes the digest of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Reads a digest as `sha256sum` writes it: 64 hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Compares in constant time.
    pub(super) fn same(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}
