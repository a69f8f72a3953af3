//! The welcome text of `dev`: for a person to paste from, or for a program to parse.

use std::fmt;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

/// Addresses of one gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) client: SocketAddr,
    pub(super) grpc: SocketAddr,
}

/// A running development gateway, as shown to its user.
#[derive(Debug)]
pub(super) struct Welcome {
    /// At least one.
    pub(super) nodes: Vec<Address>,
    /// The NATS server of the nodes.
    pub(super) nats: Option<String>,
    /// Its process id, if it was started with them.
    pub(super) nats_pid: Option<u32>,
    pub(super) tenant: &'static str,
    pub(super) users: Vec<(&'static str, String)>,
    pub(super) service_token: String,
}

impl Welcome {
    /// Returns one object. Keys are only ever added.
    pub(super) fn as_json(&self) -> Value {
        let each = |make: &dyn Fn(&str) -> String| {
            let entries = self
                .users
                .iter()
                .map(|(user, token)| ((*user).to_owned(), make(token).into()));
            Value::Object(entries.collect::<Map<_, _>>())
        };
        json!({
            "client_address": self.first().client.to_string(),
            "grpc_address": self.first().grpc.to_string(),
            "url": self.first().url(),
            "grpc_url": self.first().grpc_url(),
            "nodes": self.nodes.iter().map(Address::as_json).collect::<Vec<_>>(),
            "nats_url": self.nats,
            "nats_pid": self.nats_pid,
            "tenant": self.tenant,
            "tokens": each(&|token| token.to_owned()),
            "pages": each(&|token| self.page(token)),
            "service_token": self.service_token,
        })
    }

    fn first(&self) -> &Address {
        self.nodes.first().expect("there is at least one node")
    }

    /// Returns another node than the first, where there are several: the examples then use all of them.
    fn last(&self) -> &Address {
        self.nodes.last().expect("there is at least one node")
    }

    /// Returns the page's address. The token is in the fragment, which browsers do not send.
    fn page(&self, token: &str) -> String {
        format!("http://{}/#token={token}", self.first().client)
    }
}

impl Address {
    fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.client)
    }

    fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    fn as_json(&self) -> Value {
        json!({
            "client_address": self.client.to_string(),
            "grpc_address": self.grpc.to_string(),
            "url": self.url(),
            "grpc_url": self.grpc_url(),
        })
    }
}

impl fmt::Display for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = program();
        writeln!(
            f,
            "\nRoomcast is running on this machine, for development. Nothing outlives it.\n"
        )?;
        for (user, token) in &self.users {
            writeln!(f, "Page as {user}:\n  {}\n", self.page(token))?;
        }
        let Some((user, token)) = self.users.first() else {
            return Ok(());
        };
        writeln!(
            f,
            "Follow the room \"lobby\" as {user}:\n  {program} tail lobby --url {} --token {token}\n",
            self.last().url()
        )?;
        writeln!(
            f,
            "Publish to it as a backend would:\n  {program} publish --url {} --token {} \\\n    --room lobby --event message --data '{{\"text\":\"hello\"}}'\n",
            self.first().grpc_url(),
            self.service_token,
        )?;
        writeln!(
            f,
            "For the commands in the documentation, in another terminal:\n  export ROOMCAST_URL={} ROOMCAST_TOKEN={token}\n  export ROOMCAST_GRPC_URL={} ROOMCAST_SERVICE_TOKEN={}\n",
            self.last().url(),
            self.first().grpc_url(),
            self.service_token,
        )?;
        for node in &self.nodes {
            writeln!(
                f,
                "Clients connect to {}, backends call {}.",
                node.url(),
                node.grpc_url()
            )?;
        }
        if let Some(nats) = &self.nats {
            let end = self.nats_pid.map_or("", |_| "; it ends with them");
            writeln!(f, "They share {nats}{end}.")?;
        }
        writeln!(
            f,
            "The tenant is \"{}\"; the tokens are good for 12 hours. Ctrl-C ends it.",
            self.tenant
        )
    }
}

/// Returns the path of this program, so that the lines above can be pasted: relative to here where that is shorter.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else {
        return "roomcast".to_owned();
    };
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(&path).display().to_string()
}
