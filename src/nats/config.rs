//! An operator's settings for NATS, parsed and validated.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::stream::StorageType;

/// The settings of a node's connections to NATS and of its streams there. [`super::agreement`] defines which must be
/// equal on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The servers, as `nats://host:port` or `tls://host:port`. One is enough to find the others of a cluster.
    pub servers: Vec<String>,
    /// Distinguishes deployments that share an account: the first token of all subjects, the beginning of all streams'
    /// names. 1 to 32 of `A-Z a-z 0-9 - _`.
    pub deployment: String,
    /// The node's credentials.
    pub credentials: Credentials,
    /// The encryption of the connection.
    pub tls: Tls,
    /// The number of streams that the rooms are spread over. Fixed when the streams are created: a node with another
    /// number is refused. Default 64; recovery of a cold room gets slower with fewer.
    pub partitions: u16,
    /// The number of servers that hold each stream: 1, 3 or 5. Default 1; 3 in a cluster.
    pub replicas: usize,
    /// The storage of the streams. Default file.
    pub storage: Storage,
    /// The most bytes of one partition's stream, a safety limit: when it is reached, the oldest events of all its rooms
    /// are dropped first. Default 32 MiB; see [`Config::reserved_bytes`].
    pub stream_bytes_max: u64,
    /// The interval between probes of a connection, which is given up after two unanswered probes (half-open
    /// detection). Default 2 s.
    pub ping_interval: Duration,
    /// The time that a starting node waits for a NATS that is not ready. Default 60 s. A fault that does not heal by
    /// itself, such as wrong credentials, is reported at once.
    pub start_timeout: Duration,
    /// The timeout of one request to NATS. Default 2 s.
    pub request_timeout: Duration,
    /// The timeout of a publish, all its attempts together. Default 5 s; the caller's deadline may be shorter.
    pub publish_timeout: Duration,
    /// The most publishes that wait for an acknowledgement. Default 4,096.
    pub publishes_in_flight_max: usize,
    /// The interval between anti-entropy sweeps of the rooms, which find events that arrived no other way. Default 2 s.
    pub sweep_interval: Duration,
    /// The time during which a repeated idempotency key is recognized. Default 2 min; at most half the shortest
    /// history.
    pub idempotency_window: Duration,
    /// The time for which a node that cannot hear NATS continues to deliver. A revocation takes up to this long when a
    /// node is silent. Default 10 s, longer than the election of a stream's leader (4 to 9 s).
    pub lease: Duration,
}

/// The credentials of a node towards NATS.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// None, or a client certificate.
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

/// The encryption of the connection. `tls://` in an address requires it, too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Refuses a connection without TLS.
    pub required: bool,
    /// Starts the handshake before the server's first message (`handshake_first` there).
    pub first: bool,
    /// The authorities to trust, in PEM; the system's when not set.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The storage of a stream.
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
