//! The documentation names everything that appears in a trace; `trace` tests that it arrives.

use std::collections::BTreeSet;
use std::path::Path;

use crate::tools::root;

#[test]
fn every_span_is_documented() {
    let documented = std::fs::read_to_string(root().join("docs/telemetry.md")).unwrap();
    let mut spans = BTreeSet::new();
    collect_spans(&root().join("src"), &mut spans);
    assert!(spans.contains("api.publish"), "the sources are read: {spans:?}");
    for span in spans {
        assert!(
            documented.contains(&format!("`{span}`")),
            "docs/telemetry.md does not list {span}"
        );
    }
}

/// The names of the spans that the sources below `folder` make; tests aside.
fn collect_spans(folder: &Path, spans: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_spans(&path, spans);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            // The name is the first literal inside the macro, perhaps behind `parent: ..`.
            for call in source.split("_span!(").skip(1) {
                let name = call.split('"').nth(1).unwrap_or_default();
                spans.insert(name.to_owned());
            }
        }
    }
}
