//! `docs/configuration.md` lists every setting: it is made from the settings' own comments, and this holds the two
//! together. When it fails it has written what the page should be, and says where.

use std::fmt::Write as _;

use roomcast::config::{Config, Sources};
use serde_json::{Map, Value};

use crate::tools::root;

const PAGE: &str = "docs/configuration.md";
const EXAMPLE: &str = "docs/roomcast.example.toml";

#[test]
fn the_reference_lists_every_setting_as_it_is() {
    let path = root().join(PAGE);
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    let marker = "<!-- Made from the settings' comments; see tests/it/config_docs.rs. -->\n";
    let introduction = is.split_once(marker).map_or("", |(introduction, _)| introduction);
    let should = format!("{introduction}{marker}{}", Reference::new().sections());
    if is != should {
        let beside = path.with_extension("md.new");
        std::fs::write(&beside, should).unwrap();
        panic!(
            "{PAGE} is out of date; see what changed, then: mv {} {PAGE}",
            beside.display()
        );
    }
}

#[test]
fn the_example_is_accepted() {
    let path = root().join(EXAMPLE);
    let sources = Sources {
        file: Some(path),
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    // All but the secrets, whose files are not on this machine.
    roomcast::policy::RulePolicy::new(&config.policy).unwrap();
}

/// The schema, read as an operator would look things up.
struct Reference {
    schema: Value,
}

impl Reference {
    fn new() -> Self {
        Self {
            schema: Config::schema(),
        }
    }

    fn sections(&self) -> String {
        let mut page = String::new();
        for (name, section) in self.schema["properties"].as_object().unwrap() {
            let (definition, _) = self.resolve(section);
            let about = text(section["description"].as_str().or(definition["description"].as_str()));
            write!(page, "\n## `[{name}]`\n\n{about}\n").unwrap();
            self.table(&mut page, name, definition, &Value::Null);
        }
        page
    }

    /// The keys of one table, and after it the tables inside it.
    fn table(&self, page: &mut String, path: &str, definition: &Value, defaults: &Value) {
        let mut inner = Vec::new();
        page.push_str("\n| key | default | what it is |\n|---|---|---|\n");
        for (key, property) in definition["properties"].as_object().unwrap() {
            let (target, list) = self.resolve(property);
            let about = text(property["description"].as_str().or(target["description"].as_str()));
            let own = if defaults[key].is_null() {
                &property["default"]
            } else {
                &defaults[key]
            };
            let shown = if defaults[key].is_null() && required(definition, key) {
                "required".to_owned()
            } else {
                shown(own)
            };
            writeln!(page, "| `{key}` | {shown} | {about}{} |", words(target)).unwrap();
            if target["properties"].is_object() && !is_told_elsewhere(key, target) {
                let below = format!("{path}.{key}");
                let title = if list {
                    format!("[[{below}]]")
                } else {
                    format!("[{below}]")
                };
                inner.push((title, below, target, own));
            }
        }
        for (title, below, target, defaults) in inner {
            let about = text(target["description"].as_str());
            write!(page, "\n### `{title}`\n\n{about}\n").unwrap();
            self.table(page, &below, target, defaults);
        }
    }

    /// What a property is made of, through references, options and lists.
    fn resolve<'s>(&'s self, property: &'s Value) -> (&'s Value, bool) {
        if let Some(reference) = property["$ref"].as_str() {
            let name = reference.trim_start_matches("#/$defs/");
            return (self.resolve(&self.schema["$defs"][name]).0, false);
        }
        if let Some(choices) = property["anyOf"].as_array() {
            let some = choices.iter().find(|choice| choice["type"] != "null").unwrap();
            return self.resolve(some);
        }
        if property["items"].is_object() {
            return (self.resolve(&property["items"]).0, true);
        }
        (property, false)
    }
}

/// Rates are described once, in the introduction; the tokens of services as those of users, in `[auth]`.
fn is_told_elsewhere(key: &str, target: &Value) -> bool {
    target["properties"]["per_second"].is_object() || key == "jwt"
}

fn required(definition: &Value, key: &str) -> bool {
    let keys = definition["required"].as_array();
    keys.is_some_and(|keys| keys.iter().any(|required| required == key))
}

fn shown(default: &Value) -> String {
    match default {
        Value::Null => "not set".to_owned(),
        Value::Object(values) if !values.is_empty() => inline(values),
        value => format!("`{value}`"),
    }
}

/// A small table on one line, as TOML.
fn inline(values: &Map<String, Value>) -> String {
    let set = values.iter().filter(|(_, value)| !value.is_null());
    let pairs: Vec<_> = set.map(|(key, value)| format!("{key} = {value}")).collect();
    format!("`{{ {} }}`", pairs.join(", "))
}

/// The words a key takes, where it takes only some.
fn words(target: &Value) -> String {
    let Some(choices) = target["oneOf"].as_array() else {
        return String::new();
    };
    let named = choices
        .iter()
        .map(|choice| format!("`{}`", choice["const"].as_str().unwrap_or_default()));
    format!(" One of {}.", named.collect::<Vec<_>>().join(", "))
}

fn text(description: Option<&str>) -> String {
    description
        .unwrap_or_default()
        .replace("\n\n", "<br>")
        .replace('\n', " ")
        .replace('|', "\\|")
}
