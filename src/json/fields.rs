//! Typed access to the fields of a JSON object.
//!
//! For objects that are commands and not content. A number is an integer where it equals one, in any notation. `null`
//! is an absent field. An array is no object. A duplicate field is refused, so that no reader behind or beside this one
//! can see another value in the same text.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Json, JsonError, Scanner};

/// The most fields of one object. No object of the gateway has as many.
const FIELDS_MAX: usize = 64;

/// The error of a text that is no object.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoObject(#[from] serde_json::Error);

/// A field of the wrong type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` must be {wanted}")]
pub struct WrongField {
    /// The field's name.
    pub field: &'static str,
    /// The expected type.
    pub wanted: &'static str,
}

/// The fields of one object that have not been taken yet, each with its value as text.
///
/// A wrong field is taken as absent and remembered ([`Self::wrong`]). So all known fields have been taken when a reader
/// requests the others.
#[derive(Debug, Default)]
pub struct Fields<'t> {
    left: Vec<(Cow<'t, str>, &'t str)>,
    wrong: Option<WrongField>,
    /// The values are accepted by [`Json::parse`].
    is_checked: bool,
}

impl<'t> Fields<'t> {
    /// Splits an object into fields. Their values are valid JSON then, and not evaluated.
    ///
    /// # Errors
    /// [`NoObject`] when the text is not one JSON object, or has a field twice.
    pub fn parse(text: &'t str) -> Result<Self, NoObject> {
        let mut fields = Self::default();
        fields.read(text)?;
        Ok(fields)
    }

    /// Adds the fields of an object to the existing ones. Fields read before an error stay.
    ///
    /// # Errors
    /// [`NoObject`].
    pub fn read(&mut self, text: &'t str) -> Result<(), NoObject> {
        let mut reader = serde_json::Deserializer::from_str(text);
        reader.deserialize_map(Reader(self))?;
        Ok(reader.end()?)
    }

    /// Splits an object and one object inside it, in one pass over the text. The inner one is the value of the field for
    /// whose name `choose` returns something.
    ///
    /// `None` for an unusual text: without a chosen field or with two, with one that is no object, with a value that
    /// [`Json::parse`] refuses, with an escape in a name, and for one that [`Self::read`] refuses.
    pub fn parse_nested<T>(text: &'t str, choose: impl Fn(&str) -> Option<T>) -> Option<Nested<'t, T>> {
        let (mut outer, mut nested) = (Self::checked(), None);
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.object(|scanner, name| {
            let name = &text[name];
            let Some(chosen) = choose(name) else {
                return outer.add(name, &text[scanner.value_range()?]);
            };
            let mut inner = Self::checked();
            scanner.object(|scanner, name| inner.add(&text[name], &text[scanner.value_range()?]))?;
            nested.is_none().then(|| nested = Some((name, chosen, inner)))
        })?;
        let (name, chosen, inner) = nested.filter(|_| scanner.is_at_end())?;
        // The chosen field is one of the outer object's, too.
        (outer.left.len() < FIELDS_MAX).then_some(Nested {
            outer,
            name,
            chosen,
            inner,
        })
    }

    const fn checked() -> Self {
        Self {
            left: Vec::new(),
            wrong: None,
            is_checked: true,
        }
    }

    /// Adds a field; `None` when the object has it already, or too many.
    fn add(&mut self, name: &'t str, value: &'t str) -> Option<()> {
        let is_new = self.left.len() < FIELDS_MAX && self.left.iter().all(|(known, _)| *known != name);
        is_new.then(|| self.left.push((Cow::Borrowed(name), value)))
    }

    /// Takes a value verbatim; `null` is one.
    pub fn value(&mut self, field: &str) -> Option<&'t str> {
        let index = self.left.iter().position(|(name, _)| name == field)?;
        Some(self.left.swap_remove(index).1)
    }

    /// Takes a value verbatim, to be relayed; `null` is one.
    ///
    /// # Errors
    /// [`JsonError`], as by [`Json::parse`].
    pub fn json(&mut self, field: &str) -> Option<Result<Json, JsonError>> {
        let text = Bytes::copy_from_slice(self.value(field)?.as_bytes());
        Some(if self.is_checked {
            Ok(Json(text))
        } else {
            Json::parse(text)
        })
    }

    /// Takes a value verbatim; `null` counts as absent.
    pub fn present(&mut self, field: &str) -> Option<&'t str> {
        self.value(field).filter(|value| *value != "null")
    }

    /// Takes a text, if present.
    pub fn text(&mut self, field: &'static str) -> Option<String> {
        self.take(field, "a text", text)
    }

    /// Takes a flag, if present.
    pub fn flag(&mut self, field: &'static str) -> Option<bool> {
        self.take(field, "true or false", |value| value.parse().ok())
    }

    /// Takes an integer, if present.
    pub fn integer<T: TryFrom<u64>>(&mut self, field: &'static str) -> Option<T> {
        self.take(field, "an integer within its range, and not negative", |value| {
            T::try_from(integer(value)?).ok()
        })
    }

    /// Takes an object, if present.
    pub fn object(&mut self, field: &'static str) -> Option<Self> {
        self.take(field, "an object", |value| Self::parse(value).ok())
    }

    /// Takes the elements of an array verbatim; empty when it is absent.
    pub fn list(&mut self, field: &'static str) -> Vec<&'t str> {
        let read = |value| {
            let elements: Vec<&'t RawValue> = serde_json::from_str(value).ok()?;
            Some(elements.into_iter().map(RawValue::get).collect())
        };
        self.take(field, "an array", read).unwrap_or_default()
    }

    /// Takes the texts of an array; empty when it is absent.
    pub fn texts(&mut self, field: &'static str) -> Vec<String> {
        let texts = self.take(field, "an array of texts", |value| serde_json::from_str(value).ok());
        texts.unwrap_or_default()
    }

    fn take<T>(
        &mut self,
        field: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&'t str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.present(field)?);
        if value.is_none() {
            self.wrong.get_or_insert(WrongField { field, wanted });
        }
        value
    }

    /// Returns the first field of the wrong type.
    #[must_use]
    pub const fn wrong(&self) -> Option<WrongField> {
        self.wrong
    }

    /// Returns the fields that have not been taken, except those that are `null`.
    pub fn others(&self) -> impl Iterator<Item = (&str, &'t str)> {
        let fields = self.left.iter().map(|(name, value)| (&**name, *value));
        fields.filter(|(_, value)| *value != "null")
    }
}

/// Collects the fields of an object.
struct Reader<'f, 't>(&'f mut Fields<'t>);

impl<'t> Visitor<'t> for Reader<'_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut entries: A) -> Result<(), A::Error> {
        let left = &mut self.0.left;
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
        Ok(())
    }
}

/// An object in another one, by [`Fields::parse_nested`].
#[derive(Debug)]
pub struct Nested<'t, T> {
    /// The other fields of the outer object.
    pub outer: Fields<'t>,
    /// The name of the chosen field.
    pub name: &'t str,
    /// The result of the choice.
    pub chosen: T,
    /// The fields of its value.
    pub inner: Fields<'t>,
}

/// A field name, borrowed where nothing in it is escaped.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'t>(#[serde(borrow)] Cow<'t, str>);

/// Returns the text of a JSON string. `None` for any other value, and for a lone surrogate.
fn text(value: &str) -> Option<String> {
    // The value was scanned already, so without an escape it is the text between its quotes.
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.as_bytes().contains(&b'\\') => Some(plain.to_owned()),
        _ => serde_json::from_str(value).ok(),
    }
}

/// Returns the integer that a JSON number is equal to, read exactly: `77`, `77.0` and `7.7e1` are one. `None` for text
/// that is not a number, is negative, has a fraction or is above 64 bits.
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
        let text = r#"{"a":null,"b":null,"c":null,"d":null,"e":null,"f":null,"g": null ,"other":null}"#;
        let mut fields = Fields::parse(text).unwrap();
        assert_eq!((fields.text("a"), fields.flag("b")), (None, None));
        assert_eq!(fields.integer::<u32>("c"), None);
        assert!(fields.object("d").is_none() && fields.list("e").is_empty() && fields.texts("f").is_empty());
        assert_eq!(fields.value("g"), Some("null"));
        assert_eq!((fields.others().next(), fields.wrong()), (None, None));
    }

    #[test]
    fn what_was_read_before_an_error_stays() {
        let mut fields = Fields::default();
        assert!(fields.read(r#"{"id":7,"a":nul}"#).is_err());
        assert_eq!(fields.integer("id"), Some(7_u32));
    }

    #[test]
    fn what_is_of_another_kind_is_told_by_its_name() {
        let object = r#"{"text":1,"flag":"true","integer":1.5,"small":70000,"object":[1],"list":{"0":1},"lone":"\ud800","texts":["a",1]}"#;
        let fields = || Fields::parse(object).unwrap();
        let told = |take: fn(&mut Fields<'_>)| {
            let mut fields = fields();
            take(&mut fields);
            fields.wrong().unwrap().to_string()
        };
        let told = [
            told(|fields| assert_eq!(fields.text("text"), None)),
            told(|fields| assert_eq!(fields.flag("flag"), None)),
            told(|fields| assert_eq!(fields.integer::<u64>("integer"), None)),
            told(|fields| assert_eq!(fields.integer::<u16>("small"), None)),
            told(|fields| assert!(fields.object("object").is_none())),
            told(|fields| assert!(fields.list("list").is_empty())),
            told(|fields| assert_eq!(fields.text("lone"), None)),
            told(|fields| assert!(fields.texts("texts").is_empty())),
        ];
        insta::assert_snapshot!(told.join("\n"), @r"
        `text` must be a text
        `flag` must be true or false
        `integer` must be an integer within its range, and not negative
        `small` must be an integer within its range, and not negative
        `object` must be an object
        `list` must be an array
        `lone` must be a text
        `texts` must be an array of texts
        ");
        let mut fields = fields();
        assert_eq!((fields.text("lone"), fields.text("text")), (None, None));
        assert_eq!(fields.wrong().unwrap().field, "lone", "the first is told");
        assert_eq!(fields.others().count(), 6);
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
