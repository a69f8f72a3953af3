//! The configuration: one tree of settings, read from a file, the environment and the command line.
//!
//! Only this module reads files and environment variables. Each section is the plain `Config` of the component it
//! configures; where such a type is not serde's business, a mirror in `sections` says how it is written. Defaults are
//! the components' own. A key nobody knows is an error, and so is every value that cannot work.

mod files;
mod origin;
mod problem;
mod schema;
mod sections;
mod sources;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::JwtAuthenticator;
use crate::backend::GrpcBackend;
use crate::bus::memory as bus;
use crate::hub::admission;
use crate::policy::RulePolicy;
use crate::presence::memory as presence;
use crate::{api, auth, backend, gateway, policy, session, telemetry};

pub use files::FileError;
pub use problem::{ConfigError, Problem};
pub use sections::{
    ClientSection, GrpcSection, HistoryOfRooms, HistorySection, NatsSection, NatsTlsSection, NodeSection, ScopeName,
    ServiceSection, SizeSetting, SocketSection, StorageSetting, TlsSection,
};
pub use sources::Sources;
pub use values::RateSetting;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The process.
    pub node: NodeSection,
    /// The port for clients: WebSockets at `/v1/ws`.
    pub client: ClientSection,
    /// The port for backends: gRPC, gRPC-Web and the HTTP mirror.
    pub grpc: GrpcSection,
    /// Tokens of clients: whose are taken and how they are checked. Without an issuer nobody can connect.
    pub auth: auth::Config,
    /// Permission: rules, conditions for connecting, and rooms everybody is put into. The default allows nothing.
    pub policy: policy::Config,
    /// The application that validates what clients publish and answers their requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<backend::Config>,
    /// How many connections the node serves. One more is refused with 503 or 429, or closed with 4504.
    #[serde(with = "sections::Connections")]
    pub connections: admission::Config,
    /// What one client may do, and how often.
    #[serde(with = "sections::Session")]
    pub session: session::Config,
    /// What one socket may hold.
    pub socket: SocketSection,
    /// How much of its past a room keeps, for resuming and history queries.
    pub history: HistorySection,
    /// The in-process bus: the bounds of all rooms together.
    #[serde(with = "sections::MemoryBus")]
    pub bus: bus::Config,
    /// The NATS cluster that makes several nodes one gateway. Without it a node is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSection>,
    /// Who is in a room, and how it is told.
    #[serde(with = "sections::MemoryPresence")]
    pub presence: presence::Config,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

impl Config {
    /// Reads all sources and checks each value.
    ///
    /// # Errors
    /// Every variant of [`ConfigError`].
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config: Self = sources.merged()?.extract()?;
        if config.node.id.is_empty() {
            config.node.id = sources.host_name();
        }
        let problems = sections::check(&config);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Wrong(problems))
        }
    }

    /// The gateway's parts: reads the secrets and certificates named here. `dev` for what `roomcast dev` may do.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn gateway(&self, dev: bool) -> Result<gateway::Config, ConfigError> {
        let wrong = |problem| ConfigError::Wrong(vec![problem]);
        let history = self.history.rules().map_err(wrong)?;
        Ok(gateway::Config {
            node_id: self.node.id.clone(),
            shards: self.node.shards(),
            connections: self.connections,
            session: session::Config {
                state_bytes_max: self.presence.state_bytes_max,
                listed_max: self.presence.listed_max as usize,
                ..self.session.clone()
            },
            sockets: (&self.socket).into(),
            client: self.client.port().map_err(wrong)?,
            bus: bus::Config {
                history,
                ..self.bus.clone()
            },
            nats: self
                .nats
                .as_ref()
                .map(NatsSection::cluster)
                .transpose()
                .map_err(wrong)?,
            presence: self.presence,
            auth: self.auth.clone(),
            policy: self.policy.clone(),
            backend: self.backend.clone(),
            api: api::Config {
                members_listed_max: self.presence.listed_max,
                ..self.grpc.port().map_err(wrong)?
            },
            credentials: self.grpc.credentials().map_err(wrong)?,
            home_rooms: self.grpc.home_rooms().map_err(wrong)?,
            drain_window: self.node.drain_window,
            dev,
        })
    }

    /// Everything a gateway would refuse to start with, short of starting one: secrets, keys, rules, credentials.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let gateway = self.gateway(false)?;
        let checks = [
            (
                "auth",
                JwtAuthenticator::new(&self.auth).err().map(|error| error.to_string()),
            ),
            (
                "policy",
                RulePolicy::new(&self.policy).err().map(|error| error.to_string()),
            ),
            (
                "backend",
                self.backend
                    .as_ref()
                    .and_then(|backend| GrpcBackend::new(backend).err())
                    .map(|error| error.to_string()),
            ),
            (
                "grpc",
                gateway
                    .api
                    .validate(self.grpc.listen, false, &gateway.credentials)
                    .err()
                    .map(|error| error.to_string()),
            ),
        ];
        let problems: Vec<_> = checks
            .into_iter()
            .filter_map(|(section, error)| Some(Problem::new(section, error?)))
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Wrong(problems))
        }
    }

    /// The settings as a TOML file that sets the same; secrets are left out.
    ///
    /// # Panics
    /// Never: every section is a table of values TOML knows.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("sections hold only what TOML can express")
    }
}
