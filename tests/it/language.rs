//! The language of the sources: how doc comments open, and the catalogue of log messages in `docs/telemetry.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::tools::root;

/// The largest share of doc comments, in percent, that may open with a relative word. The four projects that the style is measured against have 1.2 to 5.6.
const RELATIVE_OPENINGS_MAX: f64 = 1.5;

const RELATIVE_WORDS: [&str; 13] = [
    "What", "Who", "Whose", "Whom", "How", "Whether", "Where", "When", "Why", "Which", "Whoever", "Whatever",
    "Whomever",
];

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The one line that is written without an event: a filter could remove an event.
const WRITTEN_BY_HAND: (&str, &str, &str) = ("src/telemetry/log_writer.rs", "log lines dropped", "warn");

/// A source file without its tests.
struct Source {
    path: PathBuf,
    text: String,
}

/// The sources below `folder` that are compiled without `cfg(test)`.
fn sources(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    let texts: Vec<String> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let test_modules: BTreeSet<PathBuf> = paths
        .iter()
        .zip(&texts)
        .flat_map(|(path, text)| test_modules(path, text))
        .collect();
    let is_test = |path: &Path| {
        path.ancestors()
            .any(|part| test_modules.contains(&part.with_extension("")))
    };
    let sources: Vec<Source> = paths
        .into_iter()
        .zip(texts)
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| Source {
            path,
            text: text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default()
                .to_owned(),
        })
        .collect();
    assert!(sources.len() > 10, "the sources of {folder} were not found");
    sources
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a file declares for tests only, as paths without an extension.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = path.file_stem().is_some_and(|stem| stem == "lib" || stem == "main");
    let folder = if is_root {
        path.parent().unwrap().to_owned()
    } else {
        path.with_extension("")
    };
    let declarations = text.split("#[cfg(test)]\n").skip(1);
    let names = declarations.filter_map(|rest| {
        let line = rest.lines().next()?.trim().strip_suffix(';')?;
        line.rsplit_once("mod ").map(|(_, name)| folder.join(name))
    });
    names.collect()
}

/// The first words of the doc comments.
fn openings(text: &str) -> Vec<&str> {
    let mut openings = Vec::new();
    let mut is_inside = false;
    for line in text.lines().map(str::trim_start) {
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        if let Some(comment) = comment.filter(|_| !is_inside) {
            openings.extend(
                comment
                    .split(|c: char| !c.is_alphanumeric())
                    .find(|word| !word.is_empty()),
            );
        }
        is_inside = comment.is_some();
    }
    openings
}

#[test]
fn doc_comments_seldom_open_with_a_relative_word() {
    let mut modules: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for folder in ["src", "benches/load/src"] {
        for source in sources(folder) {
            let within = source
                .path
                .strip_prefix(root().join(folder))
                .unwrap()
                .with_extension("");
            let module = if folder == "src" {
                within.iter().next().unwrap().to_str().unwrap()
            } else {
                folder
            };
            let (relative, all) = modules.entry(module.to_owned()).or_default();
            for opening in openings(&source.text) {
                *all += 1;
                *relative += usize::from(RELATIVE_WORDS.contains(&opening));
            }
        }
    }
    let (relative, all) = modules
        .values()
        .fold((0, 0), |sum, (relative, all)| (sum.0 + relative, sum.1 + all));
    assert!(all > 1000, "doc comments were not found: {all}");
    let share = percent(relative, all);
    let mut rows: Vec<_> = modules
        .iter()
        .map(|(name, (relative, all))| (percent(*relative, *all), all, name))
        .collect();
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    let rows: Vec<String> = rows
        .iter()
        .map(|(share, all, name)| format!("{share:5.1} % of {all:4}  {name}"))
        .collect();
    assert!(
        share <= RELATIVE_OPENINGS_MAX,
        "{share:.1} % of {all} doc comments open with a relative word, at most {RELATIVE_OPENINGS_MAX} may:\n{}",
        rows.join("\n")
    );
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand comments")]
fn percent(part: usize, all: usize) -> f64 {
    part as f64 * 100.0 / all.max(1) as f64
}

/// The log calls in code: level, and message if it is a literal.
fn log_calls(code: &str) -> Vec<(&'static str, Option<String>)> {
    let mut calls = Vec::new();
    for level in LEVELS {
        let name = format!("{level}!(");
        for (at, _) in code.match_indices(&name) {
            let is_whole = !code[..at]
                .chars()
                .next_back()
                .is_some_and(|c| c.is_alphanumeric() || c == '_');
            if is_whole {
                calls.push((level, message(arguments(&code[at + name.len()..]))));
            }
        }
    }
    calls
}

/// The text before the parenthesis that closes a call.
fn arguments(rest: &str) -> &str {
    let (mut depth, mut is_quoted, mut is_escaped) = (1, false, false);
    for (at, c) in rest.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &rest[..at];
        }
    }
    rest
}

/// The literal that a log call ends with.
fn message(arguments: &str) -> Option<String> {
    let arguments = arguments.trim().trim_end_matches(',').strip_suffix('"')?;
    let (fields, message) = arguments.rsplit_once('"')?;
    let is_last_argument = fields.trim().is_empty() || fields.trim_end().ends_with(',');
    is_last_argument.then(|| message.to_owned())
}

/// Reports whether a message is a fixed phrase: no interpolation, no capital at the start, no sentence.
fn is_phrase(message: &str) -> bool {
    message.starts_with(|c: char| c.is_ascii_lowercase())
        && !message.contains(['{', '}', ';', ':'])
        && !message.ends_with(['.', '!', '?', ' '])
}

/// The messages of the sources, with their levels.
fn logged() -> BTreeSet<(String, String)> {
    let mut logged = BTreeSet::new();
    for source in sources("src") {
        let comments = |line: &&str| !line.trim_start().starts_with("//");
        let code = source.text.lines().filter(comments).collect::<Vec<_>>().join("\n");
        for (level, message) in log_calls(&code) {
            let path = source.path.display();
            let message = message.unwrap_or_else(|| panic!("{path}: {level}! ends without a literal message"));
            assert!(is_phrase(&message), "{path}: not a fixed lower-case phrase: {message}");
            logged.insert((message, level.to_owned()));
        }
    }
    let (path, message, level) = WRITTEN_BY_HAND;
    let writer = fs::read_to_string(root().join(path)).unwrap();
    assert!(
        writer.contains(&format!("\"{message}\"")),
        "{path} no longer writes: {message}"
    );
    logged.insert((message.to_owned(), level.to_owned()));
    logged
}

/// The messages of the tables in `docs/telemetry.md`, with their levels.
fn documented() -> BTreeSet<(String, String)> {
    let page = fs::read_to_string(root().join("docs/telemetry.md")).unwrap();
    let (_, catalogue) = page.split_once("## Log messages").unwrap();
    let rows = catalogue.lines().filter(|line| line.starts_with("| `"));
    let mut documented = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [message, levels, meaning, _] = cells[..] else {
            panic!("four cells: {row}")
        };
        assert!(!meaning.is_empty(), "no meaning: {row}");
        for level in levels.split(", ") {
            let entry = (message.trim_matches('`').to_owned(), level.to_owned());
            assert!(documented.insert(entry), "twice in the catalogue: {row}");
        }
    }
    documented
}

#[test]
fn the_catalogue_of_log_messages_is_complete_and_current() {
    let (logged, documented) = (logged(), documented());
    assert!(logged.len() > 50, "the messages were not found: {logged:?}");
    let missing: Vec<_> = logged.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&logged).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/telemetry.md, \"Log messages\": missing {missing:#?}, stale {stale:#?}"
    );
}

#[test]
fn log_calls_are_found_with_level_and_message() {
    let found = |code: &str| log_calls(code);
    let literal = |text: &str| Some(text.to_owned());
    assert_eq!(
        found("tracing::warn!(count, \"limit reached\");"),
        [("warn", literal("limit reached"))]
    );
    assert_eq!(
        found("info!(\n    a = f(\"x\"),\n    \"started\",\n)"),
        [("info", literal("started"))]
    );
    assert_eq!(found("debug!(\"from {}\", name)"), [("debug", None)]);
    assert_eq!(found("error!(%error)"), [("error", None)]);
    assert_eq!(found("tracing::debug_span!(\"a.b\"); my_info!(\"x\")"), []);
    for (message, expected) in [
        ("nats connection stale, reconnecting", true),
        ("Started", false),
        ("room {room} closed", false),
        ("it broke; it is made anew", false),
        ("", false),
    ] {
        assert_eq!(is_phrase(message), expected, "{message}");
    }
}

#[test]
fn the_opening_of_a_doc_comment_is_its_first_word() {
    let text = "//! What it is.\n//! Whose.\n\n/// Returns it.\nfn a() {}\n    /// `Who` asks.\n    /// How.\n";
    assert_eq!(openings(text), ["What", "Returns", "Who"]);
}
