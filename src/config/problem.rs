//! Problems of a configuration, one line each, with the key and its origin.
//!
//! No line repeats an unreadable value: it may be a misplaced secret.

use std::fmt;
use std::path::PathBuf;

use figment::error::{Actual, Kind};

use crate::similar::nearest;

/// Reason why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// At least one setting is wrong.
    #[error("{}", Lines(.0))]
    Wrong(Vec<Problem>),
}

/// One wrong setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its origin: a file, a variable or a flag; `None` where several settings contradict each other.
    pub origin: Option<String>,
    /// The key, with dots; empty when the whole file cannot be read.
    pub key: String,
    /// The error, and the remedy.
    pub message: String,
}

impl Problem {
    /// Reports a problem of a readable value.
    pub(super) fn new(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            origin: None,
            key: key.into(),
            message: message.to_string(),
        }
    }

    /// Reports a file that is not TOML. The TOML reader would quote the line, which may contain a secret.
    pub(super) fn of_syntax(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let message = error.message().replace('\n', ", ");
        Self {
            origin: Some(file.to_owned()),
            key: String::new(),
            message: format!("no TOML at line {line}, column {column}: {message}"),
        }
    }

    /// Reports an unreadable value, or an unknown key.
    pub(super) fn of_reading(error: &figment::Error, origin: Option<String>) -> Self {
        let mut path = error.path.clone();
        let message = match &error.kind {
            // The path ends with the unknown name itself.
            Kind::UnknownField(name, known) => unknown(name, known, &path[..path.len().saturating_sub(1)]),
            Kind::MissingField(name) => {
                path.push(name.to_string());
                "is required".to_owned()
            }
            Kind::UnknownVariant(_, known) => format!("must be one of {}", known.join(", ")),
            Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
                format!("must be {}, this is {}", wanted(expected), given(actual))
            }
            Kind::Unsupported(actual) => format!("cannot be {}", given(actual)),
            kind => kind.to_string(),
        };
        Self {
            origin,
            key: path.join("."),
            message,
        }
    }

    /// Returns true for the problem's own key, those inside it and those around it: their state is unknown.
    pub(super) fn covers(&self, key: &str) -> bool {
        let inside = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        inside(key, &self.key) || inside(&self.key, key)
    }
}

/// Lets a single problem stand for a list of problems.
impl From<Problem> for Vec<Problem> {
    fn from(problem: Problem) -> Self {
        vec![problem]
    }
}

/// Returns all values, or all problems.
pub(super) fn all<T>(results: impl IntoIterator<Item = Result<T, Problem>>) -> Result<Vec<T>, Vec<Problem>> {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

/// Returns two values, or the problems of both.
pub(super) fn both<A, B>(
    first: Result<A, impl Into<Vec<Problem>>>,
    second: Result<B, impl Into<Vec<Problem>>>,
) -> Result<(A, B), Vec<Problem>> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (Err(problems), Ok(_)) => Err(problems.into()),
        (Ok(_), Err(problems)) => Err(problems.into()),
        (Err(first), Err(second)) => {
            let mut problems = first.into();
            problems.extend(second.into());
            Err(problems)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

struct Lines<'p>(&'p [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl From<figment::Error> for ConfigError {
    fn from(errors: figment::Error) -> Self {
        let problem = |error: figment::Error| {
            let origin = error
                .metadata
                .as_ref()
                .map(|metadata| metadata.name.clone().into_owned());
            Problem::of_reading(&error, origin)
        };
        Self::Wrong(errors.into_iter().map(problem).collect())
    }
}

/// Describes the expected type in terms of TOML.
fn wanted(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "string" | "path string" => "a text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a duration" => "a time such as \"500ms\" or \"2m\"",
        "a map" | "map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// Describes the type of a value, without the value.
fn given(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Signed(..0) => "a negative number",
        Actual::Unsigned(_) | Actual::Signed(_) => "another number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

fn unknown(name: &str, known: &[&str], parent: &[String]) -> String {
    match nearest(name, known) {
        Some(candidate) => {
            let mut path = parent.to_vec();
            path.push(candidate.to_owned());
            format!("there is no such key; did you mean `{}`?", path.join("."))
        }
        None => format!("there is no such key; known here: {}", known.join(", ")),
    }
}
