//! Globs: `project:*` matches every room whose name begins with `project:`. For backends that select rooms without
//! variables; rules use [`super::RoomPattern`].

use std::fmt;

/// The reason why a glob was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// A glob has at least one byte.
    #[error("is empty")]
    Empty,
    /// The glob is longer than the longest room name.
    #[error("is longer than 255 bytes")]
    TooLong,
    /// More than [`RoomGlob::STARS_MAX`] stars.
    #[error("holds more than 4 stars")]
    TooManyStars,
    /// The glob holds a control character, which no room name does.
    #[error("contains a control character")]
    ControlCharacter,
}

/// A room name in which each `*` matches any run of characters, even an empty one or one with colons.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RoomGlob(Box<str>);

impl RoomGlob {
    /// The most stars, which bound the work of a match.
    pub const STARS_MAX: usize = 4;

    /// Parses a glob.
    ///
    /// # Errors
    /// Every variant of [`GlobError`].
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > super::Room::NAME_BYTES_MAX {
            return Err(GlobError::TooLong);
        }
        if text.bytes().filter(|byte| *byte == b'*').count() > Self::STARS_MAX {
            return Err(GlobError::TooManyStars);
        }
        if text.chars().any(char::is_control) {
            return Err(GlobError::ControlCharacter);
        }
        Ok(Self(text.into()))
    }

    /// Reports whether a whole room name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some((head, tail)) = self.0.split_once('*') else {
            return *self.0 == *name;
        };
        let Some(rest) = name.strip_prefix(head) else {
            return false;
        };
        let (middle, last) = tail.rsplit_once('*').unwrap_or(("", tail));
        let Some(mut rest) = rest.strip_suffix(last) else {
            return false;
        };
        // The earliest match of each literal leaves the most text for the later ones, so there is no backtracking.
        for literal in middle.split('*') {
            let Some(at) = rest.find(literal) else {
                return false;
            };
            rest = &rest[at + literal.len()..];
        }
        true
    }

    /// Returns the glob as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RoomGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let cases = [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "x:y", true),
            ("project:*", "project:7:files", true),
            ("project:*", "project:", true),
            ("project:*", "user:7", false),
            ("*:admin", "a:b:admin", true),
            ("*:admin", "admin", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("*a*a*", "ba", false),
        ];
        for (glob, name, matches) in cases {
            assert_eq!(RoomGlob::parse(glob).unwrap().matches(name), matches, "{glob} {name}");
        }
    }

    #[test]
    fn globs_are_bounded() {
        assert_eq!(RoomGlob::parse(""), Err(GlobError::Empty));
        assert_eq!(RoomGlob::parse("*a*a*a*a*"), Err(GlobError::TooManyStars));
        assert_eq!(RoomGlob::parse(&"x".repeat(256)), Err(GlobError::TooLong));
        assert_eq!(RoomGlob::parse("a\nb"), Err(GlobError::ControlCharacter));
    }

    /// Matches by backtracking over all possibilities.
    fn naive(glob: &[u8], name: &[u8]) -> bool {
        match glob.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            Some((byte, rest)) => name.first() == Some(byte) && naive(rest, &name[1..]),
        }
    }

    proptest::proptest! {
        #[test]
        fn matching_agrees_with_trying_everything(glob in "[ab*]{1,8}", name in "[ab]{0,10}") {
            if let Ok(parsed) = RoomGlob::parse(&glob) {
                proptest::prop_assert_eq!(parsed.matches(&name), naive(glob.as_bytes(), name.as_bytes()));
            }
        }
    }
}
