//! What a test may choose, and the configuration file it comes to.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::address::Address;
use super::tls::NatsTls;

/// Which `nats-server`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// What one would install today.
    #[default]
    Newest,
    /// The oldest that is supported.
    Floor,
}

impl Release {
    /// Where `scripts/setup.sh` has put the program.
    #[track_caller]
    pub(super) fn program(self) -> PathBuf {
        let folder = match self {
            Self::Newest => "nats",
            Self::Floor => "nats-floor",
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!(".tools/{folder}/bin/nats-server"));
        assert!(path.exists(), "{} is not installed; run: make setup", path.display());
        path
    }
}

/// What a test may choose about its servers.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    pub release: Release,
    /// More configuration, in the server's own language: `authorization { .. }`, `max_payload: 1MB`.
    pub config: String,
    /// More of the `jetstream { .. }` block; what stands there already is overridden: `max_file_store: 10MB`.
    pub jetstream: String,
    /// Whether clients learn the addresses of the cluster's other servers. Not, if they shall come through a proxy only.
    pub advertise: bool,
    /// How clients' connections are encrypted; not at all unless set.
    pub tls: Option<NatsTls>,
    /// What starts the program, with its arguments.
    pub through: Vec<String>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            release: Release::Newest,
            config: String::new(),
            jetstream: String::new(),
            advertise: true,
            tls: None,
            through: Vec::new(),
        }
    }
}

impl NatsOptions {
    /// The configuration file of the server at `address`. `peers` are the routes of all servers of its cluster; none if it
    /// is alone.
    pub(super) fn file(&self, name: &str, address: &Address, store: &Path, peers: &[SocketAddr]) -> String {
        let mut text = format!(
            "server_name: \"{name}\"\n\
             listen: \"{}\"\n\
             http: \"{}\"\n\
             lame_duck_grace_period: \"1s\"\n\
             lame_duck_duration: \"30s\"\n\
             jetstream {{\n  store_dir: \"{}\"\n  max_memory_store: 1GB\n  max_file_store: 2GB\n  {}\n}}\n",
            address.clients(),
            address.monitor(),
            store.display(),
            self.jetstream,
        );
        if !peers.is_empty() {
            self.cluster(&mut text, address, peers);
        }
        if let Some(tls) = &self.tls {
            // The store is in a folder of the server's own.
            text.push_str(&tls.block(address.clients().ip(), store.parent().expect("a store has a folder")));
        }
        text.push_str(&self.config);
        text.push('\n');
        text
    }

    fn cluster(&self, text: &mut String, address: &Address, peers: &[SocketAddr]) {
        let routes: Vec<_> = peers.iter().map(|peer| format!("\"nats://{peer}\"")).collect();
        writeln!(
            text,
            "cluster {{\n  name: tests\n  listen: \"{}\"\n  no_advertise: {}\n  routes: [{}]\n}}",
            address.routes(),
            !self.advertise,
            routes.join(", "),
        )
        .expect("a string takes everything");
    }
}
