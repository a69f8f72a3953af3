//! A small disk of a server's own, which a test fills up: `tests/tools/disk.sh`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::tools;

/// As much as the streams of a few rounds need, twice.
const SIZE: u64 = 64 << 20;

/// A disk; gone with its value, and with the server that is on it.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    holder: Child,
}

impl Disk {
    /// Whether this machine allows it; why not.
    pub fn is_allowed() -> Result<(), String> {
        script(&["available"])
    }

    pub fn make() -> Self {
        let folder = tempfile::Builder::new().prefix("disk-").tempdir();
        let folder = folder.expect("there is room for a folder");
        let mut holder = Command::new(path())
            .arg("hold")
            .arg(folder.path())
            .arg(SIZE.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        let mut said = String::new();
        let output = holder.stdout.as_mut().expect("stdout is piped");
        BufReader::new(output).read_line(&mut said).expect("it says something");
        assert_eq!(said.trim(), "ready", "what holds the disk");
        Self { folder, holder }
    }

    /// Where it is for a program that runs [`Self::through`].
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What runs a program that finds the disk.
    pub fn through(&self) -> Vec<String> {
        vec![
            path().display().to_string(),
            "exec".to_owned(),
            self.holder.id().to_string(),
        ]
    }

    /// Fills it up, to the last block.
    pub fn fill(&self) {
        self.ask("fill");
    }

    /// Gives back what [`Self::fill`] took.
    pub fn relieve(&self) {
        self.ask("relieve");
    }

    fn ask(&self, verb: &str) {
        let holder = self.holder.id().to_string();
        let folder = self.folder.path().display().to_string();
        script(&[verb, &holder, &folder]).expect("the disk is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It ends when its stdin does.
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            eprintln!("a disk is left behind: {error}");
        }
    }
}

fn path() -> PathBuf {
    tools::root().join("tests/tools/disk.sh")
}

fn script(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(path())
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}
