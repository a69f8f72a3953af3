//! Validated JSON text that may be relayed to clients verbatim.
//!
//! A relay that only checks syntax forwards texts that break their readers: nesting that overflows a stack, lone
//! surrogates, `__proto__` keys. [`Json::parse`] scans every value once and keeps the text. It evaluates nothing: a
//! number keeps its digits, whatever its size.

mod fields;
mod members;
mod scan;

use std::fmt;

use bytes::Bytes;

pub use self::fields::{Fields, Nested, NoObject, WrongField};
pub use self::members::Members;
use self::scan::Scanner;

/// A JSON text that [`Json::parse`] has accepted. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Bytes);

/// The reason why a JSON text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not acceptable JSON: {what} at line {line} column {column}")]
pub struct JsonError {
    what: &'static str,
    /// From 1.
    line: usize,
    /// In bytes, from 1.
    column: usize,
}

impl Json {
    /// The deepest nesting of arrays and objects.
    pub const DEPTH_MAX: usize = 32;

    /// Validates a JSON text (RFC 8259): UTF-8, one value, no lone surrogates, nesting of at most [`Self::DEPTH_MAX`],
    /// no `__proto__` key at any level.
    ///
    /// # Errors
    /// [`JsonError`] with the place and the reason.
    pub fn parse(text: impl Into<Bytes>) -> Result<Self, JsonError> {
        let text = text.into();
        Scanner::new(&text).text().map_err(|flaw| {
            let before = &text[..flaw.at.min(text.len())];
            let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            JsonError {
                what: flaw.what,
                line: before.split(|byte| *byte == b'\n').count(),
                column: 1 + before.len() - line_start,
            }
        })?;
        Ok(Self(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only UTF-8 is accepted")
    }

    /// Returns the text's bytes, shared.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Splits an array into its elements, each verbatim; `None` when the text is not one JSON array.
#[must_use]
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(serde_json::value::RawValue::get).collect())
}

/// Evaluates a string; `None` when the text is not one JSON string.
#[must_use]
pub fn string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

impl From<&serde_json::Value> for Json {
    /// Serializes a value that the gateway has built; it is not validated again.
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, JsonError> {
        Json::parse(text.as_bytes().to_vec())
    }

    #[test]
    fn ordinary_values_are_kept_as_they_were_written() {
        for text in [
            "null",
            " {\"a\" : [1, 2.50, -3e9, true]} ",
            "\"\\ud83d\\ude00\"",
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\u{e9}\u{1f600}\"",
            "[]",
            "{ }",
            "\t[\r\n{}\n]",
            "{\"\":{\"__proto\":1,\"proto__\":2,\"__proto__x\":3}}",
        ] {
            assert_eq!(parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn numbers_keep_their_digits_whatever_their_size() {
        let long = "9".repeat(401);
        let tiny = format!("0.{}1", "0".repeat(400));
        for number in [
            "0",
            "-0",
            "1e400",
            "-1E-400",
            "1.5e+99999999999999999999",
            "123456789012345678901234567890",
            &long,
            &tiny,
        ] {
            let text = format!("{{\"n\":[{number}]}}");
            assert_eq!(parse(&text).unwrap().as_str(), text);
            assert!(parse(number).is_ok(), "{number}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for text in [
            "01",
            "-",
            "-01",
            "+1",
            "1.",
            ".5",
            "1.e3",
            "1e",
            "1e+",
            "1e1.5",
            "0x10",
            "1_000",
            "NaN",
            "Infinity",
            "-Infinity",
            "--1",
            "1-1",
            "1e400x",
        ] {
            assert!(parse(text).is_err(), "{text}");
            assert!(parse(&format!("[{text}]")).is_err(), "[{text}]");
        }
    }

    #[test]
    fn what_breaks_readers_is_refused() {
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        let bomb = "[".repeat(1_000_000);
        let texts = [
            "",
            " ",
            "{",
            "1 2",
            "nul",
            "nulll",
            "True",
            "\"\\ud800\"",
            "\"\\udc00x\"",
            "\"\\ud800\\u0041\"",
            "\"\\ud800\\ud800\"",
            "\"\\ud83d",
            "\"\\u12g4\"",
            "\"\\x41\"",
            "{\"__proto__\":1}",
            "[{\"a\":{\"__proto__\":{}}}]",
            "{\"\\u005f_proto__\":1}",
            "{\"__\\u0070roto\\u005f_\":1}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":1,}",
            "{,}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{\"a\":1]",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\u{0}\"",
            "\u{feff}1",
            "// x\n1",
            &deep,
            &bomb,
        ];
        for text in texts {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(40)]);
        }
        for bytes in [&b"\"\xff\""[..], b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"[\xff]"] {
            assert!(Json::parse(bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_where() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        let flaws = [
            said(""),
            said("{\n  \"a\": nul\n}"),
            said("[\"\\ud800\"]"),
            said("{\"a\":{\"__proto__\":1}}"),
            said(&"[".repeat(40)),
            said("[1]]"),
        ];
        insta::assert_snapshot!(flaws.join("\n"), @r"
        is not acceptable JSON: unexpected end of the text at line 1 column 1
        is not acceptable JSON: expected a value at line 2 column 8
        is not acceptable JSON: a lone surrogate at line 1 column 3
        is not acceptable JSON: the key `__proto__` is not allowed at line 1 column 18
        is not acceptable JSON: nested deeper than 32 levels at line 1 column 33
        is not acceptable JSON: trailing characters at line 1 column 4
        ");
    }

    #[test]
    fn thirty_two_levels_are_accepted() {
        assert!(parse(&format!("{}{}", "[".repeat(32), "]".repeat(32))).is_ok());
        assert!(parse(&format!("{}1{}", "{\"a\":".repeat(32), "}".repeat(32))).is_ok());
    }

    proptest::proptest! {
        /// The scanner agrees with the usual parser, except for texts refused on purpose and numbers that do not fit
        /// its types.
        #[test]
        fn what_is_json_is_what_the_usual_parser_takes(tokens in proptest::collection::vec(proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", " ", "\n", "\"", "\"a\"", "\"\\u00e9\"", "\"\\ud83d\\ude00\"", "\\", "\\u", "d83d", "\u{e9}",
            "0", "1", "-", ".", "e", "E+", "12", "true", "false", "null", "t", "\t", "\u{1}",
        ]), 0..12)) {
            let text = tokens.concat();
            let usual = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let value = serde_json::from_str::<serde_json::Value>(&text);
            let too_large = value.as_ref().is_err_and(|error| error.to_string().contains("number out of range"));
            let ours = parse(&text).is_ok();
            proptest::prop_assert_eq!(ours, usual && (value.is_ok() || too_large), "{}", text);
        }

        #[test]
        fn every_value_that_is_written_is_read(depth in 0usize..20, text in ".*", number in proptest::num::f64::NORMAL) {
            let mut value = serde_json::json!({"t": text, "n": number, "l": [text.len(), null, false]});
            for _ in 0..depth {
                value = serde_json::json!([value]);
            }
            let written = value.to_string();
            let checked = parse(&written).unwrap();
            proptest::prop_assert_eq!(checked.as_str(), written);
        }
    }
}
