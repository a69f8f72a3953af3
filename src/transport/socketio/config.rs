//! The settings of Socket.IO.

use std::time::Duration;

use super::bundle::BundleFile;

/// A place in which a client may show its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// The field `token` of the CONNECT packet's data: the client's option `auth`.
    Auth,
    /// The request of the handshake: `Authorization`, or the query where `client.token_in_query` allows it.
    Handshake,
}

/// The protocol inside the messages of Engine.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// Socket.IO.
    SocketIo,
    /// Each message comes back as it is: the server that the conformance suite of Engine.IO asks for.
    Echo,
}

/// Settings of Socket.IO. Names and defaults are those of the reference server, where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The path of the client port, compared exactly.
    pub path: String,
    /// The protocol inside the messages; only tests want another one than Socket.IO.
    pub application: Application,
    /// The namespaces, each beginning with a slash.
    pub namespaces: Vec<String>,
    /// Begins the names of the events that the gateway itself takes and sends.
    pub event_prefix: String,
    /// The interval of pings.
    pub ping_interval: Duration,
    /// The longest a client takes to answer one.
    pub ping_timeout: Duration,
    /// The longest an upgrade from polling takes.
    pub upgrade_timeout: Duration,
    /// The longest a connection stays without a namespace at its begin.
    pub connect_timeout: Duration,
    /// The largest message, and the largest body of a polling request as clients are told, in bytes. A body may be a
    /// thirty-second larger.
    pub payload_bytes_max: usize,
    /// The most packets in the body of a polling request.
    pub packets_max: usize,
    /// The most polling requests that wait here for another node, and the most of other nodes that wait here.
    pub forwarded_max: usize,
    /// The places of a token, the first one that has one counts.
    pub token_sources: Vec<TokenSource>,
    /// The text of an error for a token that is not accepted; `{reason}` stands for what is wrong with it. Clients look for
    /// `authentication` in it, in lower case.
    pub authentication_error: String,
    /// The files of the client that are served beside the path; none by default.
    pub client_bundle: Vec<BundleFile>,
    /// The time for which a client may be away and come back to its session; `None`: no client comes back to one.
    pub recovery: Option<Duration>,
}

/// The most namespaces: each takes a slot in every delivery.
pub const NAMESPACES_MAX: usize = 8;

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/socket.io/".to_owned(),
            application: Application::SocketIo,
            namespaces: vec!["/".to_owned()],
            event_prefix: "roomcast:".to_owned(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            // Enough for the largest payload of a client in base64.
            payload_bytes_max: 100_000,
            // Stock clients post everything that waits in one body; its size bounds it, as it does what one read of a WebSocket brings.
            packets_max: 1_000,
            // A poll that waits holds a socket as well, and some hundred bytes on each of the two nodes.
            forwarded_max: 20_000,
            token_sources: vec![TokenSource::Auth, TokenSource::Handshake],
            authentication_error: "Authentication error: authentication {reason}".to_owned(),
            client_bundle: Vec::new(),
            // Off: each handler of a client sees one argument more.
            recovery: None,
        }
    }
}
