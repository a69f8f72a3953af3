//! The layers of `ARCHITECTURE.md`: its table is read, and the sources are held to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A row of the table.
struct Module {
    layer: usize,
    name: String,
    /// Modules of the same layer that it may import; all of them with `None`.
    beside: Option<Vec<String>>,
    banned: Vec<Ban>,
}

/// What a module must not name, and the folder of it that may.
struct Ban {
    name: String,
    except: Option<String>,
}

/// The rows of the table in ARCHITECTURE.md.
fn table() -> Vec<Module> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| layer | module |"))
        .skip(2);
    rows.take_while(|line| line.starts_with('|')).map(row).collect()
}

fn row(line: &str) -> Module {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [layer, name, what, beside, banned] = cells[..] else {
        panic!("five cells: {line}");
    };
    assert!(!what.is_empty(), "{name} has no description");
    Module {
        layer: layer.parse().unwrap(),
        name: name.trim_matches('`').to_owned(),
        beside: (beside != "all").then(|| quoted(beside)),
        banned: banned.split(", `").filter(|ban| !ban.is_empty()).map(ban).collect(),
    }
}

/// A name in backticks, and behind "but for" the folder that is excepted.
fn ban(text: &str) -> Ban {
    let mut names = text.trim_start_matches('`').split('`').step_by(2);
    let name = names.next().unwrap().to_owned();
    let except = names.next().filter(|_| text.contains("but for")).map(str::to_owned);
    Ban { name, except }
}

/// The names in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level modules that code names as `crate::<module>`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        for rest in line.split("crate::").skip(1) {
            let names = rest
                .strip_prefix('{')
                .map_or(rest, |group| group.split('}').next().unwrap_or(group));
            let names = if rest.starts_with('{') {
                names.split(',').collect()
            } else {
                vec![names]
            };
            for name in names {
                let name: String = name
                    .trim()
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                found.insert(name);
            }
        }
    }
    found
}

/// The code of a file: no comments, no tests.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether the code names this crate in a path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|before| before.is_ascii_alphanumeric() || matches!(before, '_' | ':'))
    })
}

/// The sources of the gateway that are no tests: the path within `src`, without its ending, and the code.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&root).unwrap().with_extension("");
        (
            path.to_str().unwrap().to_owned(),
            code(&fs::read_to_string(file).unwrap()),
        )
    };
    let is_test = |path: &str| path.contains("/tests") || path.contains("/conformance") || path.ends_with("/model");
    let is_ours = |path: &str| !matches!(path, "lib" | "main") && !path.starts_with("testing") && !is_test(path);
    files.iter().map(read).filter(|(path, _)| is_ours(path)).collect()
}

/// What is wrong with one file by the table.
fn faults(table: &[Module], path: &str, code: &str) -> Vec<String> {
    let name = path.split('/').next().unwrap();
    let Some(module) = table.iter().find(|module| module.name == name) else {
        return vec![format!("{path}: the module `{name}` is in no layer")];
    };
    let mut faults = Vec::new();
    for import in imports(code).into_iter().filter(|import| import != name) {
        let Some(other) = table.iter().find(|other| other.name == import) else {
            continue;
        };
        let may_see_beside = module.beside.as_ref().is_none_or(|beside| beside.contains(&import));
        if other.layer > module.layer || (other.layer == module.layer && !may_see_beside) {
            faults.push(format!("{path} imports `{import}`, which is not below it"));
        }
    }
    let is_named = |ban: &&Ban| imports(code).contains(&ban.name) || names_crate(code, &ban.name);
    let is_excepted = |ban: &&Ban| ban.except.as_ref().is_some_and(|folder| path.starts_with(folder));
    for ban in module.banned.iter().filter(is_named).filter(|ban| !is_excepted(ban)) {
        faults.push(format!("{path} names `{}`, which `{name}` must not know", ban.name));
    }
    for import in code.split("pub use crate::").skip(1) {
        if !import.starts_with(&format!("{name}::")) {
            faults.push(format!("{path} re-exports `{}`", import.split(';').next().unwrap()));
        }
    }
    faults
}

#[test]
fn every_module_keeps_to_the_layers() {
    let table = table();
    let files = files();
    for module in &table {
        let has_file = |(path, _): &(String, String)| path.split('/').next() == Some(&module.name);
        assert!(files.iter().any(has_file), "`{}` is in the table only", module.name);
    }
    let faults: Vec<String> = files
        .iter()
        .flat_map(|(path, code)| faults(&table, path, code))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_breaks_a_layer_is_found() {
    let table = table();
    for (path, code) in [
        ("shard/x", "use crate::transport::socket;"),
        ("transport/x", "use crate::api::convert;"),
        ("transport/http/x", "use crate::presence::Change;"),
        ("session/x", "let status = tonic::Status::ok();"),
        ("shard/x", "pub use crate::hub::Order;"),
        ("room/x", "use tokio::sync::Mutex;"),
        ("unheard_of", ""),
    ] {
        assert_eq!(faults(&table, path, code).len(), 1, "{path}: {code}");
    }
    for (path, code) in [
        ("transport/native/x", "use crate::presence::Change;"),
        ("cluster/x", "use crate::hub::Order;"),
        ("cli/x", "use crate::config::Config;"),
        ("shard/x", "use crate::hub::{Order, Audience};"),
    ] {
        assert_eq!(faults(&table, path, code), [""; 0], "{path}: {code}");
    }
}

#[test]
fn the_files_that_the_map_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for page in fs::read_dir(root.join("docs/walkthroughs")).unwrap() {
        text += &fs::read_to_string(page.unwrap().path()).unwrap();
    }
    let is_file = |name: &String| {
        let (stem, ending) = name.rsplit_once('.').unwrap_or_default();
        matches!(ending, "rs" | "proto") && stem != "foo" && !name.contains(' ')
    };
    let named: Vec<String> = quoted(&text).into_iter().filter(is_file).collect();
    assert!(named.len() > 30, "{named:?}");
    let is_missing = |name: &&String| ["src", ""].iter().all(|folder| !root.join(folder).join(name).exists());
    assert_eq!(named.iter().filter(is_missing).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn only_rooms_publishes_to_the_bus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let makers: Vec<String> = files
        .iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("Envelope(publish"))
        .map(|file| file.strip_prefix(&root).unwrap().display().to_string())
        .filter(|file| !file.contains("bus/"))
        .collect();
    assert_eq!(
        makers,
        ["rooms.rs"],
        "an envelope is made from a permit in `rooms` only"
    );
}
