//! The kinds of value a configuration holds beyond what serde reads by itself: sizes and secrets.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: `65536`, or text with a unit such as `"64 KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct Size(pub usize);

/// The units, largest first: printing takes the first that divides the number.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// Reads `"64 KiB"`; units are B, KiB, MiB and GiB.
    fn read(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start())?;
        number.parse::<usize>().ok()?.checked_mul(factor).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &(&str, usize)| self.0 >= *factor && self.0 % factor == 0;
        let (unit, factor) = UNITS.into_iter().find(fits).unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64 KiB\", or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        Size::read(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        usize::try_from(bytes)
            .map(Size)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        let unsigned = u64::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))?;
        self.visit_u64(unsigned)
    }
}

/// Something that must not be seen: printed as `***` everywhere.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for whoever checks or signs with it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Why a secret or a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Both the value and the file are given.
    #[error("is given together with its `_file` twin; keep one of them")]
    Twice,
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds nothing.
    #[error("the file {0} is empty")]
    Empty(PathBuf),
}

/// The value itself, or what its `_file` twin holds (without the line break at its end).
pub(super) fn resolve(value: Option<&str>, file: Option<&Path>) -> Result<Option<String>, SecretError> {
    let path = match (value, file) {
        (Some(_), Some(_)) => return Err(SecretError::Twice),
        (Some(value), None) => return Ok(Some(value.to_owned())),
        (None, None) => return Ok(None),
        (None, Some(path)) => path,
    };
    let text = std::fs::read_to_string(path).map_err(|source| SecretError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(SecretError::Empty(path.to_owned())),
        text => Ok(Some(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_with_and_without_a_unit() {
        for (text, bytes) in [("64 KiB", 65536), ("1MiB", 1 << 20), ("17 B", 17), ("0 B", 0)] {
            assert_eq!(Size::read(text), Some(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "KiB",
            "64",
            "64 kb",
            "-1 KiB",
            "1.5 MiB",
            "99999999999999999999 B",
            "99999999999 GiB",
        ] {
            assert_eq!(Size::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_printed_size_is_read_back() {
        for bytes in [0, 1, 1000, 1024, 65536, 1 << 20, (1 << 30) + 1024] {
            assert_eq!(Size::read(&Size(bytes).to_string()), Some(Size(bytes)));
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        let printed = format!("{secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
