//! The configuration: one tree of settings, read from a file, the environment and the command line.
//!
//! Only this module reads files and environment variables. Each section is the plain `Config` of the component it
//! configures. Where that type is free of serde, a mirror in `sections` defines its form. Defaults are the components'
//! own. An unknown key is an error, and so is every value that cannot work.

mod extract;
mod files;
mod homes;
mod origin;
mod printed;
mod problem;
mod schema;
mod sections;
mod sources;
mod values;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admission::{self, Tenants};
use crate::auth::JwtAuthenticator;
use crate::backend::GrpcBackend;
use crate::bus::memory as bus;
use crate::policy::{PolicyError, RulePolicy};
use crate::presence::memory as presence;
use crate::transport::{native, shard, sse};
use crate::{api, auth, backend, gateway, policy, session, telemetry};

use problem::both;

pub use files::FileError;
pub use problem::{ConfigError, Problem};
pub use sections::{
    AdminSection, ClientSection, GrpcSection, HistoryOfRooms, HistorySection, NatsSection, NatsTlsSection, NodeSection,
    ScopeName, ServiceSection, SizeSetting, SocketIoSection, SocketSection, StorageSetting, TlsSection,
    TokenSourceName,
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
    /// Socket.IO for stock clients, on the port for clients.
    pub socketio: SocketIoSection,
    /// The port for backends: gRPC, gRPC-Web and the HTTP mirror.
    pub grpc: GrpcSection,
    /// The port for operators: probes and metrics.
    pub admin: AdminSection,
    /// Tokens of clients: the accepted issuers and the checks. Without an issuer no client can connect.
    pub auth: auth::Config,
    /// Permissions: rules, conditions for connecting, and rooms that every client joins. The default allows nothing.
    pub policy: policy::Config,
    /// The application that validates client events and replies to client requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<backend::Config>,
    /// Limits on connections. One more is refused with 503 or 429, or closed with 4504.
    #[serde(with = "sections::Connections")]
    pub connections: admission::Config,
    /// Limits and rates of one client.
    #[serde(with = "sections::Session")]
    pub session: session::Config,
    /// Limits of one socket.
    pub socket: SocketSection,
    /// Event streams (Server-Sent Events) at `/v1/events` of the port for clients.
    #[serde(with = "sections::Sse")]
    pub sse: sse::Config,
    /// Retention of a room's events, for resuming and history queries.
    pub history: HistorySection,
    /// The in-process bus: the bounds of all rooms together.
    #[serde(with = "sections::MemoryBus")]
    pub bus: bus::Config,
    /// The NATS cluster that makes several nodes one gateway. Without it a node is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSection>,
    /// Presence of rooms, and its form.
    #[serde(with = "sections::MemoryPresence")]
    pub presence: presence::Config,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

impl Config {
    /// Reads all sources and checks each value.
    ///
    /// # Errors
    /// Every variant of [`ConfigError`], with all problems.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (config, problems) = Self::read(sources)?;
        config.unless(problems)
    }

    /// Returns what may be meant, but probably is a mistake. None of it keeps a gateway from starting.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        homes::unreached(self)
    }

    /// Reads all sources and checks everything that would keep a gateway from starting, short of starting one: secrets,
    /// keys, rules, credentials.
    ///
    /// # Errors
    /// Every variant of [`ConfigError`], with all problems.
    pub fn check(sources: &Sources) -> Result<Self, ConfigError> {
        let (config, mut problems) = Self::read(sources)?;
        add(&mut problems, config.unusable());
        config.unless(problems)
    }

    /// Returns the settings as far as they can be read, and all problems of reading and of values.
    fn read(sources: &Sources) -> Result<(Self, Vec<Problem>), ConfigError> {
        let (mut config, mut problems) = extract::extract(&sources.merged()?)?;
        if config.node.id.is_empty() {
            config.node.id = sources.host_name();
        }
        add(&mut problems, sections::check(&config));
        Ok((config, problems))
    }

    fn unless(self, problems: Vec<Problem>) -> Result<Self, ConfigError> {
        if problems.is_empty() {
            Ok(self)
        } else {
            Err(ConfigError::Wrong(problems))
        }
    }

    /// Builds the gateway's configuration: reads the secrets and certificates named here. `dev` as in `roomcast dev`.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn gateway(&self, dev: bool) -> Result<gateway::Config, ConfigError> {
        let history_and_client = both(self.history.rules(), self.client.port());
        let nats_and_rooms = both(
            self.nats.as_ref().map(NatsSection::cluster).transpose(),
            self.grpc.home_rooms(),
        );
        let api_and_callers = both(self.grpc.port(), self.grpc.credentials());
        let socketio = self.socketio.config();
        let parts = both(
            both(both(history_and_client, nats_and_rooms), api_and_callers),
            socketio,
        );
        let ((((history, client), (nats, home_rooms)), (api, credentials)), socketio) =
            parts.map_err(ConfigError::Wrong)?;
        Ok(gateway::Config {
            protocols: self
                .socketio
                .register(&sse::add_to(native::protocols(), &self.sse), &socketio),
            node_id: self.node.id.clone(),
            shards: self.node.shards(),
            connections: self.connections,
            session: session::Config {
                state_bytes_max: self.presence.state_bytes_max,
                listed_max: self.presence.listed_max as usize,
                ..self.session.clone()
            },
            sockets: shard::Config {
                socketio,
                ..(&self.socket).into()
            },
            client,
            bus: bus::Config {
                history,
                ..self.bus.clone()
            },
            nats,
            presence: self.presence,
            auth: self.auth.clone(),
            policy: self.policy.clone(),
            backend: self.backend.clone(),
            api: api::Config {
                members_listed_max: self.presence.listed_max,
                ..api
            },
            credentials,
            home_rooms,
            drain_window: self.node.drain_window,
            dev: dev.then(Tenants::default),
        })
    }

    /// Returns the problems of settings that can be read but do not work.
    fn unusable(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(self.wrong_issuers());
        problems.extend(self.wrong_rules());
        let backend = self
            .backend
            .as_ref()
            .and_then(|backend| GrpcBackend::new(backend).err());
        problems.extend(backend.map(|error| Problem::new("backend", error)));
        match self.gateway(false) {
            Ok(gateway) => {
                let api = gateway.api.validate(self.grpc.listen, false, &gateway.credentials);
                problems.extend(api.err().map(|error| Problem::new("grpc", error)));
            }
            Err(ConfigError::Wrong(others)) => problems.extend(others),
            Err(ConfigError::Unreadable { .. }) => {}
        }
        problems
    }

    /// Checks each issuer by itself, since the first error hides the others; then all together.
    fn wrong_issuers(&self) -> Vec<Problem> {
        let alone = |(at, issuer): (usize, &auth::IssuerConfig)| {
            let config = auth::Config {
                issuers: vec![issuer.clone()],
                ..self.auth.clone()
            };
            let error = JwtAuthenticator::new(&config).err()?;
            Some(Problem::new(format!("auth.issuers.{at}"), error))
        };
        let problems: Vec<_> = self.auth.issuers.iter().enumerate().filter_map(alone).collect();
        if !problems.is_empty() {
            return problems;
        }
        let together = JwtAuthenticator::new(&self.auth).err();
        together.map(|error| Problem::new("auth", error)).into_iter().collect()
    }

    /// Checks each rule, condition and template by itself, for the same reason; then all together.
    fn wrong_rules(&self) -> Vec<Problem> {
        let (config, none) = (&self.policy, policy::Config::default());
        let none = || policy::Config {
            authorizer: config.authorizer.clone(),
            ..none.clone()
        };
        let rules = config.rules.iter().enumerate().map(|(at, rule)| {
            let rules = vec![rule.clone()];
            (format!("policy.rules.{at}"), policy::Config { rules, ..none() })
        });
        let conditions = config.connect.when.iter().enumerate().map(|(at, condition)| {
            let mut alone = none();
            alone.connect.when.push(condition.clone());
            (format!("policy.connect.when.{at}"), alone)
        });
        let templates = config.auto_join.iter().enumerate().map(|(at, template)| {
            let auto_join = vec![template.clone()];
            (format!("policy.auto_join.{at}"), policy::Config { auto_join, ..none() })
        });
        let alone = rules.chain(conditions).chain(templates).filter_map(|(key, alone)| {
            let error = RulePolicy::new(&alone).err();
            // This error names a rule by its number among all, so it is reported for all below.
            let error = error.filter(|error| !matches!(error, PolicyError::RuleName { .. }))?;
            Some(Problem::new(key, error))
        });
        let mut problems: Vec<_> = alone.collect();
        match RulePolicy::new(config).err() {
            Some(error @ PolicyError::RuleName { .. }) => problems.push(Problem::new("policy.rules", error)),
            Some(error) if problems.is_empty() => problems.push(Problem::new("policy", error)),
            _ => {}
        }
        problems
    }

    /// Returns the settings as an equivalent TOML file, without secrets, also of addresses.
    ///
    /// # Panics
    /// Never: every section is a table of values TOML knows.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut settings = toml::Value::try_from(self).expect("sections hold only what TOML can express");
        printed::hide_secrets(&mut settings);
        toml::to_string_pretty(&settings).expect("it was TOML before")
    }
}

/// Adds the problems of keys that have none yet.
fn add(problems: &mut Vec<Problem>, others: Vec<Problem>) {
    let reported = problems.clone();
    let is_new = |other: &Problem| !reported.iter().any(|known| known.covers(&other.key));
    problems.extend(others.into_iter().filter(is_new));
}
