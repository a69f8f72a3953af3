//! The process of one server, of NATS or of Roomcast: signals in, its end out.
//!
//! The server is the child of `guard.sh`, which kills it when the pipe from here closes. That holds for a test program that
//! is killed, too, and needs no `unsafe`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const GUARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/nats/guard.sh");

/// A server that was started. Ends with this value, at once.
#[derive(Debug)]
pub struct Process {
    guard: Child,
    signals: ChildStdin,
    said: BufReader<ChildStdout>,
    id: u32,
}

impl Process {
    /// Starts `command`, a program and its arguments. What it prints is added to `output` in `folder`.
    pub fn start(folder: &Path, command: &[&OsStr]) -> Self {
        let mut guard = Command::new("sh")
            .arg(GUARD)
            .arg(folder)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal ends the test; the server then ends by the guard.
            .process_group(0)
            .spawn()
            .expect("a shell can be started");
        let signals = guard.stdin.take().expect("stdin is piped");
        let mut said = BufReader::new(guard.stdout.take().expect("stdout is piped"));
        let id = line(&mut said).parse().expect("the guard begins with the process id");
        Self {
            guard,
            signals,
            said,
            id,
        }
    }

    /// Whether the server is there; it may be paused.
    pub fn is_running(&mut self) -> bool {
        self.guard.try_wait().expect("the guard is our child").is_none()
    }

    /// Sends a signal. Returns when it was sent, which is before it did anything.
    pub fn signal(&mut self, name: &str) {
        writeln!(self.signals, "{name}").expect("the guard listens while the server runs");
        let said = line(&mut self.said);
        // A server that ends of it at once takes the guard with it, perhaps before that has said a word.
        assert!(said == name || said.is_empty(), "the guard said {said:?}");
    }

    /// Kills the server (`SIGKILL`) and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended by itself, and the guard with it: then there is nobody to tell.
        let _ = writeln!(self.signals, "KILL");
        self.guard.wait().expect("the guard is our child");
    }

    /// Whether each of its threads is stopped.
    pub fn is_stopped(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.id)) else {
            return false;
        };
        threads.flatten().all(|thread| {
            let status = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // "12 (nats-server) T ..": the name may hold anything, so the state is found from the end of it.
            status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).expect("the guard speaks UTF-8");
    line.trim_end().to_owned()
}
