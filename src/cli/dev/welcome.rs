//! What `dev` says once it runs: for a person to paste from, or for a program to read.

use std::fmt;
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

/// A running development gateway, as its user needs to know it.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) client: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) tenant: &'static str,
    pub(super) users: Vec<(&'static str, String)>,
    pub(super) service_token: String,
}

impl Welcome {
    /// One object; keys are only ever added.
    pub(super) fn as_json(&self) -> Value {
        let each = |make: &dyn Fn(&str) -> String| {
            let entries = self
                .users
                .iter()
                .map(|(user, token)| ((*user).to_owned(), make(token).into()));
            Value::Object(entries.collect::<Map<_, _>>())
        };
        json!({
            "client_address": self.client.to_string(),
            "grpc_address": self.grpc.to_string(),
            "url": self.url(),
            "grpc_url": self.grpc_url(),
            "tenant": self.tenant,
            "tokens": each(&|token| token.to_owned()),
            "pages": each(&|token| self.page(token)),
            "service_token": self.service_token,
        })
    }

    fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.client)
    }

    fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The token travels in the fragment, which browsers keep to themselves.
    fn page(&self, token: &str) -> String {
        format!("http://{}/#token={token}", self.client)
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
            self.url()
        )?;
        writeln!(
            f,
            "Publish to it as a backend would:\n  {program} publish --url {} --token {} \\\n    --room lobby --event message --data '{{\"text\":\"hello\"}}'\n",
            self.grpc_url(),
            self.service_token,
        )?;
        writeln!(
            f,
            "Clients connect to {}, backends call {}.",
            self.url(),
            self.grpc_url()
        )?;
        writeln!(
            f,
            "The tenant is \"{}\"; the tokens are good for 12 hours. Ctrl-C ends it.",
            self.tenant
        )
    }
}

/// How this program was found, so that the lines above can be pasted: relative to here where that is shorter.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else {
        return "roomcast".to_owned();
    };
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(&path).display().to_string()
}
