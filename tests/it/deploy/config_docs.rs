//! The chart's schema has every setting of the configuration, but for those that the chart sets itself.
//!
//! That part is made from the schema that `roomcast schema` prints. When this fails it has written what the file should be, and says where.

use std::collections::BTreeSet;

use roomcast::config::Config;
use serde_json::{Map, Value, json};

use super::read;
use crate::tools::root;

const FILE: &str = "helm/roomcast/values.schema.json";

/// Settings of the chart itself, by section. A whole section stands in the first line.
const SET_BY_THE_CHART: [(&str, &[&str]); 5] = [
    ("", &["admin"]),
    ("client", &["listen"]),
    ("grpc", &["listen", "tls"]),
    ("node", &["drain_window"]),
    (
        "nats",
        &[
            "servers",
            "creds_file",
            "nkey_file",
            "token_file",
            "user",
            "password_file",
            "tls",
        ],
    ),
];

#[test]
fn the_schema_of_values_has_every_setting_as_it_is() {
    let is: Value = serde_json::from_str(&read(FILE)).unwrap();
    let should = with_settings(is.clone());
    if is != should {
        let beside = root().join(FILE).with_extension("json.new");
        let text = serde_json::to_string_pretty(&should).unwrap();
        std::fs::write(&beside, text + "\n").unwrap();
        panic!(
            "{FILE} is out of date; see what changed, then: mv {} {FILE}",
            beside.display()
        );
    }
}

/// The schema of values with the settings as they are now.
fn with_settings(mut values: Value) -> Value {
    let mut settings = bare(&Config::schema(), false);
    let mut definitions = settings.as_object_mut().unwrap().remove("$defs").unwrap();
    for (section, keys) in SET_BY_THE_CHART {
        let table = if section.is_empty() {
            &mut settings
        } else {
            let mut names = BTreeSet::new();
            references(&settings["properties"][section], &mut names);
            let name = names
                .pop_first()
                .unwrap_or_else(|| panic!("{section} names no definition"));
            &mut definitions[&name]
        };
        for key in keys {
            table["properties"].as_object_mut().unwrap().remove(*key);
        }
        if let Some(required) = table.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|key| !keys.iter().any(|gone| key == gone));
        }
    }
    values["properties"]["config"] = settings;
    values["$defs"] = json!({});
    // A definition that nothing refers to any more is left out, and then perhaps another.
    loop {
        let mut names = BTreeSet::new();
        references(&values, &mut names);
        let missing: Vec<_> = names
            .into_iter()
            .filter(|name| values["$defs"].get(name).is_none())
            .collect();
        if missing.is_empty() {
            return values;
        }
        for name in missing {
            let definition = definitions
                .get(&name)
                .unwrap_or_else(|| panic!("{name} is not defined"));
            values["$defs"][&name] = definition.clone();
        }
    }
}

/// The schema without texts and defaults: those change more often than what is accepted.
fn bare(schema: &Value, names: bool) -> Value {
    const TEXTS: [&str; 5] = ["description", "default", "format", "title", "$schema"];
    match schema {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| names || !TEXTS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), bare(value, key == "properties" || key == "$defs")))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(|item| bare(item, false)).collect(),
        other => other.clone(),
    }
}

fn references(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().and_then(|text| text.strip_prefix("#/$defs/")) {
                    Some(name) if key == "$ref" => {
                        found.insert(name.to_owned());
                    }
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                references(item, found);
            }
        }
        _ => {}
    }
}
