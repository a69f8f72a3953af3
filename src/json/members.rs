//! The members of a JSON object whose content is not ours, such as the claims of a token.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::NoObject;

/// The members of one object, each with its value as text. Nothing is evaluated before it is requested, so that an
/// unrelated number beyond all types here is no error. Of a duplicate name the last value counts.
#[derive(Debug)]
pub struct Members<'t>(HashMap<String, &'t RawValue>);

impl<'t> Members<'t> {
    /// Splits an object into members.
    ///
    /// # Errors
    /// [`NoObject`] when the text is not one JSON object.
    pub fn parse(text: &'t str) -> Result<Self, NoObject> {
        Ok(Self(serde_json::from_str(text)?))
    }

    /// Returns a value verbatim; `null` is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'t str> {
        self.0.get(name).map(|value| value.get())
    }

    /// Returns a string, or an integer of 64 bits as a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match serde_json::from_str(self.get(name)?).ok()? {
            Value::String(text) => Some(text),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_not_evaluated_before_they_are_requested() {
        let text =
            r#"{"far":1e400,"deep":[{"n":-1e999}],"sub":"a\u0064a","id":7,"neg":-7,"part":1.5,"\u0078":null,"id":8}"#;
        let members = Members::parse(text).unwrap();
        assert_eq!((members.get("far"), members.text("far")), (Some("1e400"), None));
        assert_eq!(members.get("deep"), Some(r#"[{"n":-1e999}]"#));
        assert_eq!((members.get("x"), members.get("y")), (Some("null"), None));
        let texts = ["sub", "id", "neg", "part", "x"].map(|name| members.text(name));
        assert_eq!(
            texts,
            [Some("ada"), Some("8"), Some("-7"), None, None].map(|text| text.map(str::to_owned))
        );
        for text in ["", "[]", "7", "null", "{", "{} x"] {
            assert!(Members::parse(text).is_err(), "{text}");
        }
    }
}
