//! Deployment: the chart, container files, the unit of systemd, alert rules and the dashboard.
//!
//! The tools are those of `scripts/setup.sh deploy`. Neither a cluster nor a container engine is needed: objects are validated
//! against the schemas of Kubernetes and of the custom resources, files by the parsers of the programs that read them.

mod alerts;
mod chart;
mod config_docs;
mod container;
mod values;

use std::path::PathBuf;
use std::process::Command;

use crate::tools::{installed, root};

const CHART: &str = "helm/roomcast";

/// A program of `.tools/deploy/bin`, started at the repository's root.
#[track_caller]
fn program(name: &str) -> Command {
    let mut command = Command::new(installed(&format!(".tools/deploy/bin/{name}")));
    command.current_dir(root());
    command
}

/// `helm template` of the chart, as the release `rel` in the namespace `rt`.
#[track_caller]
fn template() -> Command {
    let mut command = program("helm");
    command.args(["template", "rel", CHART, "--namespace", "rt"]);
    command
}

/// The value sets of `helm/roomcast/ci`.
fn sets() -> Vec<PathBuf> {
    let folder = root().join(CHART).join("ci");
    let mut sets: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    sets.sort();
    assert!(sets.len() >= 7, "{sets:?}");
    sets
}

/// The file of the repository as text.
#[track_caller]
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text below a line that ends with the marker, without its indentation, up to a line that is indented less.
fn block(text: &str, marker: &str) -> Option<String> {
    let (_, below) = text.split_once(&format!("{marker}\n"))?;
    let indent = below.lines().find(|line| !line.trim().is_empty())?;
    let indent = &indent[..indent.len() - indent.trim_start().len()];
    let lines = below
        .lines()
        .take_while(|line| line.trim().is_empty() || line.starts_with(indent))
        .map(|line| line.strip_prefix(indent).unwrap_or(""));
    Some(lines.collect::<Vec<_>>().join("\n"))
}
