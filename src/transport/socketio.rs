//! Socket.IO: Engine.IO version 4 over WebSockets and HTTP long-polling, and the Socket.IO protocol version 5 in its messages, so
//! that stock clients connect unchanged.
//!
//! A **connection** ([`connection`]) is one client by one Engine.IO session id. Its carrier is a WebSocket, or polls that wait,
//! from which it may be upgraded. Each **namespace** that the client connects to is a session of its own, whose link is a
//! [`Channel`] of the connection. Frames are WebSocket frames wherever they wait, encoded once for all members of a
//! namespace; only the answer to a poll takes them apart.
//!
//! The commands of the native protocol are events with a prefix, and its messages are acknowledgements or events with that
//! prefix: docs/socketio.md.
//!
//! Sources: the protocol documents and conformance suites in the repository `socketio/socket.io`.

mod bundle;
mod channel;
mod config;
mod connection;
mod deadlines;
mod decode;
mod encode;
mod engine;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod inbox;
mod offset;
mod packet;
mod payload;
mod polling;
mod query;
mod route;
mod sid;

use std::sync::Arc;

use self::encode::Namespace;
use super::http::Route;
use super::protocol::Protocols;

pub use self::bundle::BundleFile;
pub use self::config::{Application, Config, NAMESPACES_MAX, TokenSource};
pub use self::connection::{Reply, ReplyTo};
pub use self::forward::{Forwarding, serve};
pub use self::route::{EngineEntry, Request};
pub use self::sid::Sid;

pub(super) use self::channel::Channel;
pub(super) use self::connection::{Connection, EngineId, Member};
pub(super) use self::decode::{CONNECT, UNHANDLED};
pub(super) use self::engine::{Due, EngineConnections, Shared};
pub(super) use self::inbox::Step;
pub(super) use self::polling::Polled;

/// The name of a namespace's protocol: `socket.io` for the main one.
fn protocol_name(namespace: &str) -> String {
    match namespace {
        "/" => "socket.io".to_owned(),
        other => format!("socket.io{other}"),
    }
}

/// The route of the clients, and those of the files that they may load.
fn routes(config: &Arc<Config>) -> Vec<Route> {
    let files = config.client_bundle.iter().map(|file| file.route(&config.path));
    std::iter::once(route::route(config)).chain(files).collect()
}

/// Adds the namespaces of Socket.IO, and the routes by which its clients come.
///
/// # Panics
/// As [`Protocols::new`].
#[must_use]
pub fn register(protocols: &Protocols, config: &Arc<Config>) -> Protocols {
    let namespaces = config.namespaces.iter().enumerate().map(|(index, namespace)| {
        // The first one brings the routes of all.
        let routes = if index == 0 { routes(config) } else { Vec::new() };
        Namespace::new(namespace, config, routes)
    });
    namespaces.fold(protocols.clone(), |registered, namespace| registered.with(namespace))
}
