//! `[grpc]`: the port for backends, and its callers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::services::ServiceSection;
use super::subscriptions::Subscriptions;
use crate::api;
use crate::auth;
use crate::config::origin::Origin;
use crate::config::problem::{all, both};
use crate::config::values::{Positive, PositiveSize, PositiveTime, Rated, Size, Time};
use crate::config::{Problem, files};
use crate::rate::Rate;
use crate::room::RoomPattern;
use crate::rooms::HomeRooms;

/// The port for backends: gRPC, gRPC-Web and the HTTP mirror.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcSection {
    /// The address and port.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Services that may call. Without a service and without `jwt` the gateway does not start.
    pub services: Vec<ServiceSection>,
    /// Accepts JWTs of services: tokens with the claims `scope` (names separated by spaces) and `tenants` (an array, or
    /// `["*"]`). Written like `[auth]`; not the issuer of your users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<auth::Config>,
    /// Certificates; plain text without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSection>,
    /// Home room of a user: the room that receives a publish to the user, for example `user:{user}`. Clients must be in it:
    /// see `policy.auto_join`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_room: Option<String>,
    /// Home room of a tenant: the room that receives a publish to everyone, for example `tenant:{tenant}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_room: Option<String>,
    /// Origins from which browsers may call gRPC-Web, exactly as they send them.
    pub web_origins: Vec<String>,
    /// The largest message, also after decompression.
    #[serde(with = "PositiveSize")]
    pub message_bytes_max: usize,
    /// The largest payload of an event that a backend publishes.
    #[serde(with = "PositiveSize")]
    pub payload_bytes_max: usize,
    /// The longest time one unary call may take; a longer deadline is shortened to it.
    #[serde(with = "PositiveTime")]
    pub deadline_max: Duration,
    /// Deadline of a unary call without one. Not set: such a call is refused.
    #[serde(skip_serializing_if = "Option::is_none", with = "humantime_serde")]
    #[schemars(with = "Option<Time>")]
    pub deadline_default: Option<Duration>,
    /// The longest time from the connection to a whole HTTP/2 preface or TLS hello.
    #[serde(with = "Time")]
    pub first_bytes_timeout: Duration,
    /// Interval of pings on an idle connection.
    #[serde(with = "PositiveTime")]
    pub keepalive_interval: Duration,
    /// Deadline of the pong.
    #[serde(with = "Time")]
    pub keepalive_timeout: Duration,
    /// The most concurrent calls of one connection.
    #[serde(with = "Positive")]
    pub streams_max: u32,
    /// The most open connections. One more evicts the oldest connection without a valid credential; where there is none, it
    /// is closed.
    #[serde(with = "Positive")]
    pub connections_max: usize,
    /// The most open connections from one address; one more is closed.
    pub connections_per_address_max: usize,
    /// The most connections without a whole HTTP/2 preface or TLS hello yet; one more is closed.
    pub handshakes_max: usize,
    /// The most such connections from one address; one more is closed.
    pub handshakes_per_address_max: usize,
    /// The most reply bytes that one connection may leave unread. A call whose reply may be large (pages, batches) waits
    /// until 2 MiB are free.
    #[serde(with = "Size")]
    pub unread_bytes_per_connection_max: usize,
    /// The most unread reply bytes of all connections together.
    #[serde(with = "Size")]
    pub unread_bytes_max: usize,
    /// The largest header list of one request.
    #[serde(with = "Size")]
    pub header_bytes_max: usize,
    /// The most unacknowledged events of one `PublishStream`; at this number it is not read.
    #[serde(with = "Positive")]
    pub in_flight_max: usize,
    /// Bounds of `Subscribe`.
    #[serde(with = "Subscriptions")]
    pub subscriptions: api::Subscriptions,
    /// Publish rate of one service, unless its own entry has another. Each target of an event counts.
    #[serde(with = "Rated")]
    pub publish_rate: Rate,
    /// Time for which calls may continue after the process began to drain.
    #[serde(with = "Time")]
    pub drain_max: Duration,
}

/// Certificates of the port for backends, as PEM files.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// The certificate chain.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The CA that signs client certificates. Not set: none are requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
}

impl Default for GrpcSection {
    fn default() -> Self {
        let config = api::Config::default();
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 50051)),
            services: Vec::new(),
            jwt: None,
            tls: None,
            user_room: None,
            tenant_room: None,
            web_origins: Vec::new(),
            message_bytes_max: config.message_bytes_max,
            payload_bytes_max: config.payload_bytes_max,
            deadline_max: config.deadline_max,
            deadline_default: config.deadline_default,
            first_bytes_timeout: config.first_bytes_timeout,
            keepalive_interval: config.keepalive_interval,
            keepalive_timeout: config.keepalive_timeout,
            streams_max: config.streams_max,
            connections_max: config.connections_max,
            connections_per_address_max: config.connections_per_address_max,
            handshakes_max: config.handshakes_max,
            handshakes_per_address_max: config.handshakes_per_address_max,
            unread_bytes_per_connection_max: config.unread_bytes_per_connection_max,
            unread_bytes_max: config.unread_bytes_max,
            header_bytes_max: config.header_bytes_max as usize,
            in_flight_max: config.in_flight_max,
            subscriptions: api::Subscriptions::default(),
            publish_rate: config.publish_rate,
            drain_max: config.drain_max,
        }
    }
}

impl GrpcSection {
    /// Builds the listener's configuration. `presence.listed_max` is set from its own section.
    pub(in crate::config) fn port(&self) -> Result<api::Config, Vec<Problem>> {
        let tls = self.tls.as_ref().map(TlsSection::read).transpose();
        let (web_origins, tls) = both(self.web_origins(), tls)?;
        Ok(api::Config {
            message_bytes_max: self.message_bytes_max,
            payload_bytes_max: self.payload_bytes_max,
            deadline_max: self.deadline_max,
            deadline_default: self.deadline_default,
            first_bytes_timeout: self.first_bytes_timeout,
            keepalive_interval: self.keepalive_interval,
            keepalive_timeout: self.keepalive_timeout,
            streams_max: self.streams_max,
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_per_address_max,
            handshakes_max: self.handshakes_max,
            handshakes_per_address_max: self.handshakes_per_address_max,
            unread_bytes_per_connection_max: self.unread_bytes_per_connection_max,
            unread_bytes_max: self.unread_bytes_max,
            header_bytes_max: u32::try_from(self.header_bytes_max).unwrap_or(u32::MAX),
            in_flight_max: self.in_flight_max,
            subscriptions: self.subscriptions,
            publish_rate: self.publish_rate,
            web_origins,
            tls,
            drain_max: self.drain_max,
            ..api::Config::default()
        })
    }

    pub(in crate::config) fn home_rooms(&self) -> Result<HomeRooms, Vec<Problem>> {
        let pattern = |key: &str, text: &Option<String>| {
            let text = text.as_deref().map(RoomPattern::parse).transpose();
            text.map_err(|error| Problem::new(key, error))
        };
        let user = pattern("grpc.user_room", &self.user_room);
        let tenant = pattern("grpc.tenant_room", &self.tenant_room);
        let (user, tenant) = both(user, tenant)?;
        // One after the other, so that the reported key is the wrong one.
        HomeRooms::new(user.clone(), None).map_err(|error| Problem::new("grpc.user_room", error))?;
        Ok(HomeRooms::new(user, tenant).map_err(|error| Problem::new("grpc.tenant_room", error))?)
    }

    fn web_origins(&self) -> Result<Vec<HeaderValue>, Vec<Problem>> {
        let value = |(at, text): (usize, &String)| {
            let origin = Origin::parse(text).map_err(|error| Problem::new(format!("grpc.web_origins.{at}"), error))?;
            Ok(HeaderValue::from_str(origin.as_str()).expect("an origin is visible ASCII"))
        };
        all(self.web_origins.iter().enumerate().map(value))
    }
}

impl TlsSection {
    fn read(&self) -> Result<api::Tls, Vec<Problem>> {
        let read = |key: &str, path: &PathBuf| {
            files::bytes(path).map_err(|error| Problem::new(format!("grpc.tls.{key}"), error))
        };
        let certificate = read("certificate_file", &self.certificate_file);
        let key = read("key_file", &self.key_file);
        let client_ca = self.client_ca_file.as_ref().map(|path| read("client_ca_file", path));
        let ((certificate_pem, key_pem), client_ca_pem) = both(both(certificate, key), client_ca.transpose())?;
        Ok(api::Tls {
            certificate_pem,
            key_pem,
            client_ca_pem,
        })
    }
}
