//! The fields of a JSON object, read one by one as what they are meant to be.
//!
//! For objects that are commands and not content: a number is taken for an integer where it equals one, however it is
//! written; `null` is a field that is absent; an array is no object; and a field that comes twice is refused, so that no
//! reader behind or beside us can see another value in the same text.

use std::borrow::Cow;

use serde::Deserializer as _;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The most fields of one object. No object of ours has as many.
const FIELDS_MAX: usize = 64;

/// Why a text is no object.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoObject(#[from] serde_json::Error);

/// A field that is there and is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` must be {wanted}")]
pub struct WrongField {
    /// Its name.
    pub field: &'static str,
    /// What it should be.
    pub wanted: &'static str,
}

/// The fields of one object that have not been taken yet, each with its value as text.
#[derive(Debug, Default)]
pub struct Fields<'t> {
    left: Vec<(Cow<'t, str>, &'t str)>,
}

impl<'t> Fields<'t> {
    /// Takes an object apart. Its values are known to be JSON then, and not looked into.
    ///
    /// # Errors
    /// [`NoObject`] when the text is not one JSON object, or has a field twice.
    pub fn parse(text: &'t str) -> Result<Self, NoObject> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let fields = reader.deserialize_map(Reader)?;
        reader.end()?;
        Ok(fields)
    }

    /// A value as it is written; `null` is one.
    pub fn value(&mut self, field: &str) -> Option<&'t str> {
        let index = self.left.iter().position(|(name, _)| name == field)?;
        Some(self.left.swap_remove(index).1)
    }

    /// The same, where `null` stands for nothing.
    pub fn present(&mut self, field: &str) -> Option<&'t str> {
        self.value(field).filter(|value| *value != "null")
    }

    /// A text; empty when it is absent.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn text(&mut self, field: &'static str) -> Result<String, WrongField> {
        self.optional_text(field).map(Option::unwrap_or_default)
    }

    /// A text, or none.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn optional_text(&mut self, field: &'static str) -> Result<Option<String>, WrongField> {
        let wrong = |_| WrongField {
            field,
            wanted: "a text",
        };
        self.present(field)
            .map(|value| serde_json::from_str(value).map_err(wrong))
            .transpose()
    }

    /// A flag; false when it is absent.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn flag(&mut self, field: &'static str) -> Result<bool, WrongField> {
        match self.present(field) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(WrongField {
                field,
                wanted: "true or false",
            }),
        }
    }

    /// An integer, or none.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn integer<T: TryFrom<u64>>(&mut self, field: &'static str) -> Result<Option<T>, WrongField> {
        let Some(value) = self.present(field) else {
            return Ok(None);
        };
        let read = integer(value).and_then(|number| T::try_from(number).ok());
        let wrong = || WrongField {
            field,
            wanted: "an integer within its range, and not negative",
        };
        read.map(Some).ok_or_else(wrong)
    }

    /// An object, or none.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn object(&mut self, field: &'static str) -> Result<Option<Self>, WrongField> {
        let wrong = |_| WrongField {
            field,
            wanted: "an object",
        };
        self.present(field)
            .map(|value| Self::parse(value).map_err(wrong))
            .transpose()
    }

    /// The elements of an array as they are written; none when it is absent.
    ///
    /// # Errors
    /// [`WrongField`].
    pub fn list(&mut self, field: &'static str) -> Result<Vec<&'t str>, WrongField> {
        let Some(value) = self.present(field) else {
            return Ok(Vec::new());
        };
        let wrong = |_| WrongField {
            field,
            wanted: "an array",
        };
        let elements: Vec<&'t RawValue> = serde_json::from_str(value).map_err(wrong)?;
        Ok(elements.into_iter().map(RawValue::get).collect())
    }

    /// A field that nobody has taken.
    #[must_use]
    pub fn other(&self) -> Option<(&str, &'t str)> {
        self.left.first().map(|(name, value)| (&**name, *value))
    }
}

struct Reader;

impl<'t> Visitor<'t> for Reader {
    type Value = Fields<'t>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut entries: A) -> Result<Fields<'t>, A::Error> {
        let mut left: Vec<(Cow<'t, str>, &'t str)> = Vec::new();
        while let Some(Name(name)) = entries.next_key()? {
            if left.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom(format_args!("the field `{name}` comes twice")));
            }
            if left.len() == FIELDS_MAX {
                return Err(de::Error::custom("too many fields"));
            }
            let value: &'t RawValue = entries.next_value()?;
            left.push((name, value.get()));
        }
        Ok(Fields { left })
    }
}

/// A name, borrowed where nothing in it is escaped.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'t>(#[serde(borrow)] Cow<'t, str>);

/// The integer that a JSON number is equal to, read exactly: `77`, `77.0` and `7.7e1` are one. `None` for what is not a
/// number, is negative, has a fraction or is above 64 bits.
fn integer(number: &str) -> Option<u64> {
    if let Ok(plain) = number.parse() {
        return number
            .starts_with(|first: char| first.is_ascii_digit())
            .then_some(plain);
    }
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        // An exponent that does not fit belongs to 0 or to no integer of 64 bits.
        Some((mantissa, exponent)) => (
            mantissa,
            exponent
                .parse()
                .unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX }),
        ),
        None => (number, 0_i64),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some(0);
    }
    if number.starts_with('-') {
        return None;
    }
    let zeros = i64::try_from(digits.len() - trimmed.len()).ok()?;
    let scale = exponent
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(zeros)?;
    let power = 10_u64.checked_pow(u32::try_from(scale).ok()?)?;
    trimmed.trim_start_matches('0').parse::<u64>().ok()?.checked_mul(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_integer_it_equals() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0.0", Some(0)),
            ("-0.0e9", Some(0)),
            ("0e99999999999999999999", Some(0)),
            ("1.0", Some(1)),
            ("77.0", Some(77)),
            ("77.000", Some(77)),
            ("7.7e1", Some(77)),
            ("1e2", Some(100)),
            ("1E+2", Some(100)),
            ("1200e-2", Some(12)),
            ("0.5e1", Some(5)),
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("18446744073709551615", Some(u64::MAX)),
            ("1.8446744073709551615e19", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("1e20", None),
            ("1e400", None),
            ("1e99999999999999999999", None),
            ("1e-99999999999999999999", None),
            ("1.5", None),
            ("77.01", None),
            ("1e-1", None),
            ("-1", None),
            ("-1.0", None),
            ("\"1\"", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
    }

    #[test]
    fn null_is_absent_but_for_a_value() {
        let text = r#"{"a":null,"b":null,"c":null,"d":null,"e":null,"f":null,"g": null }"#;
        let mut fields = Fields::parse(text).unwrap();
        assert_eq!(fields.text("a"), Ok(String::new()));
        assert_eq!(fields.flag("b"), Ok(false));
        assert_eq!(fields.integer::<u32>("c"), Ok(None));
        assert!(fields.object("d").unwrap().is_none());
        assert_eq!(fields.list("e"), Ok(Vec::new()));
        assert_eq!(fields.optional_text("f"), Ok(None));
        assert_eq!(fields.value("g"), Some("null"));
        assert_eq!(fields.other(), None);
    }

    #[test]
    fn what_is_of_another_kind_is_refused_by_its_name() {
        let object =
            r#"{"text":1,"flag":"true","integer":1.5,"small":70000,"object":[1],"list":{"0":1},"lone":"\ud800"}"#;
        let mut fields = Fields::parse(object).unwrap();
        let said = [
            fields.text("text").unwrap_err(),
            fields.flag("flag").unwrap_err(),
            fields.integer::<u64>("integer").unwrap_err(),
            fields.integer::<u16>("small").unwrap_err(),
            fields.object("object").unwrap_err(),
            fields.list("list").unwrap_err(),
            fields.text("lone").unwrap_err(),
        ];
        insta::assert_snapshot!(said.map(|wrong| wrong.to_string()).join("\n"), @r"
        `text` must be a text
        `flag` must be true or false
        `integer` must be an integer within its range, and not negative
        `small` must be an integer within its range, and not negative
        `object` must be an object
        `list` must be an array
        `lone` must be a text
        ");
    }

    #[test]
    fn only_an_object_without_doubles_is_one() {
        for text in [
            "",
            "[]",
            "[1,2]",
            "null",
            "1",
            "\"a\"",
            "{",
            "{\"a\":1}x",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"a\":nul}",
        ] {
            assert!(Fields::parse(text).is_err(), "{text}");
        }
        let many: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("\"f{n}\":0")).collect();
        assert!(Fields::parse(&format!("{{{}}}", many.join(","))).is_err());
        assert!(Fields::parse(&format!("{{{}}}", many[1..].join(","))).is_ok());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(Fields::parse(&deep).is_ok(), "what is not looked into is not judged");
    }
}
