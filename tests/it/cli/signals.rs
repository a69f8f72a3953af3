//! What signals do to a gateway: two ask it to end, and none kills it by surprise.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

use super::GOOD;
use crate::dev::Dev;

/// `roomcast serve`, and its log.
struct Serve {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    _folder: tempfile::TempDir,
}

impl Serve {
    /// Starts it and waits until it serves.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roomcast.toml");
        std::fs::write(&path, GOOD).unwrap();
        let free = ["--set", "client.listen=127.0.0.1:0", "--set", "grpc.listen=127.0.0.1:0"];
        let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .arg("serve")
            .args(free)
            .args(["--set", "node.drain_window=0s", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut serve = Self {
            log: BufReader::new(process.stderr.take().unwrap()).lines(),
            process,
            _folder: folder,
        };
        serve.expect("gateway started");
        serve
    }

    fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// The next line of the log with this message. Not on a terminal, a line is a JSON object.
    fn expect(&mut self, message: &str) -> Value {
        let mut lines = self
            .log
            .by_ref()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        lines
            .find(|line| line["message"] == message)
            .unwrap_or_else(|| panic!("it never logged: {message}"))
    }

    /// The exit code.
    fn ended(mut self) -> Option<i32> {
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

#[test]
fn serve_drains_and_ends_with_0_when_asked() {
    for name in ["TERM", "INT"] {
        let serve = Serve::start();
        serve.signal(name);
        assert_eq!(serve.ended(), Some(0), "{name}");
    }
}

#[test]
fn serve_goes_on_after_every_other_signal_and_says_so() {
    let mut serve = Serve::start();
    for name in ["HUP", "USR1", "USR2"] {
        serve.signal(name);
        let line = serve.expect("signal ignored, settings cannot be reloaded");
        assert_eq!(line["signal"], format!("SIG{name}"));
    }
    // Ignored by the Rust runtime, and so not logged.
    serve.signal("PIPE");
    serve.signal("TERM");
    assert_eq!(serve.ended(), Some(0));
}

#[test]
fn a_start_that_waits_ends_when_asked() {
    // Connections are taken, and nothing is ever said.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = format!("nats.servers=[\"nats://{}\"]", silent.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    std::fs::write(&path, GOOD).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["serve", "--set", &servers])
        .args([
            "--set",
            "client.listen=127.0.0.1:0",
            "--set",
            "grpc.listen=127.0.0.1:0",
            "--config",
        ])
        .arg(&path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _connection = silent.accept().unwrap();
    signal(&process, "TERM");
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

#[test]
fn dev_under_nohup_goes_on_without_its_terminal() {
    let mut process = Command::new("sh")
        .args([
            "-c",
            "trap '' HUP; exec \"$0\" dev --port 0 --grpc-port 0",
            env!("CARGO_BIN_EXE_roomcast"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(log.any(|line| line.contains("gateway started")));
    signal(&process, "HUP");
    assert!(log.any(|line| line.contains("signal ignored")));
    signal(&process, "TERM");
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

pub(super) fn signal(process: &Child, name: &str) {
    let process_id = process.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &process_id]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn dev_ends_with_its_terminal() {
    let dev = Dev::start();
    for name in ["USR1", "USR2", "PIPE"] {
        dev.signal(name);
    }
    dev.signal("HUP");
    assert_eq!(dev.ended().code(), Some(0));
}
