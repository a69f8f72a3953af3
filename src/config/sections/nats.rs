//! `[nats]`: the cluster that makes several nodes one gateway.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::problem::{all, both};
use crate::config::values::{PositiveTime, Size, Time};
use crate::config::{Problem, files};
use crate::nats::{Config, Credentials, Storage, Subjects, Tls};

/// The NATS cluster that makes several nodes one gateway. Without this section a node is alone. `docs/nats.md` lists the
/// account's requirements, and the settings that must be equal on all nodes; any other can be changed node by node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSection {
    /// The servers, as `nats://host:port` or `tls://host:port`. One is enough to discover a cluster's others.
    pub servers: Vec<String>,
    /// Distinguishes deployments that share an account. 1 to 32 of `A-Z a-z 0-9 - _`.
    pub deployment: String,
    /// A file as `nsc` writes it: a JWT and the seed of its key. At most one kind of credential may be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creds_file: Option<PathBuf>,
    /// A file with the seed of an nkey (`SU..`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey_file: Option<PathBuf>,
    /// A user, together with `password_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file with the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Encryption of the connection. `tls://` in an address is enough for a server with a public certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<NatsTlsSection>,
    /// Number of streams that the rooms are spread over, fixed by the first start: a node with another number is refused.
    /// More make reading the history of a room that no node has in memory faster, and cost the servers some memory and
    /// `stream_bytes_max` of storage each.
    pub partitions: u16,
    /// Number of servers that hold each stream: 1, 3 or 5. With 1, a failed server takes its rooms with it.
    pub replicas: usize,
    /// Storage of streams: on disk (`file`) or in memory (`memory`).
    pub storage: StorageSetting,
    /// The most bytes of one partition's stream, as a fuse: beyond, the oldest events of all its rooms are dropped first.
    /// NATS reserves this for each partition, and four times as much for last values: 2.2 GiB in all by default.
    #[serde(with = "Size")]
    pub stream_bytes_max: usize,
    /// Interval of probes on each connection. A connection is given up after two unanswered probes.
    #[serde(with = "PositiveTime")]
    pub ping_interval: Duration,
    /// Time for which a starting node waits for a NATS that is not ready: unreachable, without JetStream, without a leader.
    /// Health reports `NOT_SERVING` meanwhile. Wrong credentials, missing permissions and too old a server fail at once.
    #[serde(with = "Time")]
    pub start_timeout: Duration,
    /// Deadline of one request to NATS.
    #[serde(with = "PositiveTime")]
    pub request_timeout: Duration,
    /// Deadline of a publish, all its attempts together. A caller's deadline may be shorter.
    #[serde(with = "PositiveTime")]
    pub publish_timeout: Duration,
    /// The most publishes that wait for an acknowledgement; one more waits for its turn.
    pub publishes_in_flight_max: usize,
    /// Interval of the anti-entropy sweep: rooms with members are checked for events that did not arrive.
    #[serde(with = "PositiveTime")]
    pub sweep_interval: Duration,
    /// Time for which a repeated idempotency key is recognized. A key costs the servers about 215 bytes.
    #[serde(with = "PositiveTime")]
    pub idempotency_window: Duration,
    /// Lease: the time for which a node that does not hear NATS may still deliver its events. A revocation takes up to this
    /// long when that node is silent. Each node announces its own, so it can be changed node by node. If it is shorter than
    /// an election of a stream's leader (4 to 9 s), an election interrupts deliveries.
    #[serde(with = "PositiveTime")]
    pub lease: Duration,
}

/// Encryption of the connections to NATS.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NatsTlsSection {
    /// Starts the TLS handshake before the server's first message, as its `handshake_first` demands.
    pub first: bool,
    /// The authorities to trust, in PEM; the system's when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client certificate, in PEM; together with `key_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Its key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// Storage of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StorageSetting {
    /// On disk: survives a restart of all servers.
    #[default]
    File,
    /// In memory: faster, and a restart of all servers is a new epoch.
    Memory,
}

impl Default for NatsSection {
    fn default() -> Self {
        let config = Config::default();
        Self {
            servers: config.servers,
            deployment: config.deployment,
            creds_file: None,
            nkey_file: None,
            user: None,
            password_file: None,
            token_file: None,
            tls: None,
            partitions: config.partitions,
            replicas: config.replicas,
            storage: StorageSetting::File,
            stream_bytes_max: usize::try_from(config.stream_bytes_max).unwrap_or(usize::MAX),
            ping_interval: config.ping_interval,
            start_timeout: config.start_timeout,
            request_timeout: config.request_timeout,
            publish_timeout: config.publish_timeout,
            publishes_in_flight_max: config.publishes_in_flight_max,
            sweep_interval: config.sweep_interval,
            idempotency_window: config.idempotency_window,
            lease: config.lease,
        }
    }
}

impl NatsSection {
    /// Reads the secrets named here.
    pub(in crate::config) fn cluster(&self) -> Result<Config, Vec<Problem>> {
        let ((), (credentials, tls)) = both(self.check(), both(self.credentials(), self.tls()))?;
        Ok(Config {
            servers: self.servers.clone(),
            deployment: self.deployment.clone(),
            credentials,
            tls,
            partitions: self.partitions,
            replicas: self.replicas,
            storage: match self.storage {
                StorageSetting::File => Storage::File,
                StorageSetting::Memory => Storage::Memory,
            },
            stream_bytes_max: self.stream_bytes_max as u64,
            ping_interval: self.ping_interval,
            start_timeout: self.start_timeout,
            request_timeout: self.request_timeout,
            publish_timeout: self.publish_timeout,
            publishes_in_flight_max: self.publishes_in_flight_max,
            sweep_interval: self.sweep_interval,
            idempotency_window: self.idempotency_window,
            lease: self.lease,
        })
    }

    fn check(&self) -> Result<(), Vec<Problem>> {
        let unless = |fine: bool, key: &str, why: &str| {
            let problem = || Problem::new(format!("nats.{key}"), why);
            if fine { Ok(()) } else { Err(problem()) }
        };
        let deployment = Subjects::new(&self.deployment).map(drop);
        let settings = [
            deployment.map_err(|why| Problem::new("nats.deployment", why)),
            unless(!self.servers.is_empty(), "servers", "names no server"),
            unless(matches!(self.replicas, 1 | 3 | 5), "replicas", "is not 1, 3 or 5"),
            unless(
                (1..=1024).contains(&self.partitions),
                "partitions",
                "is not between 1 and 1024",
            ),
        ];
        // A server's address appears in errors and in `print`.
        let servers = self.servers.iter().enumerate().map(|(at, server)| {
            unless(
                !server.contains('@'),
                &format!("servers.{at}"),
                "must not hold credentials; use user and password_file, or token_file",
            )
        });
        all(settings.into_iter().chain(servers)).map(drop)
    }

    fn credentials(&self) -> Result<Credentials, Problem> {
        let read = |key: &str, file: &Option<PathBuf>| match files::secret(None, file.as_deref()) {
            Ok(secret) => Ok(secret.map(|secret| secret.expose().to_owned())),
            Err(error) => Err(Problem::new(format!("nats.{key}"), error)),
        };
        let creds = read("creds_file", &self.creds_file)?;
        let nkey = read("nkey_file", &self.nkey_file)?;
        let password = read("password_file", &self.password_file)?;
        let token = read("token_file", &self.token_file)?;
        match (creds, nkey, &self.user, password, token) {
            (None, None, None, None, None) => Ok(Credentials::None),
            (Some(text), None, None, None, None) => Ok(Credentials::Creds(text)),
            (None, Some(seed), None, None, None) => Ok(Credentials::NkeySeed(seed)),
            (None, None, Some(user), Some(password), None) => Ok(Credentials::Password {
                user: user.clone(),
                password,
            }),
            (None, None, None, None, Some(token)) => Ok(Credentials::Token(token)),
            (None, None, Some(_), None, None) | (None, None, None, Some(_), None) => {
                Err(Problem::new("nats.user", "and nats.password_file need each other"))
            }
            _ => Err(Problem::new(
                "nats",
                "shows who the node is in more than one way; keep one of creds_file, nkey_file, user and token_file",
            )),
        }
    }

    fn tls(&self) -> Result<Tls, Problem> {
        let Some(section) = &self.tls else {
            return Ok(Tls::default());
        };
        let certificate = match (&section.certificate_file, &section.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            _ => {
                let problem = Problem::new("nats.tls.certificate_file", "and nats.tls.key_file need each other");
                return Err(problem);
            }
        };
        let files = [
            ("ca_file", section.ca_file.as_ref()),
            ("certificate_file", section.certificate_file.as_ref()),
            ("key_file", section.key_file.as_ref()),
        ];
        for (key, path) in files {
            // The NATS library reads them itself, with poorer errors.
            if let Some(path) = path {
                files::bytes(path).map_err(|error| Problem::new(format!("nats.tls.{key}"), error))?;
            }
        }
        Ok(Tls {
            required: true,
            first: section.first,
            ca_file: section.ca_file.clone(),
            certificate,
        })
    }
}
