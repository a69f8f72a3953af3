//! `[socketio]`: Socket.IO on the port for clients.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sse::wrong_prefix;
use crate::config::Problem;
use crate::config::values::{Positive, PositiveSize, PositiveTime};
use crate::transport::protocol::Protocols;
use crate::transport::socketio::{self, Application, NAMESPACES_MAX, TokenSource};

/// Socket.IO for stock clients, on the port for clients.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SocketIoSection {
    /// Serves Socket.IO.
    pub enabled: bool,
    /// The path, compared exactly: with the slash at its end as clients send it by default, without for clients with
    /// `addTrailingSlash: false`.
    pub path: String,
    /// The namespaces that clients may connect to, 1 to 8. Each is a session of its own, with its own token and rooms.
    pub namespaces: Vec<String>,
    /// Begins the names of the events that the gateway takes and sends itself, as in `roomcast:join`; 1 to 32 bytes.
    pub event_prefix: String,
    /// The interval of pings.
    #[serde(with = "PositiveTime")]
    pub ping_interval: Duration,
    /// The longest time for the answer to a ping; then the connection is closed.
    #[serde(with = "PositiveTime")]
    pub ping_timeout: Duration,
    /// The longest time for an upgrade from polling to a WebSocket; then the WebSocket is closed, and polling goes on.
    #[serde(with = "PositiveTime")]
    pub upgrade_timeout: Duration,
    /// The longest time until a client has connected to a namespace; then its connection is closed.
    #[serde(with = "PositiveTime")]
    pub connect_timeout: Duration,
    /// The largest message, and the largest body of a polling request as clients are told; a body may be a thirty-second
    /// larger. Base64 makes binary data a third larger.
    #[serde(with = "PositiveSize")]
    pub payload_bytes_max: usize,
    /// The most packets in the body of a polling request; then its connection is closed.
    #[serde(with = "Positive")]
    pub packets_max: usize,
    /// The most polling requests that wait at this node for the node of their connection, and the most of other nodes that wait
    /// here; more are refused with 503, and their connections end.
    #[serde(with = "Positive")]
    pub forwarded_max: usize,
    /// The places of the token. The first one that has a token counts.
    pub token_sources: Vec<TokenSourceName>,
    /// The message of an error for a token that is not accepted; `{reason}` stands for what is wrong with it.
    pub authentication_error: String,
}

/// A place in which a Socket.IO client shows its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenSourceName {
    /// The field `token` of the client's option `auth`.
    Auth,
    /// The request: `Authorization`, or `?token=` where `client.token_in_query` allows it.
    Handshake,
}

impl Default for SocketIoSection {
    fn default() -> Self {
        let config = socketio::Config::default();
        let name = |source: &TokenSource| match source {
            TokenSource::Auth => TokenSourceName::Auth,
            TokenSource::Handshake => TokenSourceName::Handshake,
        };
        Self {
            enabled: true,
            path: config.path,
            namespaces: config.namespaces,
            event_prefix: config.event_prefix,
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            upgrade_timeout: config.upgrade_timeout,
            connect_timeout: config.connect_timeout,
            payload_bytes_max: config.payload_bytes_max,
            packets_max: config.packets_max,
            forwarded_max: config.forwarded_max,
            token_sources: config.token_sources.iter().map(name).collect(),
            authentication_error: config.authentication_error,
        }
    }
}

impl SocketIoSection {
    /// Returns the problems of values that could be read.
    pub(in crate::config) fn problems(&self) -> Vec<Problem> {
        /// The paths that the port has already.
        const TAKEN: [&str; 3] = ["/", "/v1/ws", "/v1/events"];
        let mut problems = Vec::new();
        let mut wrong = |key: String, message: &str| problems.push(Problem::new(key, message));
        let is_path = |text: &str| {
            text.starts_with('/')
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"?#,\"\\".contains(&byte))
        };
        if !is_path(&self.path) || TAKEN.contains(&&*self.path) {
            wrong(
                "socketio.path".to_owned(),
                "must be a path of its own, such as `/socket.io/`",
            );
        }
        if !(1..=NAMESPACES_MAX).contains(&self.namespaces.len()) {
            wrong("socketio.namespaces".to_owned(), "must have 1 to 8 entries");
        }
        for (at, namespace) in self.namespaces.iter().enumerate() {
            if !is_path(namespace) || self.namespaces[..at].contains(namespace) {
                let message =
                    "must be a name of its own that begins with a slash, without `,`, `?`, `#`, quotes and spaces";
                wrong(format!("socketio.namespaces.{at}"), message);
            }
        }
        problems.extend(wrong_prefix("socketio.event_prefix", &self.event_prefix));
        problems
    }

    /// Adds the protocol to a gateway's.
    pub(in crate::config) fn register(&self, protocols: &Protocols) -> Protocols {
        if !self.enabled {
            return protocols.clone();
        }
        socketio::register(protocols, &self.config())
    }

    /// Returns the component's configuration.
    pub(in crate::config) fn config(&self) -> Arc<socketio::Config> {
        let source = |name: &TokenSourceName| match name {
            TokenSourceName::Auth => TokenSource::Auth,
            TokenSourceName::Handshake => TokenSource::Handshake,
        };
        Arc::new(socketio::Config {
            path: self.path.clone(),
            application: Application::SocketIo,
            namespaces: self.namespaces.clone(),
            event_prefix: self.event_prefix.clone(),
            ping_interval: self.ping_interval,
            ping_timeout: self.ping_timeout,
            upgrade_timeout: self.upgrade_timeout,
            connect_timeout: self.connect_timeout,
            payload_bytes_max: self.payload_bytes_max,
            packets_max: self.packets_max,
            forwarded_max: self.forwarded_max,
            token_sources: self.token_sources.iter().map(source).collect(),
            authentication_error: self.authentication_error.clone(),
        })
    }
}
