//! The measured server: a gateway or a peer of our own, which ends with the run, or a running gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;

use super::own::{Node, Own, Welcome, start};
use super::wire::Wire;
use roomcast::auth::IssuerConfig;
use roomcast::cli::failure::Failure;
use roomcast::cli::settings::Overrides;
use roomcast::cli::token::{TENANT, configured, development, read_secret};
use roomcast::config::NatsSection;

/// The settings of our own gateway: every user may join every room and resume in it, no room is joined automatically, and no
/// limit is meant for a thousand clients behind one address.
const SETTINGS: [&str; 10] = [
    "telemetry.log=warn",
    "policy.rules=[{name=\"bench\",room=\"{whole*}\",allow=[\"join\",\"history\"]}]",
    "connections.per_address_max=1000000",
    "client.connect_rate.per_second=1000000",
    "client.connect_rate.burst=1000000",
    "client.handshakes_max=10000",
    "session.join_rate.per_second=1000000",
    "session.join_rate.burst=1000000",
    "grpc.publish_rate.per_second=10000000",
    "grpc.publish_rate.burst=10000000",
];

/// The measured server, and the members' protocol
#[derive(Debug, Clone, Args)]
pub(super) struct At {
    /// The members' protocol; by default JSON to a gateway and plain to a peer
    #[arg(long, value_enum)]
    wire: Option<Wire>,
    /// A peer to start and measure instead of a gateway: its program and arguments, separated by spaces
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["url", "pairs"])]
    peer: Option<String>,
    /// The program to start as the gateway; without it the `roomcast` beside this program
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "peer"])]
    gateway: Option<PathBuf>,
    /// The WebSocket address of a running gateway, instead of one started for the run
    #[arg(long, value_name = "URL", requires_all = ["grpc", "signer"])]
    url: Option<String>,
    /// Its gRPC address
    #[arg(long, value_name = "URL", requires = "url")]
    grpc: Option<String>,
    /// Its service token
    #[arg(long, value_name = "TOKEN", env = "ROOMCAST_SERVICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Its configuration file, whose first HS256 key signs the members' tokens
    #[arg(long, value_name = "FILE", group = "signer", requires = "url")]
    config: Option<PathBuf>,
    /// The secret it was started with (`roomcast dev --secret`), to sign the members' tokens
    #[arg(long, value_name = "SECRET", group = "signer", requires = "url")]
    user_token_secret: Option<String>,
    /// A file that holds this secret
    #[arg(long, value_name = "FILE", group = "signer", requires = "url")]
    user_token_secret_file: Option<PathBuf>,
    /// The members' tenant there
    #[arg(long, value_name = "ID", default_value = TENANT)]
    tenant: String,
    /// Its process, if it runs on this machine, for CPU and memory (Linux)
    #[arg(long, value_name = "PID", requires = "url")]
    pid: Option<u32>,
    /// The number of gateways to start, a process each, over a nats-server; events go to the first, members to the last
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["url", "peer"], value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: Option<u16>,
    #[command(flatten)]
    settings: Overrides,
}

/// The way events enter the server.
#[derive(Debug, Clone)]
pub(super) enum Inlet {
    Grpc(Api),
    /// The control connection of a peer.
    Control(SocketAddr),
}

/// The port for backends.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) url: String,
    pub(super) token: Option<String>,
}

/// A server that runs, and how it is talked to.
#[derive(Debug)]
pub(super) struct Target {
    /// As it is called in reports.
    pub(super) name: String,
    /// The WebSocket address for members; none where there are only calls to answer.
    pub(super) url: Option<String>,
    pub(super) inlet: Inlet,
    pub(super) wire: Wire,
    /// In whose name the members' tokens are signed.
    pub(super) issuer: Option<IssuerConfig>,
    pub(super) tenant: String,
    /// The process whose CPU time and memory is measured: of several nodes the first one, to which events go.
    pub(super) pid: Option<u32>,
    /// The processes of further nodes; members are on the last.
    pub(super) further: Vec<u32>,
    /// The nats-server that they share.
    pub(super) nats: Option<u32>,
    /// Held for their drop, the first node last: the nats-server ends with it.
    _own: Vec<Own>,
}

impl At {
    /// Checks the combination of arguments.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
        match (&self.peer, self.wire) {
            (Some(_), Some(wire)) if wire.is_gateways() => wrong("--wire: peers speak plain or Socket.IO"),
            (None, Some(Wire::Plain)) => wrong("--wire: a gateway does not speak plain"),
            _ if self.url.is_some() && !self.settings.pairs.is_empty() => {
                wrong("--set is for the gateway started here, not for the one at --url")
            }
            _ => Ok(()),
        }
    }

    /// Starts the server, unless one runs already.
    pub(super) fn start(&self) -> Result<Target, Failure> {
        self.start_with(&[])
    }

    /// The same, with settings of the scenario for a gateway that is started here; those of the command line win.
    pub(super) fn start_with(&self, settings: &[&str]) -> Result<Target, Failure> {
        if let Some(peer) = &self.peer {
            return self.peer(peer);
        }
        let (Some(url), Some(grpc)) = (&self.url, &self.grpc) else {
            return self.gateway(settings);
        };
        Ok(Target {
            name: "roomcast".to_owned(),
            url: Some(url.clone()),
            inlet: Inlet::Grpc(Api {
                url: grpc.clone(),
                token: self.token.clone(),
            }),
            wire: self.wire.unwrap_or(Wire::Json),
            issuer: Some(self.issuer()?),
            tenant: self.tenant.clone(),
            pid: self.pid,
            further: Vec::new(),
            nats: None,
            _own: Vec::new(),
        })
    }

    fn issuer(&self) -> Result<IssuerConfig, Failure> {
        match (&self.config, &self.user_token_secret, &self.user_token_secret_file) {
            (Some(path), ..) => configured(path),
            (_, Some(secret), _) => Ok(development(secret.clone())),
            (.., Some(path)) => Ok(development(read_secret(path)?)),
            (None, None, None) => Err(Failure::Usage("name a secret for the members' tokens".to_owned())),
        }
    }

    /// Starts `roomcast dev` with the settings given on top of [`SETTINGS`].
    fn gateway(&self, more: &[&str]) -> Result<Target, Failure> {
        let secret = random::<32>();
        let (own, welcome) = self.dev(more, &secret, None)?;
        let mut nodes = vec![(own, welcome.nodes)];
        for _ in 1..self.nodes.unwrap_or(1) {
            let (own, further) = self.dev(more, &secret, welcome.nats_url.as_deref())?;
            nodes.push((own, further.nodes));
        }
        let last = nodes.last().and_then(|(_, addresses)| addresses.first());
        let (Some(Node { url }), Some(grpc)) = (last, welcome.grpc_url) else {
            return Err(undone("a gateway", &"it did not say where it listens"));
        };
        let url = Some(url.clone());
        let own: Vec<_> = nodes.into_iter().map(|(own, _)| own).rev().collect();
        let mut pids = own.iter().rev().map(|own| own.process.id());
        let name = match self.nodes {
            None => "roomcast".to_owned(),
            Some(1) => "roomcast, 1 node over NATS".to_owned(),
            Some(nodes) => format!("roomcast, {nodes} nodes over NATS"),
        };
        Ok(Target {
            name,
            url,
            inlet: Inlet::Grpc(Api {
                url: grpc,
                token: welcome.service_token,
            }),
            wire: self.wire.unwrap_or(Wire::Json),
            issuer: Some(development(secret)),
            tenant: welcome.tenant.unwrap_or_default(),
            pid: pids.next(),
            further: pids.collect(),
            nats: welcome.nats_pid,
            _own: own,
        })
    }

    /// One process of it: alone, the first of several nodes, or a further one at the first one's NATS server.
    fn dev(&self, more: &[&str], secret: &str, nats: Option<&str>) -> Result<(Own, Welcome), Failure> {
        let mut command = Command::new(self.gateway_program()?);
        command.args(["dev", "--json", "--port", "0", "--grpc-port", "0"]);
        if self.nodes.is_some() {
            command.args(["--nodes", "1", "--set", &partitions()]);
        }
        if let Some(nats) = nats {
            command.args(["--nats", nats]);
        }
        for setting in SETTINGS.iter().chain(more) {
            command.args(["--set", setting]);
        }
        for pair in &self.settings.pairs {
            command.arg("--set").arg(pair);
        }
        // A run must not depend on settings that happen to be in the environment.
        command.env_clear().env("ROOMCAST_DEV_SECRET", secret);
        start(command, "a gateway")
    }

    /// The gateway's program: as named, else the one that was built beside this one.
    fn gateway_program(&self) -> Result<PathBuf, Failure> {
        if let Some(program) = &self.gateway {
            return Ok(program.clone());
        }
        let own = std::env::current_exe().map_err(|error| undone("a gateway", &error))?;
        let program = own.with_file_name("roomcast");
        if program.exists() {
            return Ok(program);
        }
        Err(Failure::Usage(format!(
            "there is no {}: build it (`cargo build --profile dist --workspace`) or name another with --gateway",
            program.display()
        )))
    }

    fn peer(&self, line: &str) -> Result<Target, Failure> {
        let mut words = line.split_whitespace();
        let program = words
            .next()
            .ok_or_else(|| Failure::Usage("--peer: name a program".to_owned()))?;
        let mut command = Command::new(program);
        command.args(words);
        let (own, welcome) = start(command, line)?;
        let inlet = match (welcome.control, welcome.grpc) {
            (Some(control), _) => Inlet::Control(control),
            (None, Some(url)) => Inlet::Grpc(Api { url, token: None }),
            (None, None) => return Err(undone(line, &"it did not say where events go")),
        };
        Ok(Target {
            name: peer_name(line),
            url: welcome.url,
            inlet,
            wire: self.wire.unwrap_or(Wire::Plain),
            issuer: None,
            tenant: TENANT.to_owned(),
            pid: Some(own.process.id()),
            further: Vec::new(),
            nats: None,
            _own: vec![own],
        })
    }
}

/// The last word that looks like a program or a script, without its folder and its ending.
fn peer_name(line: &str) -> String {
    let words = line.split_whitespace().take_while(|word| !word.starts_with('-'));
    let path = PathBuf::from(words.last().unwrap_or(line));
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    let folder = path.parent().and_then(|parent| parent.file_name());
    match (stem.as_ref(), folder) {
        // A script named for its role is known by its folder.
        ("index" | "main" | "server", Some(folder)) => folder.to_string_lossy().into_owned(),
        _ => stem.into_owned(),
    }
}

/// As many as in service.
fn partitions() -> String {
    format!("nats.partitions={}", NatsSection::default().partitions)
}

/// Letters, digits, `-` and `_` that nobody guesses.
pub(super) fn random<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes[..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn undone(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Undone(format!("cannot start {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_called_by_its_program_or_its_folder() {
        for (line, name) in [
            ("target/release/raw", "raw"),
            ("raw --port 0", "raw"),
            ("node benches/socketio-node/server.js --port 0", "socketio-node"),
        ] {
            assert_eq!(peer_name(line), name);
        }
    }
}
