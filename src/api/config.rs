//! The settings of the gRPC listener.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderValue;

use super::credentials::Credentials;
use super::listener::tls::Acceptor;
use super::unread::ANSWER_BYTES_MAX;
use crate::rate::Rate;

/// Certificates, as PEM text.
#[derive(Clone)]
pub struct Tls {
    /// The listener's certificate chain.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
    /// The CA that signs client certificates; `None` requests none. A client without one may still present a token.
    pub client_ca_pem: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("client_ca", &self.client_ca_pem.is_some())
            .finish_non_exhaustive()
    }
}

/// The bounds of `SubscribeService`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriptions {
    /// The most subscriptions of this node.
    pub subscriptions_max: usize,
    /// The most subscriptions of one service on this node.
    pub per_service_max: usize,
    /// The most rooms that one subscription names.
    pub rooms_max: usize,
    /// The most events that wait for one reader. One more ends the subscription.
    pub waiting_events_max: usize,
    /// The most bytes of events that wait for one reader.
    pub waiting_bytes_max: usize,
    /// The longest time that a response may wait for its reader.
    pub waiting_age_max: Duration,
    /// Time without events after which a response with the cursor alone is sent.
    pub heartbeat_interval: Duration,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            subscriptions_max: 1000,
            per_service_max: 100,
            rooms_max: 1000,
            waiting_events_max: 4096,
            waiting_bytes_max: 1 << 20,
            waiting_age_max: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(10),
        }
    }
}

/// The settings of the gRPC listener.
#[derive(Debug, Clone)]
pub struct Config {
    /// The largest message, in bytes, also after decompression.
    pub message_bytes_max: usize,
    /// The largest payload of an event, in bytes.
    pub payload_bytes_max: usize,
    /// The longest time one unary call may take; a longer deadline is shortened to it.
    pub deadline_max: Duration,
    /// The deadline of a unary call that came without one; `None` refuses it.
    pub deadline_default: Option<Duration>,
    /// The longest time between TCP accept and a whole HTTP/2 preface or TLS client hello.
    pub first_bytes_timeout: Duration,
    /// Interval at which the listener pings an idle connection.
    pub keepalive_interval: Duration,
    /// Time for which it waits for the pong.
    pub keepalive_timeout: Duration,
    /// The most concurrent calls of one connection.
    pub streams_max: u32,
    /// The most open connections: those whose first bytes have arrived.
    pub connections_max: usize,
    /// The most open connections from one address.
    pub connections_per_address_max: usize,
    /// The most connections whose first bytes have not arrived yet.
    pub handshakes_max: usize,
    /// The most connections from one address whose first bytes have not arrived yet.
    pub handshakes_per_address_max: usize,
    /// The most reply bytes that one connection may leave unread. Calls with large replies wait for room.
    pub unread_bytes_per_connection_max: usize,
    /// The most unread reply bytes of all connections.
    pub unread_bytes_max: usize,
    /// The largest header list of one request, in bytes.
    pub header_bytes_max: u32,
    /// The most unacknowledged events of one `PublishStream`.
    pub in_flight_max: usize,
    /// The bounds of subscriptions.
    pub subscriptions: Subscriptions,
    /// Publish rate of one service, unless its credential has its own. Each target of an event counts.
    pub publish_rate: Rate,
    /// The largest room whose members are listed, in users. A larger one is reported in counts only.
    pub members_listed_max: u32,
    /// Origins from which browsers may call gRPC-Web, exactly as they send them. Empty for none.
    pub web_origins: Vec<HeaderValue>,
    /// TLS settings; `None` for plain text.
    pub tls: Option<Tls>,
    /// Time for which calls may continue after the shutdown began.
    pub drain_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            payload_bytes_max: 64 << 10,
            deadline_max: Duration::from_secs(30),
            deadline_default: None,
            first_bytes_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(20),
            streams_max: 100,
            connections_max: 1000,
            connections_per_address_max: 500,
            handshakes_max: 1000,
            handshakes_per_address_max: 100,
            unread_bytes_per_connection_max: 32 << 20,
            unread_bytes_max: 256 << 20,
            header_bytes_max: 16 << 10,
            in_flight_max: 64,
            subscriptions: Subscriptions::default(),
            publish_rate: Rate {
                per_second: 100_000,
                burst: 100_000,
            },
            members_listed_max: 1000,
            web_origins: Vec::new(),
            tls: None,
            drain_max: Duration::from_secs(10),
        }
    }
}

/// Settings that keep the listener from starting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No credential is configured, so no caller could be identified.
    #[error("the gRPC listener on {0} has no authentication: configure tokens, JWT or client certificates")]
    NoAuthentication(SocketAddr),
    /// Every caller is accepted, and more than this machine can reach the listener.
    #[error("the gRPC listener on {0} lets everybody in, which is for `dev` on a loopback address only")]
    OpenToOthers(SocketAddr),
    /// Client certificates are credentials, but none is requested.
    #[error("client certificates are configured as credentials, but the gRPC listener has no client CA")]
    NoClientCa,
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(String),
    /// The bound is smaller than one reply.
    #[error("`{name}` must be at least {bytes_min} bytes, what one answer may take")]
    LessThanAnAnswer {
        /// The setting.
        name: &'static str,
        /// The largest size of one reply.
        bytes_min: usize,
    },
    /// A bound of zero refuses everything.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
}

impl Config {
    /// Checks the settings together with the address and the credentials.
    ///
    /// # Errors
    /// Every variant of [`ConfigError`].
    pub fn validate(&self, listen: SocketAddr, dev: bool, credentials: &Credentials) -> Result<(), ConfigError> {
        if credentials.lets_everybody_in() && !(dev && listen.ip().is_loopback()) {
            return Err(ConfigError::OpenToOthers(listen));
        }
        if credentials.is_empty() {
            return Err(ConfigError::NoAuthentication(listen));
        }
        if let Some(tls) = &self.tls {
            Acceptor::new(tls).map_err(|error| ConfigError::Tls(error.to_string()))?;
        }
        let client_ca = self.tls.as_ref().is_some_and(|tls| tls.client_ca_pem.is_some());
        if credentials.has_certificates() && !client_ca {
            return Err(ConfigError::NoClientCa);
        }
        let bounds = [
            ("message_bytes_max", self.message_bytes_max == 0),
            ("payload_bytes_max", self.payload_bytes_max == 0),
            ("deadline_max", self.deadline_max.is_zero()),
            ("streams_max", self.streams_max == 0),
            ("connections_max", self.connections_max == 0),
            ("connections_per_address_max", self.connections_per_address_max == 0),
            ("handshakes_max", self.handshakes_max == 0),
            ("handshakes_per_address_max", self.handshakes_per_address_max == 0),
            ("in_flight_max", self.in_flight_max == 0),
            ("first_bytes_timeout", self.first_bytes_timeout.is_zero()),
            ("keepalive_interval", self.keepalive_interval.is_zero()),
            ("keepalive_timeout", self.keepalive_timeout.is_zero()),
            ("header_bytes_max", self.header_bytes_max == 0),
            ("publish_rate.per_second", self.publish_rate.per_second == 0),
            ("publish_rate.burst", self.publish_rate.burst == 0),
        ];
        if let Some((name, _)) = bounds.into_iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::Zero(name));
        }
        let unread = [
            ("unread_bytes_per_connection_max", self.unread_bytes_per_connection_max),
            ("unread_bytes_max", self.unread_bytes_max),
        ];
        let bytes_min = ANSWER_BYTES_MAX as usize;
        match unread.into_iter().find(|(_, bytes)| *bytes < bytes_min) {
            Some((name, _)) => Err(ConfigError::LessThanAnAnswer { name, bytes_min }),
            None => Ok(()),
        }
    }
}
