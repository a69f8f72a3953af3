//! Checked JSON text: what may be relayed to clients as it was written.
//!
//! A relay that only checks syntax passes on what breaks its readers: nesting that overflows a stack, lone surrogates,
//! `__proto__` keys. [`Json::parse`] reads every value once and keeps the text.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON text that [`Json::parse`] has accepted. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Bytes);

/// Why a JSON text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not acceptable JSON: {0}")]
pub struct JsonError(String);

impl Json {
    /// The deepest nesting of arrays and objects.
    pub const DEPTH_MAX: usize = 32;

    /// Checks a JSON text (RFC 8259): UTF-8, one value, no lone surrogates, nesting of at most [`Self::DEPTH_MAX`], no
    /// `__proto__` key at any level.
    ///
    /// # Errors
    /// [`JsonError`] says where and why.
    pub fn parse(text: impl Into<Bytes>) -> Result<Self, JsonError> {
        let text = text.into();
        let mut reader = serde_json::Deserializer::from_slice(&text);
        let checked = Level(Self::DEPTH_MAX)
            .deserialize(&mut reader)
            .and_then(|()| reader.end());
        checked.map_err(|error| JsonError(error.to_string()))?;
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("serde_json accepts only UTF-8 inside strings and ASCII outside")
    }

    /// The text's bytes, shared.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl From<&serde_json::Value> for Json {
    /// Keeps a value the gateway itself has built; it is not checked again.
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

/// Reads one value and everything in it, with so many levels of nesting left.
struct Level(usize);

impl Level {
    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        self.0
            .checked_sub(1)
            .map(Self)
            .ok_or_else(|| E::custom(format_args!("nested deeper than {} levels", Json::DEPTH_MAX)))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self(self.deeper()?.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_key_seed(Key)?.is_some() {
            entries.next_value_seed(Self(self.deeper()?.0))?;
        }
        Ok(())
    }
}

/// Reads a key. `__proto__` reaches the prototype of an object that a careless reader merges it into.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        if key == "__proto__" {
            Err(E::custom("the key `__proto__` is not allowed"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_values_are_kept_as_they_were_written() {
        for text in [
            "null",
            " {\"a\" : [1, 2.50, -3e9, true]} ",
            "\"\\ud83d\\ude00\"",
            "123456789012345678901234567890",
        ] {
            assert_eq!(Json::parse(text.as_bytes().to_vec()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_breaks_readers_is_refused() {
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        let bomb = "[".repeat(1_000_000);
        let texts = [
            "",
            "{",
            "1 2",
            "nul",
            "\"\\ud800\"",
            "\"\\udc00x\"",
            "{\"__proto__\":1}",
            "[{\"a\":{\"__proto__\":{}}}]",
            "{\"\\u005f_proto__\":1}",
            "{a:1}",
            "\"\n\"",
            &deep,
            &bomb,
        ];
        for text in texts {
            assert!(
                Json::parse(text.as_bytes().to_vec()).is_err(),
                "{}",
                &text[..text.len().min(40)]
            );
        }
        assert!(Json::parse(vec![b'"', 0xff, b'"']).is_err());
    }

    #[test]
    fn thirty_two_levels_are_accepted() {
        let text = format!("{}{}", "[".repeat(32), "]".repeat(32));
        assert!(Json::parse(text.into_bytes()).is_ok());
    }
}
