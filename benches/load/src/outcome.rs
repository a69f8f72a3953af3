//! The result of a scenario, for a person and for a program.

use std::fmt::Write as _;

use serde_json::Value;

use super::tally::Faults;

/// The column where values begin.
const WIDTH: usize = 36;

/// The result of a run.
pub(super) struct Outcome {
    pub(super) text: String,
    pub(super) json: Value,
    /// The reason why it counts as failed.
    pub(super) complaint: Option<String>,
}

impl Outcome {
    /// One line for each number; a line without them for each object.
    pub(super) fn of(json: Value, faults: Faults) -> Self {
        let mut text = String::new();
        write_value(&mut text, "", &json);
        Self {
            text: text.trim_end().to_owned(),
            json,
            complaint: faults.any().then(|| faults.to_string()),
        }
    }
}

fn write_value(out: &mut String, name: &str, value: &Value) {
    let within = |key: &str| match name {
        "" => key.to_owned(),
        _ => format!("{name}.{key}"),
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| write_value(out, &within(key), value)),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items
                .into_iter()
                .for_each(|(at, item)| write_value(out, &within(&at.to_string()), item));
        }
        Value::Null => {}
        // Writing to a string cannot fail.
        _ => drop(match value.as_f64() {
            Some(number) if value.is_f64() => writeln!(out, "{name:WIDTH$} {number:.2}"),
            _ => writeln!(out, "{name:WIDTH$} {value}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_nested_object_is_told_line_by_line() {
        let outcome = Outcome::of(json!({"a": {"b": 1.234, "c": [2]}, "d": null}), Faults::default());
        let lines: Vec<_> = outcome
            .text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect();
        assert_eq!(lines, [["a.b", "1.23"], ["a.c.0", "2"]]);
    }
}
