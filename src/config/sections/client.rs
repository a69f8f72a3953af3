//! `[node]`, `[client]` and `[admin]`: the process itself, and the ports for clients and for operators.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Problem;
use crate::config::origin::Origin;
use crate::config::problem::{all, both};
use crate::config::values::{Positive, PositiveSize, PositiveTime, Rated, Time};
use crate::rate::Rate;
use crate::transport::http::{self, ForwardedHeader, Network, Origins};

/// The process.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// Name of the node in replies and logs. Empty: the host's name, which in Kubernetes is the pod's.
    pub id: String,
    /// Threads that serve clients. 0: one for each processor.
    pub shards: usize,
    /// Time over which clients are disconnected when the process drains.
    #[serde(with = "Time")]
    pub drain_window: Duration,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            id: String::new(),
            shards: 0,
            drain_window: Duration::from_secs(10),
        }
    }
}

impl NodeSection {
    /// Returns the number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            shards => shards,
        }
    }
}

/// The port for operators: `/livez`, `/readyz` and `/metrics` over plain HTTP, without credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// The address and port, such as `0.0.0.0:9464` in a cluster of containers. Without it the port is not served.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

/// The port for clients: WebSockets at `/v1/ws`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSection {
    /// The address and port.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Origins of pages that may connect, exactly as browsers send them: `https://app.example.com`. `["*"]` accepts every
    /// page. Programs that send no `Origin` are accepted.
    pub origins: Vec<String>,
    /// Accepts the token as `?token=`. Addresses end up in the logs of proxies.
    pub token_in_query: bool,
    /// Proxies that are trusted to name the client, as addresses or ranges: `10.0.0.0/8`. A client whose name by such a
    /// proxy cannot be parsed is refused with 400.
    pub trusted_proxies: Vec<String>,
    /// The header in which trusted proxies name the client. Only this one is read: any other may be the client's own.
    pub forwarded_header: ForwardedHeaderName,
    /// The longest time for the head of a request; of the first one, from the connection on.
    #[serde(with = "PositiveTime")]
    pub head_timeout: Duration,
    /// The longest pause of a connection between two HTTP requests. Behind a proxy that reuses connections, longer than the proxy
    /// keeps them: else it sends a request into one that is being closed, and answers 502.
    #[serde(with = "PositiveTime")]
    pub idle_timeout: Duration,
    /// The largest request head, at least 8 KiB; a larger one is refused with 431.
    #[serde(with = "PositiveSize")]
    pub head_bytes_max: usize,
    /// The most header fields; more are refused with 431.
    #[serde(with = "Positive")]
    pub headers_max: usize,
    /// Rate of new connections of the node, each counted with its first request, unless that is one of a Socket.IO connection that is
    /// open. One more is refused with 503, an event stream within a 200.
    #[serde(with = "Rated")]
    pub connect_rate: Rate,
    /// Connections that are no sessions: before their upgrade, and between HTTP requests, for which at most half of them
    /// are used. One more takes the place of the oldest whose first request is not there as a whole, which is refused with 503. Where
    /// there is none, a quarter more are read: requests of open Socket.IO connections are answered, others refused as beyond `connect_rate`.
    #[serde(with = "Positive")]
    pub handshakes_max: usize,
}

/// A header in which proxies name clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeaderName {
    /// A list of addresses, each with or without a port.
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl From<ForwardedHeaderName> for ForwardedHeader {
    fn from(name: ForwardedHeaderName) -> Self {
        match name {
            ForwardedHeaderName::XForwardedFor => Self::XForwardedFor,
            ForwardedHeaderName::Forwarded => Self::Forwarded,
        }
    }
}

impl Default for ClientSection {
    fn default() -> Self {
        let config = http::Config::default();
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            origins: Vec::new(),
            token_in_query: config.token_in_query,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeaderName::XForwardedFor,
            head_timeout: config.head_timeout,
            idle_timeout: config.idle_timeout,
            head_bytes_max: config.head_bytes_max,
            headers_max: config.headers_max,
            connect_rate: config.connect_rate,
            handshakes_max: config.handshakes_max,
        }
    }
}

impl ClientSection {
    pub(in crate::config) fn port(&self) -> Result<http::Config, Vec<Problem>> {
        let lists = both(self.origins(), self.proxies());
        let ((origins, trusted_proxies), ()) = both(lists, self.check_head())?;
        Ok(http::Config {
            origins,
            token_in_query: self.token_in_query,
            head_timeout: self.head_timeout,
            idle_timeout: self.idle_timeout,
            head_bytes_max: self.head_bytes_max,
            headers_max: self.headers_max,
            connect_rate: self.connect_rate,
            handshakes_max: self.handshakes_max,
            trusted_proxies,
            forwarded_header: self.forwarded_header.into(),
            page: None,
        })
    }

    /// Checks the head's bound. The HTTP library's smallest buffer is the least: a smaller bound would be raised silently.
    fn check_head(&self) -> Result<(), Problem> {
        if self.head_bytes_max < http::HEAD_BYTES_MIN {
            return Err(Problem::new("client.head_bytes_max", "must be at least 8 KiB"));
        }
        Ok(())
    }

    fn origins(&self) -> Result<Origins, Vec<Problem>> {
        if self.origins == ["*"] {
            return Ok(Origins::Any);
        }
        let parse = |(at, text): (usize, &String)| {
            Origin::parse(text)
                .map(|origin| origin.as_str().to_owned())
                .map_err(|error| Problem::new(format!("client.origins.{at}"), error))
        };
        all(self.origins.iter().enumerate().map(parse)).map(Origins::Listed)
    }

    fn proxies(&self) -> Result<Vec<Network>, Vec<Problem>> {
        let parse = |(at, text): (usize, &String)| {
            text.parse()
                .map_err(|error| Problem::new(format!("client.trusted_proxies.{at}"), error))
        };
        all(self.trusted_proxies.iter().enumerate().map(parse))
    }
}
