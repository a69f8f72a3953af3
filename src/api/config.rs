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
    /// Who signs client certificates; `None` when none is asked for. A client may come without one and show a token.
    pub client_ca_pem: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("client_ca", &self.client_ca_pem.is_some())
            .finish_non_exhaustive()
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
    /// How often the listener asks an idle connection for a sign of life.
    pub keepalive_interval: Duration,
    /// How long it waits for the answer.
    pub keepalive_timeout: Duration,
    /// Calls of one connection at once.
    pub streams_max: u32,
    /// Open connections: those whose first bytes have come.
    pub connections_max: usize,
    /// Open connections from one address.
    pub connections_per_address_max: usize,
    /// Connections whose first bytes have not come yet.
    pub handshakes_max: usize,
    /// Connections from one address whose first bytes have not come yet.
    pub handshakes_per_address_max: usize,
    /// Bytes of answers that one connection may have unread; calls whose answers may be large wait for more room.
    pub unread_bytes_per_connection_max: usize,
    /// The same of all connections.
    pub unread_bytes_max: usize,
    /// The largest header list of one request, in bytes.
    pub header_bytes_max: u32,
    /// Unanswered events of one `PublishStream`.
    pub in_flight_max: usize,
    /// How often one service may publish, unless its credential says otherwise. Each target of an event counts.
    pub publish_rate: Rate,
    /// The largest room whose members are listed, in users; of a larger one only counts are told.
    pub members_listed_max: u32,
    /// Origins that browsers may call gRPC-Web from, exactly as they send them. Empty for none.
    pub web_origins: Vec<HeaderValue>,
    /// TLS, or plain text.
    pub tls: Option<Tls>,
    /// How long calls may go on after the shutdown began.
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

/// Settings with which the listener does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No credential is configured, so nobody could be told from anybody.
    #[error("the gRPC listener on {0} has no authentication: configure tokens, JWT or client certificates")]
    NoAuthentication(SocketAddr),
    /// Everybody is let in, and more than this machine can reach the listener.
    #[error("the gRPC listener on {0} lets everybody in, which is for `dev` on a loopback address only")]
    OpenToOthers(SocketAddr),
    /// Client certificates grant something, but none is asked for.
    #[error("client certificates are configured as credentials, but the gRPC listener has no client CA")]
    NoClientCa,
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(String),
    /// One answer would not have room.
    #[error("`{name}` must be at least {bytes_min} bytes, what one answer may take")]
    LessThanAnAnswer {
        /// The setting.
        name: &'static str,
        /// What one answer may take.
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
