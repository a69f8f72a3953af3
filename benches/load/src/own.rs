//! Server processes that a run starts and ends.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use roomcast::cli::failure::Failure;
use serde::Deserialize;

use super::target::undone;

/// The longest time for the start of a server.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A server of our own. It ends with this value.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) process: Child,
    /// Kept open, as a program expects of its standard output.
    said: Option<BufReader<ChildStdout>>,
}

impl Drop for Own {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The addresses and tokens that a gateway or a peer prints at its start.
#[derive(Deserialize)]
pub(super) struct Welcome {
    pub(super) url: Option<String>,
    pub(super) grpc_url: Option<String>,
    pub(super) grpc: Option<String>,
    pub(super) control: Option<SocketAddr>,
    pub(super) tenant: Option<String>,
    pub(super) service_token: Option<String>,
    #[serde(default)]
    pub(super) nodes: Vec<Node>,
    pub(super) nats_url: Option<String>,
    pub(super) nats_pid: Option<u32>,
}

/// One of a gateway's nodes.
#[derive(Deserialize)]
pub(super) struct Node {
    pub(super) url: String,
}

/// Starts a server and waits for the one line in which it says where it listens.
pub(super) fn start(mut command: Command, what: &str) -> Result<(Own, Welcome), Failure> {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut process = spawned.map_err(|error| undone(what, &error))?;
    let said = process.stdout.take().map(BufReader::new);
    let mut own = Own { process, said: None };
    let mut said = said.ok_or_else(|| undone(what, &"nothing to read from"))?;
    let (sender, first) = sync_channel(1);
    thread::spawn(move || {
        let mut line = String::new();
        let read = said.read_line(&mut line);
        // Nobody listens any more when it took too long.
        let _ = sender.send(read.map(|_| (line, said)));
    });
    let read = first
        .recv_timeout(START_TIMEOUT)
        .map_err(|_| undone(what, &"it says nothing"))?;
    let (line, said) = read.map_err(|error| undone(what, &error))?;
    own.said = Some(said);
    let welcome = serde_json::from_str(&line).map_err(|_| undone(what, &"it did not say where it listens"))?;
    Ok((own, welcome))
}
