//! The gateway under load: somebody's, or one of our own that ends with the run.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::auth::IssuerConfig;
use crate::cli::failure::Failure;
use crate::cli::token::development;

/// How long our own gateway may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What our own gateway is started with: everybody may join every room and is put into none, and no limit is meant for
/// a thousand clients behind one address.
const SETTINGS: [&str; 8] = [
    "telemetry.log=warn",
    "policy.rules=[{name=\"bench\",room=\"{whole*}\",allow=[\"join\"]}]",
    "connections.per_address_max=1000000",
    "client.connect_rate.per_second=1000000",
    "client.connect_rate.burst=1000000",
    "client.handshakes_max=10000",
    "grpc.publish_rate.per_second=10000000",
    "grpc.publish_rate.burst=10000000",
];

/// Where a gateway is and how it is talked to.
#[derive(Debug)]
pub(super) struct Gateway {
    /// For clients.
    pub(super) url: String,
    /// For backends.
    pub(super) grpc: String,
    pub(super) service_token: Option<String>,
    /// In whose name the members' tokens are signed.
    pub(super) issuer: IssuerConfig,
    pub(super) tenant: String,
    /// Whose CPU time and memory is looked at.
    pub(super) pid: Option<u32>,
    pub(super) own: Option<Own>,
}

/// A gateway of our own. It ends with this value.
#[derive(Debug)]
pub(super) struct Own {
    process: Child,
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

#[derive(Deserialize)]
struct Welcome {
    url: String,
    grpc_url: String,
    tenant: String,
    service_token: String,
}

/// Starts `roomcast dev` with these settings on top of [`SETTINGS`].
pub(super) async fn start(settings: &[(String, String)]) -> Result<Gateway, Failure> {
    let secret = random::<32>();
    let mut process = spawn(&secret, settings).map_err(|error| undone(&error))?;
    let said = process.stdout.take().map(BufReader::new);
    let mut own = Own { process, said: None };
    let mut said = said.ok_or_else(|| undone(&"nothing to read from"))?;
    let first = spawn_blocking(move || {
        let mut line = String::new();
        said.read_line(&mut line).map(|_| (line, said))
    });
    let (line, said) = match timeout(START_TIMEOUT, first).await {
        Ok(Ok(Ok(first))) => first,
        Ok(Ok(Err(error))) => return Err(undone(&error)),
        Ok(Err(error)) => return Err(undone(&error)),
        Err(_) => return Err(undone(&"it says nothing")),
    };
    let welcome: Welcome = serde_json::from_str(&line).map_err(|_| undone(&"it did not say where it listens"))?;
    own.said = Some(said);
    Ok(Gateway {
        url: welcome.url,
        grpc: welcome.grpc_url,
        service_token: Some(welcome.service_token),
        issuer: development(secret),
        tenant: welcome.tenant,
        pid: Some(own.process.id()),
        own: Some(own),
    })
}

fn spawn(secret: &str, settings: &[(String, String)]) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["dev", "--json", "--port", "0", "--grpc-port", "0"]);
    for setting in SETTINGS {
        command.args(["--set", setting]);
    }
    for (key, value) in settings {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    // A run must not depend on settings that happen to be in the environment.
    command.env_clear().env("ROOMCAST_DEV_SECRET", secret);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

/// Letters, digits, `-` and `_` that nobody guesses.
pub(super) fn random<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes[..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn undone(error: &dyn std::fmt::Display) -> Failure {
    Failure::Undone(format!("cannot start a gateway: {error}"))
}
