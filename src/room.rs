//! Room names: parsed once, bounded, compared as bytes, tenant-scoped by construction.
//!
//! A [`Room`] can only be made from a [`Tenant`] and a validated name. So the room `project:7` of tenant `a` and the
//! room `project:7` of tenant `b` are two values that never compare equal. This module knows no wire, no bus and no
//! permission.

mod glob;
mod pattern;

use std::fmt;
use std::sync::Arc;

pub use glob::{GlobError, RoomGlob};
pub use pattern::{Captures, PatternError, RoomPattern};

/// Separates tenant and name inside a [`Room`]'s key. Control characters are refused in both, so the split is
/// unambiguous.
const SEPARATOR: char = '\0';

/// The reason why a tenant or a room name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// A tenant and a room name have at least one byte.
    #[error("is empty")]
    Empty,
    /// The name is longer than its bound.
    #[error("is longer than {max} bytes")]
    TooLong {
        /// The bound, in bytes.
        max: usize,
    },
    /// The name holds a control character (Unicode category Cc).
    #[error("contains a control character")]
    ControlCharacter,
}

fn check(text: &str, bytes_max: usize) -> Result<(), RoomError> {
    if text.len() > bytes_max {
        return Err(RoomError::TooLong { max: bytes_max });
    }
    if text.chars().any(char::is_control) {
        return Err(RoomError::ControlCharacter);
    }
    Ok(())
}

/// One customer of the backend: the scope of every room, user and history.
///
/// Never empty: a missing tenant must not pass for one. A deployment without tenants uses [`Tenant::default`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The longest tenant, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Parses a tenant.
    ///
    /// # Errors
    /// Every variant of [`RoomError`].
    pub fn parse(text: &str) -> Result<Self, RoomError> {
        if text.is_empty() {
            return Err(RoomError::Empty);
        }
        check(text, Self::BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// Returns the tenant as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reports whether another clone shares this copy of the name.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Default for Tenant {
    /// Returns the tenant `default`.
    fn default() -> Self {
        Self("default".into())
    }
}

/// One room of one tenant. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Room {
    key: Arc<str>,
}

impl Room {
    /// The longest room name, in bytes (tenant not counted).
    pub const NAME_BYTES_MAX: usize = 255;

    /// Parses a room name within a tenant.
    ///
    /// # Errors
    /// Every variant of [`RoomError`].
    pub fn parse(tenant: &Tenant, name: &str) -> Result<Self, RoomError> {
        if name.is_empty() {
            return Err(RoomError::Empty);
        }
        check(name, Self::NAME_BYTES_MAX)?;
        let mut key = String::with_capacity(tenant.0.len() + 1 + name.len());
        key.push_str(&tenant.0);
        key.push(SEPARATOR);
        key.push_str(name);
        Ok(Self { key: key.into() })
    }

    /// Returns the room for events and requests that concern no room: an event sent to one connection, a request
    /// without a room. No command can name it, so it is never joined or published to.
    #[must_use]
    pub fn nameless(tenant: &Tenant) -> Self {
        let key = format!("{}{SEPARATOR}", tenant.0);
        Self { key: key.into() }
    }

    /// Reports whether this is the [`Self::nameless`] room of its tenant.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.key.ends_with(SEPARATOR)
    }

    /// Reports whether this is the room of that name in that tenant.
    #[must_use]
    pub fn is(&self, tenant: &Tenant, name: &str) -> bool {
        let rest = self.key.strip_prefix(&*tenant.0);
        rest.and_then(|rest| rest.strip_prefix(SEPARATOR)) == Some(name)
    }

    fn separator(&self) -> usize {
        self.key
            .find(SEPARATOR)
            .expect("a room is only made with a separator in its key")
    }

    /// Returns the tenant of the room.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.key[..self.separator()]
    }

    /// Returns the room's name, as clients and backends write it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.key[self.separator() + 1..]
    }

    /// Returns the bytes that identify the room: the tenant, a NUL byte and the name. Injective by construction.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant().escape_debug(), self.name().escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(tenant: &str, name: &str) -> Room {
        Room::parse(&Tenant::parse(tenant).unwrap(), name).unwrap()
    }

    #[test]
    fn same_name_in_two_tenants_is_two_rooms() {
        assert_ne!(room("a", "project:7"), room("b", "project:7"));
        assert_eq!(room("a", "project:7"), room("a", "project:7"));
        assert_ne!(room("a", "b:c"), room("a:b", "c"));
    }

    #[test]
    fn a_nameless_room_is_no_room_of_a_name() {
        let direct = Room::nameless(&Tenant::parse("a").unwrap());
        assert_eq!((direct.tenant(), direct.name()), ("a", ""));
        assert!(direct.is_nameless() && !room("a", "b").is_nameless());
    }

    #[test]
    fn names_are_compared_as_bytes_without_normalization() {
        assert_ne!(room("t", "Caf\u{e9}"), room("t", "Cafe\u{301}"));
        assert_ne!(room("t", "Room"), room("t", "room"));
    }

    #[test]
    fn a_tenant_that_was_forgotten_passes_for_none() {
        assert_eq!(Tenant::parse(""), Err(RoomError::Empty));
        assert_eq!(Tenant::parse("default"), Ok(Tenant::default()));
    }

    #[test]
    fn empty_long_and_control_names_are_refused() {
        let tenant = Tenant::default();
        assert_eq!(Room::parse(&tenant, ""), Err(RoomError::Empty));
        let long = "x".repeat(Room::NAME_BYTES_MAX + 1);
        assert_eq!(Room::parse(&tenant, &long), Err(RoomError::TooLong { max: 255 }));
        for name in ["a\0b", "a\r\nb", "\u{7f}", "\u{85}"] {
            assert_eq!(Room::parse(&tenant, name), Err(RoomError::ControlCharacter), "{name:?}");
        }
        for name in ["*", ">", "a.b", "$JS.API.>", "_INBOX.x", &long[1..]] {
            assert_eq!(Room::parse(&tenant, name).unwrap().name(), name);
        }
    }

    proptest::proptest! {
        #[test]
        fn rooms_are_equal_only_when_tenant_and_name_are(
            a in "[a-c:]{1,3}", b in "[a-c:]{1,3}", c in "[a-c:]{1,3}", d in "[a-c:]{1,3}",
        ) {
            let (left, right) = (room(&a, &b), room(&c, &d));
            proptest::prop_assert_eq!(left == right, a == c && b == d);
            proptest::prop_assert_eq!(left.key() == right.key(), a == c && b == d);
            proptest::prop_assert_eq!((left.tenant(), left.name()), (a.as_str(), b.as_str()));
        }
    }
}
