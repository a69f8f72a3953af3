//! The program itself, as `roomcast dev`: what a newcomer meets first, and what software that is not ours is tried on.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

/// How long the start may take, on a machine with other worries.
const PATIENCE: Duration = Duration::from_secs(60);

/// What signs its users' tokens.
pub(crate) const SECRET: &str = "the secret of a gateway in a test";

/// The program, with the usual meaning of SIGHUP: whoever runs the tests may have it ignored (`nohup`), and it would be inherited.
fn program() -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new(env!("CARGO_BIN_EXE_roomcast"));
    }
    let mut program = Command::new("env");
    program.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_roomcast")]);
    program
}

/// A running gateway; it ends with this value.
pub(crate) struct Dev {
    process: Child,
    welcome: Value,
    /// What it logs, complete once it has ended.
    log: Option<JoinHandle<String>>,
}

impl Dev {
    /// Starts it on free ports and waits until it serves.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_logging_to(Stdio::piped(), arguments)
    }

    /// The same with a log that goes elsewhere.
    pub(crate) fn start_logging_to(log: impl Into<Stdio>, arguments: &[&str]) -> Self {
        let mut process = program()
            .args(["dev", "--port", "0", "--grpc-port", "0", "--json"])
            .args(arguments)
            .env("ROOMCAST_DEV_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, first) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let _ = sender.send(said.next());
            // Read to the end, so that it never waits for a reader.
            said.for_each(drop);
        });
        let log = process.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut log = String::new();
                let _ = stderr.read_to_string(&mut log);
                log
            })
        });
        let mut dev = Self {
            process,
            welcome: Value::Null,
            log,
        };
        let line = first
            .recv_timeout(PATIENCE)
            .expect("`roomcast dev` says where it listens");
        let line = line.expect("`roomcast dev` starts").unwrap();
        dev.welcome = serde_json::from_str(&line).unwrap();
        dev
    }

    /// What it has printed under this JSON pointer.
    pub(crate) fn said(&self, pointer: &str) -> &str {
        self.welcome
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer} is not in {}", self.welcome))
    }

    /// Sends it a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let process_id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &process_id]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks it to end, as an orchestrator would, and waits until it has.
    pub(crate) fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it has ended.
    pub(crate) fn ended(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    /// Asks it to end, and returns all that it has logged.
    pub(crate) fn into_log(mut self) -> String {
        self.signal("TERM");
        self.process.wait().unwrap();
        self.log.take().unwrap().join().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let log = self.log.take().and_then(|log| log.join().ok());
        if thread::panicking() {
            eprintln!("`roomcast dev` logged:\n{}", log.unwrap_or_default());
        }
    }
}
