//! What an operator writes about NATS, read and checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::stream::StorageType;

/// How a node connects to NATS, and what it keeps there. Which settings must be equal on all nodes says [`super::agreement`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The servers, as `nats://host:port` or `tls://host:port`. One is enough to find a cluster's others.
    pub servers: Vec<String>,
    /// Distinguishes deployments that share an account: the first token of all subjects, the beginning of all streams'
    /// names. 1 to 32 of `A-Z a-z 0-9 - _`.
    pub deployment: String,
    /// How the node shows who it is.
    pub credentials: Credentials,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// How many streams the rooms are spread over. Fixed when the streams are made: a node with another number is refused. Default 64; recovery of a cold room gets slower with fewer.
    pub partitions: u16,
    /// How many servers hold each stream: 1, 3 or 5. Default 1; 3 in a cluster.
    pub replicas: usize,
    /// Where streams are kept. Default file.
    pub storage: Storage,
    /// The most bytes of one partition's stream, a fuse: when it blows, the oldest events of all its rooms go first.
    /// Default 32 MiB; see [`Config::reserved_bytes`].
    pub stream_bytes_max: u64,
    /// How often a connection is probed; it is given up after two unanswered probes. Default 2 s.
    pub ping_interval: Duration,
    /// How long a node that starts waits for a NATS that is not ready. Default 60 s. What does not heal by itself, such as wrong
    /// credentials, is not waited for.
    pub start_timeout: Duration,
    /// How long one request to NATS may take. Default 2 s.
    pub request_timeout: Duration,
    /// How long a publish may take, all its attempts together. Default 5 s; the caller's deadline may be shorter.
    pub publish_timeout: Duration,
    /// The most publishes that wait for an acknowledgement. Default 4,096.
    pub publishes_in_flight_max: usize,
    /// How often rooms are checked for events that came by no other way. Default 2 s.
    pub sweep_interval: Duration,
    /// How long a repeated idempotency key is recognized. Default 2 min; at most half the shortest history.
    pub idempotency_window: Duration,
    /// How long a node that cannot hear NATS goes on delivering. Revoking takes up to this long when a node is silent.
    /// Default 10 s, longer than the election of a stream's leader (4 to 9 s).
    pub lease: Duration,
}

/// How a node shows NATS who it is.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// By nothing, or by a client certificate.
    #[default]
    None,
    /// The text of a `.creds` file: a JWT and the seed of its key.
    Creds(String),
    /// The seed of a key (`SU..`).
    NkeySeed(String),
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Creds(_) => "Creds(..)",
            Self::NkeySeed(_) => "NkeySeed(..)",
            Self::Password { .. } => "Password(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// How the connection is encrypted. `tls://` in an address requires it, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Whether a connection without TLS is refused.
    pub required: bool,
    /// Whether the handshake comes before the server's first word (`handshake_first` there).
    pub first: bool,
    /// The authorities to trust, in PEM; the system's when not set.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Where a stream is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// On disk: survives a restart of all servers.
    #[default]
    File,
    /// In memory: faster; a restart of all servers is a new epoch.
    Memory,
}

impl From<Storage> for StorageType {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::File => Self::File,
            Storage::Memory => Self::Memory,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            deployment: "roomcast".to_owned(),
            credentials: Credentials::None,
            tls: Tls::default(),
            partitions: 64,
            replicas: 1,
            storage: Storage::File,
            stream_bytes_max: 32 << 20,
            ping_interval: Duration::from_secs(2),
            start_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(2),
            publish_timeout: Duration::from_secs(5),
            publishes_in_flight_max: 4096,
            sweep_interval: Duration::from_secs(2),
            idempotency_window: Duration::from_secs(120),
            lease: Duration::from_secs(10),
        }
    }
}
