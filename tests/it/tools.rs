//! Programs that are not ours, at the fixed places where `scripts/setup.sh` puts them.
//!
//! A missing one fails the test that needs it and says what to do. Nothing is skipped: a test that did not run is no
//! comfort.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A script for Python with the packages of `tests/tools/requirements.txt`; paths are below the root.
pub(crate) fn python(script: &str) -> Command {
    command(&installed(".tools/venv/bin/python"), script)
}

/// A script for Node.js that finds the packages of `tests/package.json`.
pub(crate) fn node(script: &str) -> Command {
    installed("tests/node_modules");
    command(Path::new("node"), script)
}

/// A script for the shell.
pub(crate) fn bash(script: &str) -> Command {
    command(Path::new("bash"), script)
}

/// Fails unless the program ended well, with all that it printed.
#[track_caller]
pub(crate) fn expect_success(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?} could not be started ({error}); run: make setup");
    });
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

fn command(program: &Path, script: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).arg(root().join(script));
    command
}

/// What `scripts/setup.sh` has put there.
#[track_caller]
pub(crate) fn installed(path: &str) -> PathBuf {
    let path = root().join(path);
    assert!(path.exists(), "{} is not installed; run: make setup", path.display());
    path
}
