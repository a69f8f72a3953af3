//! `docs/configuration.md` lists every setting: it is made from the settings' own comments, and this holds the two
//! together. When it fails it has written what the page should be, and says where.
//!
//! The comments come by way of the schema. So the page is also compared with what does not know the schema: the keys that
//! the reader of a file takes, and the defaults as they are printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;

use roomcast::config::{Config, ConfigError, Sources};
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
fn every_table_of_the_reference_has_the_keys_that_are_read() {
    let page = Page::read();
    let lists: BTreeSet<_> = page
        .tables
        .iter()
        .filter(|table| table.list)
        .map(|table| &*table.path)
        .collect();
    for table in &page.tables {
        let documented: BTreeSet<_> = table.rows.keys().cloned().collect();
        assert_eq!(documented, keys_read(&table.path, &lists), "[{}]", table.path);
    }
    let sections = page.tables.iter().filter(|table| !table.path.contains('.'));
    let sections: BTreeSet<_> = sections.map(|table| table.path.clone()).collect();
    assert_eq!(sections, keys_read("", &lists));
}

#[test]
fn every_default_is_documented_as_it_is_printed() {
    let printed: toml::Table = toml::from_str(&Config::default().to_toml()).unwrap();
    let page = Page::read();
    let mut compared = 0;
    let mut tables: Vec<(String, toml::Table)> = vec![(String::new(), printed)];
    while let Some((path, table)) = tables.pop() {
        let documented = page.tables.iter().find(|documented| documented.path == path);
        for (key, value) in table {
            let below = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            if let Some(documented) = documented {
                let cell = documented
                    .rows
                    .get(&key)
                    .unwrap_or_else(|| panic!("{below} is not documented"));
                let cell: toml::Table = toml::from_str(&format!("it = {}", cell.trim_matches('`')))
                    .unwrap_or_else(|error| panic!("{below}: {cell}: {error}"));
                assert_eq!(cell["it"], value, "{below}");
                compared += 1;
            }
            if let toml::Value::Table(inner) = value {
                tables.push((below, inner));
            }
        }
    }
    assert!(compared > 80, "{compared}");
}

/// The keys that the reader of a file takes in this table, as it says itself when it meets another one.
fn keys_read(path: &str, lists: &BTreeSet<&str>) -> BTreeSet<String> {
    const UNKNOWN: &str = "zzzzzzzz";
    let mut toml = format!("{{ {UNKNOWN} = 1 }}");
    let mut rest = path;
    while !rest.is_empty() {
        let (parent, key) = rest.rsplit_once('.').unwrap_or(("", rest));
        let value = if lists.contains(rest) {
            format!("[{toml}]")
        } else {
            toml
        };
        toml = format!("{{ {key} = {value} }}");
        rest = parent;
    }
    // The outermost table is the file itself.
    let toml = toml.strip_prefix('{').and_then(|toml| toml.strip_suffix('}')).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.trim().as_bytes()).unwrap();
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    let Err(ConfigError::Wrong(problems)) = Config::load(&sources) else {
        panic!("{toml} is accepted");
    };
    let problem = problems.iter().find(|problem| problem.key.ends_with(UNKNOWN)).unwrap();
    let (_, known) = problem.message.split_once("known here: ").unwrap();
    known.split(", ").map(str::to_owned).collect()
}

/// The reference, as it is read by people.
struct Page {
    tables: Vec<Table>,
}

/// One table of it.
struct Table {
    path: String,
    list: bool,
    /// The default of each key.
    rows: BTreeMap<String, String>,
}

impl Page {
    fn read() -> Self {
        let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
        let mut tables: Vec<Table> = Vec::new();
        for line in page.lines() {
            if let Some(title) = line.trim_start_matches('#').trim().strip_prefix("`[") {
                tables.push(Table {
                    path: title.trim_matches(['`', '[', ']']).to_owned(),
                    list: title.starts_with('['),
                    rows: BTreeMap::new(),
                });
            } else if let Some(row) = line.strip_prefix("| `")
                && let Some(table) = tables.last_mut()
            {
                let mut cells = row.split(" | ");
                let key = cells.next().unwrap().trim_matches('`').to_owned();
                table.rows.insert(key, cells.next().unwrap().to_owned());
            }
        }
        assert!(!tables.is_empty(), "the page has tables");
        Self { tables }
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
