//! Reading of the merged settings that continues behind errors, so that all problems are reported at once.
//!
//! Deserialization stops at the first error. So the value it stopped at is replaced by a readable one, and it starts anew,
//! until it succeeds. The result is good for further checks, not for service.

use std::collections::HashMap;

use figment::error::Kind;
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider};
use serde::Deserialize;

use super::Config;
use super::problem::{ConfigError, Problem};

/// Bounds the loop; far more than the mistakes of a file.
const REPLACEMENTS_MAX: usize = 1_000;

/// Returns the settings as far as they can be read, and the problems of the rest.
pub(super) fn extract(settings: &Figment) -> Result<(Config, Vec<Problem>), ConfigError> {
    let mut profiles = settings.data()?;
    let root = profiles.remove(&Profile::Default).unwrap_or_default();
    let mut reader = Reader {
        settings,
        defaults: Value::serialize(Config::default())?,
        root: Value::from(root),
        problems: Vec::new(),
        attempts: HashMap::new(),
    };
    for _ in 0..REPLACEMENTS_MAX {
        match Config::deserialize(&reader.root) {
            Ok(config) => return Ok((config, reader.problems)),
            Err(error) => reader.get_past(&error),
        }
    }
    Err(ConfigError::Wrong(reader.problems))
}

struct Reader<'f> {
    settings: &'f Figment,
    defaults: Value,
    root: Value,
    problems: Vec<Problem>,
    /// Replacements so far, by key.
    attempts: HashMap<Vec<String>, usize>,
}

impl Reader<'_> {
    fn get_past(&mut self, error: &figment::Error) {
        let mut path = error.path.clone();
        if let Kind::MissingField(name) = &error.kind {
            path.push(name.to_string());
        }
        // A replacement may have an error itself, which is not the operator's.
        if !self.problems.iter().any(|known| known.covers(&path.join("."))) {
            self.problems.push(Problem::of_reading(error, self.origin(&path)));
        }
        self.replace(&path, &error.kind);
    }

    /// Replaces the value at this key, differently each time, the default first. As a last resort it replaces the parent.
    fn replace(&mut self, path: &[String], why: &Kind) {
        let Some((key, parent)) = path.split_last() else {
            self.root = Value::from(Dict::new());
            return;
        };
        let attempt = self.attempts.entry(path.to_vec()).or_default();
        let number = *attempt;
        *attempt += 1;
        let (text, list, table) = (
            Value::from(""),
            Value::from(Vec::<Value>::new()),
            Value::from(Dict::new()),
        );
        let default = path
            .iter()
            .try_fold(&self.defaults, |value, key| child(value, key))
            .cloned();
        let within = descend(&mut self.root, parent);
        let replaced = match (within, why, number) {
            (Some(Value::Dict(_, keys)), Kind::UnknownVariant(_, known), 0) => {
                keys.insert(key.clone(), Value::from(known.first().copied().unwrap_or_default()));
                true
            }
            (Some(Value::Dict(_, keys)), _, 0) => {
                keys.remove(key);
                keys.extend(default.map(|default| (key.clone(), default)));
                true
            }
            (Some(Value::Dict(_, keys)), _, 1 | 2) => {
                keys.insert(key.clone(), if number == 1 { text } else { list });
                true
            }
            // Elements keep their indices, by which they are named.
            (Some(Value::Array(_, elements)), why, 0 | 1) => {
                let element = key.parse().ok().and_then(|index: usize| elements.get_mut(index));
                let other = match why {
                    Kind::UnknownVariant(_, known) => Value::from(known.first().copied().unwrap_or_default()),
                    _ if number == 0 => table,
                    _ => text,
                };
                element.map(|element| *element = other).is_some()
            }
            _ => false,
        };
        if !replaced {
            self.replace(parent, why);
        }
    }

    /// Returns the source of this key, or else of its table.
    fn origin(&self, path: &[String]) -> Option<String> {
        let mut tag = None;
        let mut value = Some(&self.root);
        let mut keys = path.iter();
        while let Some(found) = value {
            tag = Some(found.tag());
            value = keys.next().and_then(|key| child(found, key));
        }
        let metadata = self.settings.get_metadata(tag?)?;
        Some(metadata.name.clone().into_owned())
    }
}

fn child<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Dict(_, keys) => keys.get(key),
        Value::Array(_, elements) => elements.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

fn descend<'v>(root: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(root, |value, key| match value {
        Value::Dict(_, keys) => keys.get_mut(key),
        Value::Array(_, elements) => elements.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}
