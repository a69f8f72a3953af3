//! What can be wrong with a configuration, in one line each that names the key and where it was set.

use std::fmt;
use std::path::PathBuf;

use figment::error::Kind;

/// Names that are further apart than this are not taken for each other (1 is equal; strsim's Jaro-Winkler).
const ALIKE_MIN: f64 = 0.8;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is not right.
    #[error("{}", Lines(.0))]
    Wrong(Vec<Problem>),
}

/// One thing that is not right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was set: a file, a variable or a flag; `None` where several settings do not fit together.
    pub origin: Option<String>,
    /// The key, with dots; empty when the whole file cannot be read.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem of a key whose value was readable.
    pub(super) fn new(key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            origin: None,
            key: key.into(),
            message: message.to_string(),
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
        Self::Wrong(errors.into_iter().map(Problem::from).collect())
    }
}

impl From<figment::Error> for Problem {
    fn from(error: figment::Error) -> Self {
        let mut path = error.path;
        let message = match &error.kind {
            // Its path ends with the unknown name itself.
            Kind::UnknownField(name, known) => unknown(name, known, &path[..path.len().saturating_sub(1)]),
            Kind::MissingField(name) => {
                path.push(name.to_string());
                "is required".to_owned()
            }
            Kind::UnknownVariant(name, known) => format!("`{name}` is none of {}", known.join(", ")),
            // A syntax error of the TOML reader comes with the line and ends with a line break.
            Kind::Message(text) => text.trim_end().to_owned(),
            kind => kind.to_string(),
        };
        Self {
            origin: error.metadata.map(|metadata| metadata.name.into_owned()),
            key: path.join("."),
            message,
        }
    }
}

fn unknown(name: &str, known: &[&str], parent: &[String]) -> String {
    let alike = |candidate: &&str| strsim::jaro_winkler(name, candidate);
    let closest = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match closest.filter(|candidate| alike(candidate) >= ALIKE_MIN) {
        Some(candidate) => {
            let mut path = parent.to_vec();
            path.push((*candidate).to_owned());
            format!("there is no such key; did you mean `{}`?", path.join("."))
        }
        None => format!("there is no such key; known here: {}", known.join(", ")),
    }
}
