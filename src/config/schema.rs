//! The JSON Schema of the file, generated from the sections and their comments.
//!
//! A type's name is its key among the definitions. The components' types are all called `Config`, so each has a schema name
//! of its own.

use serde_json::{Map, Value};

use super::Config;

impl Config {
    /// Returns a JSON Schema of the configuration file, with the defaults.
    ///
    /// # Panics
    /// Never: the defaults hold only what JSON can express.
    #[must_use]
    pub fn schema() -> Value {
        let mut schema = schemars::schema_for!(Self).to_value();
        let defaults = serde_json::to_value(Self::default()).expect("sections hold only what JSON can express");
        let Value::Object(defaults) = defaults else {
            return schema;
        };
        let definitions = schema["$defs"].as_object().cloned().unwrap_or_default();
        let mut filled = definitions.clone();
        for (section, default) in &defaults {
            let reference = schema["properties"][section]["$ref"].as_str().unwrap_or_default();
            let name = reference.trim_start_matches("#/$defs/").to_owned();
            if let (Some(definition), Value::Object(default)) = (filled.get_mut(&name), default) {
                fill(definition, default);
            }
        }
        schema["$defs"] = Value::Object(filled);
        schema
    }
}

/// Adds the defaults. A mirror has no defaults of its own, so its schema requires each key, which the merged
/// configuration never lacks.
fn fill(definition: &mut Value, defaults: &Map<String, Value>) {
    if let Some(definition) = definition.as_object_mut() {
        definition.remove("required");
    }
    let Some(properties) = definition["properties"].as_object_mut() else {
        return;
    };
    for (key, default) in defaults {
        if let Some(property) = properties.get_mut(key).and_then(Value::as_object_mut) {
            property.insert("default".to_owned(), default.clone());
        }
    }
}
