//! `roomcast serve` as a process.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

use super::GOOD;

/// `roomcast serve`, and its log.
pub(super) struct Serve {
    pub process: Child,
    log: Lines<BufReader<ChildStderr>>,
    _folder: tempfile::TempDir,
}

/// The program that is tested.
pub(super) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_roomcast"))
}

/// A folder with a configuration file, and the arguments that serve it on free ports; further ones follow `serve`.
pub(super) fn good(mut program: Command, more: &[&str]) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    std::fs::write(&path, GOOD).unwrap();
    let free = ["--set", "client.listen=127.0.0.1:0", "--set", "grpc.listen=127.0.0.1:0"];
    program.arg("serve").args(free).args(more).arg("--config").arg(&path);
    (folder, program)
}

impl Serve {
    /// Starts it by a program and waits until it serves.
    pub(super) fn start(program: Command) -> Self {
        let (folder, mut command) = good(program, &["--set", "node.drain_window=0s"]);
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut serve = Self {
            log: BufReader::new(process.stderr.take().unwrap()).lines(),
            process,
            _folder: folder,
        };
        serve.expect("gateway started");
        serve
    }

    /// The next line of the log with this message. Not on a terminal, a line is a JSON object.
    pub(super) fn expect(&mut self, message: &str) -> Value {
        let mut lines = self
            .log
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        lines
            .find(|line| line["message"] == message)
            .unwrap_or_else(|| panic!("it never logged: {message}"))
    }

    /// The exit code.
    pub(super) fn ended(mut self) -> Option<i32> {
        self.expect("gateway stopped");
        self.process.wait().unwrap().code()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
