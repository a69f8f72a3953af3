//! What signals do to a gateway: two ask it to end, and none kills it by surprise.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::serving::{Serve, good, program};
use crate::dev::Dev;

#[test]
fn serve_drains_and_ends_with_0_when_asked() {
    for name in ["TERM", "INT"] {
        let serve = Serve::start(program());
        signal(&serve.process, name);
        assert_eq!(serve.ended(), Some(0), "{name}");
    }
}

#[test]
fn serve_goes_on_after_every_other_signal_and_says_so() {
    let mut serve = Serve::start(program());
    for name in ["HUP", "USR1", "USR2"] {
        signal(&serve.process, name);
        let line = serve.expect("signal ignored, settings cannot be reloaded");
        assert_eq!(line["signal"], format!("SIG{name}"));
    }
    // Ignored by the Rust runtime, and so not logged.
    signal(&serve.process, "PIPE");
    signal(&serve.process, "TERM");
    assert_eq!(serve.ended(), Some(0));
}

#[test]
fn a_start_that_waits_ends_when_asked() {
    // Connections are taken, and nothing is ever said.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = format!("nats.servers=[\"nats://{}\"]", silent.local_addr().unwrap());
    let (_folder, mut command) = good(program(), &["--set", &servers]);
    let mut process = command.stderr(Stdio::null()).spawn().unwrap();
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
