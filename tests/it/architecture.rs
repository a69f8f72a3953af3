//! The layers of `ARCHITECTURE.md`, held by reading what each module imports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of each layer, low to high. A module imports only from lower layers and from itself.
const LAYERS: [&[&str]; 7] = [
    &[
        "binary", "error", "event", "headers", "identity", "json", "lease", "notice", "position", "proto", "rate",
        "room", "trace",
    ],
    &["nats"],
    &["auth", "backend", "bus", "policy", "presence"],
    &["cluster", "hub", "rooms"],
    &["session"],
    &["api", "transport"],
    &["cli", "config", "gateway", "telemetry"],
];

/// What a module must not see although it lies lower, and why.
const BANS: [(&str, &str, &str); 7] = [
    ("transport", "hub", "a transport knows sessions, not rooms"),
    ("transport", "bus", "a transport knows sessions, not rooms"),
    ("transport", "rooms", "a transport knows sessions, not rooms"),
    ("transport", "presence", "only its codecs write what a session tells"),
    ("hub", "proto", "the hub knows no codec"),
    ("session", "proto", "the session knows no codec"),
    ("hub", "auth", "the hub knows no token"),
];

/// Imports that break a ban or a layer on purpose.
const EXCEPTIONS: [(&str, &str, &str); 1] = [("transport/native", "presence", "codecs write rosters and changes")];

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

/// The top-level modules that a source file names as `crate::<module>`, its tests left out.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for line in lines {
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

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn every_module_imports_only_from_lower_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let mut broken = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap().with_extension("");
        let path = path.to_str().unwrap();
        let is_test = path.contains("/tests") || path.contains("/conformance") || path.ends_with("/model");
        let module = path.split('/').next().unwrap();
        if matches!(module, "lib" | "main" | "testing") || is_test {
            continue;
        }
        let Some(own) = layer_of(module) else {
            broken.push(format!("{path}: the module `{module}` has no layer"));
            continue;
        };
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = layer_of(&import) else { continue };
            let excepted = EXCEPTIONS
                .iter()
                .any(|(from, to, _)| path.starts_with(from) && import == *to);
            let higher = import != module && (other > own || (other == own && (1..6).contains(&own) && own != 3));
            let ban = BANS.iter().find(|(from, to, _)| module == *from && import == *to);
            if (higher || ban.is_some()) && !excepted {
                let why = ban.map_or("it is not below", |(_, _, why)| why);
                broken.push(format!("{path} imports `{import}`: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
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
