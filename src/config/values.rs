//! Notations of values for which serde or TOML have none: sizes, times and rates.
//!
//! Each is a type that stands for the notation, used as `#[serde(with = "..")]` on a plain field. So components keep their
//! plain types.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::bus::ReadBounds;
use crate::rate::Rate;

/// Describes a notation where it is used: in the schema it has no name of its own.
macro_rules! inline_schema {
    ($notation:ident, $schema:tt) => {
        impl JsonSchema for $notation {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($notation).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// A number of bytes: `65536`, or text with a unit such as `"64 KiB"`.
pub(super) struct Size;

/// The units, largest first: printing takes the first that divides the number.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Self::write(*bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }

    fn write(bytes: usize) -> String {
        let fits = |(_, factor): &(&str, usize)| bytes >= *factor && bytes.is_multiple_of(*factor);
        let (unit, factor) = UNITS.into_iter().find(fits).unwrap_or(("B", 1));
        format!("{} {unit}", bytes / factor)
    }

    fn read(text: &str) -> Option<usize> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start())?;
        number.parse::<usize>().ok()?.checked_mul(factor)
    }
}

inline_schema!(Size, { "type": ["string", "integer"], "format": "size" });

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64 KiB\", or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
        Size::read(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }
}

/// A length of time with its unit: `"500ms"`, `"2m"`, `"1h 30m"`.
pub(super) struct Time;

impl Time {
    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        humantime_serde::serialize(time, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        humantime_serde::deserialize(deserializer)
    }
}

inline_schema!(Time, { "type": "string", "format": "duration" });

/// A time that makes the gateway useless, or busy, when it is zero.
pub(super) struct PositiveTime;

impl PositiveTime {
    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        Time::serialize(time, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let time = Time::deserialize(deserializer)?;
        refuse_zero(time, "must be longer than zero")
    }
}

inline_schema!(PositiveTime, { "type": "string", "format": "duration" });

/// A number of bytes that refuses everything when it is zero.
pub(super) struct PositiveSize;

impl PositiveSize {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        Size::serialize(bytes, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let bytes = Size::deserialize(deserializer)?;
        refuse_zero(bytes, "must be at least 1")
    }
}

inline_schema!(PositiveSize, { "type": ["string", "integer"], "format": "size", "minimum": 1 });

/// A number that refuses everything when it is zero.
pub(super) struct Positive;

impl Positive {
    pub(super) fn serialize<T: Serialize, S: Serializer>(number: &T, serializer: S) -> Result<S::Ok, S::Error> {
        number.serialize(serializer)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: Deserialize<'de> + Default + PartialEq,
        D: Deserializer<'de>,
    {
        let number = T::deserialize(deserializer)?;
        refuse_zero(number, "must be at least 1")
    }
}

inline_schema!(Positive, { "type": "integer", "format": "uint", "minimum": 1 });

/// Zero is the default of numbers and times.
fn refuse_zero<T: Default + PartialEq, E: de::Error>(value: T, message: &str) -> Result<T, E> {
    if value == T::default() {
        return Err(E::custom(message));
    }
    Ok(value)
}

/// A token bucket's rate.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Rate", deny_unknown_fields)]
pub(super) struct Rated {
    /// Steady rate, per second. At least 1.
    #[serde(with = "Positive")]
    per_second: u32,
    /// The most at once after a pause. At least 1.
    #[serde(with = "Positive")]
    burst: u32,
}

/// An optional rate; `remote` types cannot be inside an `Option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RateSetting(#[serde(with = "Rated")] pub Rate);

/// Bounds of one read.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "ReadBounds", deny_unknown_fields)]
pub(super) struct Bounded {
    /// The most events.
    events_max: usize,
    /// The most payload bytes, summed.
    #[serde(with = "Size")]
    bytes_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_with_its_unit() {
        for (text, bytes) in [("64 KiB", 65536), ("1MiB", 1 << 20), ("17 B", 17), ("0 B", 0)] {
            assert_eq!(Size::read(text), Some(bytes), "{text}");
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
    fn zero_is_refused_where_it_would_stop_the_gateway() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct Settings {
            #[serde(with = "Positive")]
            number: u32,
            #[serde(with = "PositiveSize")]
            size: usize,
            #[serde(with = "PositiveTime")]
            time: Duration,
        }
        let read = |number, size: &str, time: &str| {
            let text = format!("number = {number}\nsize = \"{size}\"\ntime = \"{time}\"");
            toml::from_str::<Settings>(&text).map_err(|error| error.message().to_owned())
        };
        assert!(read(1, "1 B", "1ms").is_ok());
        assert_eq!(read(0, "1 B", "1ms").unwrap_err(), "must be at least 1");
        assert_eq!(read(1, "0 B", "1ms").unwrap_err(), "must be at least 1");
        assert_eq!(read(1, "1 B", "0s").unwrap_err(), "must be longer than zero");
    }

    proptest::proptest! {
        #[test]
        fn a_printed_size_is_read_back(bytes: u32, shift in 0..30_u32) {
            let bytes = (bytes as usize) << shift;
            proptest::prop_assert_eq!(Size::read(&Size::write(bytes)), Some(bytes));
        }
    }
}
