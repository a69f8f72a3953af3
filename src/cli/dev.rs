//! `dev`: a gateway for development, on this machine alone.

mod broker;
mod policy;
mod welcome;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;

use self::broker::Broker;
use self::welcome::{Address, Welcome};
use super::failure::Failure;
use super::serve;
use super::settings::Settings;
use super::token::{TENANT, development, mint, read_secret, subject};
use crate::admission::Tenants;
use crate::auth::{IssuerConfig, Secret};
use crate::config::{Config, NatsSection, ScopeName, ServiceSection};
use crate::gateway::Gateway;

/// The page served at `/`.
const PAGE: &str = include_str!("../../assets/dev.html");

/// The users for whom tokens are printed.
const USERS: [&str; 2] = ["ada", "bob"];

/// Lifetime of the printed tokens: a working day.
const TOKEN_TTL: Duration = Duration::from_secs(12 * 3600);

/// Run a gateway for development: in-process bus, tokens and a page to try it, on this machine only
///
/// Needs no configuration and no network. Any user may do everything in any room of its tenant, except in user:ID, which
/// is that user's own, and in private:NAME, which needs the claim role=admin. With --config the rules of that file hold
/// instead, if it has any. With --nodes gateways share a nats-server that is started and ended with them.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// The port for clients and the page; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// The port for backends (gRPC and HTTP); 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 50051)]
    grpc_port: u16,
    /// Number of gateways, over a nats-server; each further one listens on the next ports. Without it one, and no NATS
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: Option<u16>,
    /// The nats-server to start; otherwise the one on the PATH, else the one `make setup` has installed here
    #[arg(long, value_name = "PROGRAM", requires = "nodes")]
    nats_server: Option<PathBuf>,
    /// A NATS server that runs already, to share with gateways of other processes, instead of starting one
    #[arg(long, value_name = "URL", requires = "nodes", conflicts_with = "nats_server")]
    nats: Option<String>,
    /// A file with the secret that signs tokens (HS256, at least 32 bytes), instead of a new one at each start
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The secret itself
    #[arg(
        long,
        conflicts_with = "secret_file",
        env = "ROOMCAST_DEV_SECRET",
        hide_env_values = true
    )]
    secret: Option<String>,
    /// Print one line of JSON with all addresses and tokens
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// The keys that a development gateway trusts.
struct Keys {
    issuer: IssuerConfig,
    service_token: String,
}

impl Dev {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let keys = self.keys()?;
        let base = self.config(&keys)?;
        let telemetry = serve::start_telemetry(&base.telemetry)?;
        let mut signals = serve::Signals::listen(serve::Hangup::End)?;
        let (broker, gateways) = tokio::select! {
            started = self.start(&base) => started?,
            () = signals.asked() => return Ok(()),
        };
        let nats = self.nats.as_deref().or(broker.as_ref().map(Broker::url));
        let address = |gateway: &Gateway| Address {
            client: gateway.client_address(),
            grpc: gateway.grpc_address(),
        };
        let welcome = Welcome {
            nodes: gateways.iter().map(address).collect(),
            nats: nats.map(str::to_owned),
            nats_pid: broker.as_ref().and_then(Broker::pid),
            tenant: TENANT,
            users: keys.user_tokens()?,
            service_token: keys.service_token,
        };
        let said = if self.json {
            welcome.as_json().to_string()
        } else {
            welcome.to_string()
        };
        // In a thread: this one serves by now, and must not block on a reader.
        std::thread::spawn(move || writeln!(std::io::stdout(), "{said}"));
        serve::until_asked(signals, gateways, telemetry).await;
        Ok(())
    }

    async fn start(&self, base: &Config) -> Result<(Option<Broker>, Vec<Gateway>), Failure> {
        let broker = match (self.nodes, &self.nats) {
            (Some(_), None) => Some(Broker::start(self.nats_server.as_deref()).await?),
            (None, _) | (_, Some(_)) => None,
        };
        let nats = self.nats.as_deref().or(broker.as_ref().map(Broker::url));
        let (mut gateways, tenants) = (Vec::new(), Tenants::default());
        for number in 0..self.nodes.unwrap_or(1) {
            let config = self.node(base, number, nats);
            let listeners = serve::listen(&config).await?;
            let mut parts = config.gateway(true)?;
            parts.client.page = Some(PAGE);
            parts.dev = Some(tenants.clone());
            gateways.push(serve::start(parts, listeners).await?);
        }
        Ok((broker, gateways))
    }

    /// Returns the settings of one node.
    fn node(&self, base: &Config, number: u16, nats: Option<&str>) -> Config {
        let mut config = base.clone();
        let next = |port: u16| if port == 0 { 0 } else { port.saturating_add(number) };
        config.client.listen.set_port(next(self.port));
        config.grpc.listen.set_port(next(self.grpc_port));
        if let Some(nats) = nats {
            config.node.id = self.node_id(&base.node.id, number);
            let section = config.nats.get_or_insert_with(|| NatsSection {
                deployment: "dev".to_owned(),
                // Few streams are created quickly.
                partitions: 4,
                ..NatsSection::default()
            });
            section.servers = vec![nats.to_owned()];
        }
        config
    }

    /// Returns a node id that differs from those of other processes at the same server.
    fn node_id(&self, given: &str, number: u16) -> String {
        match (given, &self.nats) {
            ("", None) => format!("dev-{number}"),
            ("", Some(_)) => format!("dev-{}-{number}", std::process::id()),
            (given, _) => format!("{given}-{number}"),
        }
    }

    fn keys(&self) -> Result<Keys, Failure> {
        let secret = match (&self.secret_file, &self.secret) {
            (Some(path), _) => read_secret(path)?,
            (None, Some(secret)) => secret.clone(),
            (None, None) => random(),
        };
        Ok(Keys {
            issuer: development(secret),
            // The prefix keeps it from looking like a flag when it is pasted.
            service_token: format!("dev_{}", random()),
        })
    }

    /// Loads the settings and adds those of a development gateway.
    fn config(&self, keys: &Keys) -> Result<Config, Failure> {
        let mut config = self.settings.load()?;
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        config.client.listen = loopback(self.port);
        config.grpc.listen = loopback(self.grpc_port);
        // For pages of a frontend's own development server; without a token they have no access.
        if config.client.origins.is_empty() {
            config.client.origins = vec!["*".to_owned()];
        }
        config.auth.issuers.push(keys.issuer.clone());
        config.grpc.services.push(keys.service());
        // Calls by hand rarely set a deadline.
        config.grpc.deadline_default.get_or_insert(Duration::from_secs(10));
        if config.policy.rules.is_empty() {
            policy::open(&mut config);
        }
        config.node.drain_window = Duration::from_millis(200);
        Ok(config)
    }
}

impl Keys {
    fn service(&self) -> ServiceSection {
        ServiceSection {
            name: "dev".to_owned(),
            token: Some(Secret::new(self.service_token.clone())),
            scopes: ScopeName::ALL.to_vec(),
            ..ServiceSection::default()
        }
    }

    fn user_tokens(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let token = |user| {
            let claims = subject(&self.issuer.claims, user, TENANT);
            mint(&self.issuer, user, TOKEN_TTL, claims).map(|token| (user, token))
        };
        USERS.into_iter().map(token).collect()
    }
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}
