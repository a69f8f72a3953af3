//! The application behind the gateway: validates client events before they are published, and replies to requests.
//!
//! Fails closed: a reply that is late is a refusal. This module knows no sockets and no bus.

mod config;
mod grpc;

use futures_util::future::BoxFuture;

use crate::event::{EventName, IdempotencyKey, Payload, Retention};
use crate::identity::{ConnectionId, Identity, UserId};
use crate::room::Room;

pub use config::Config;
pub use grpc::{BackendConfigError, GrpcBackend};

/// A client's event or request, for a backend.
#[derive(Debug, Clone)]
pub struct ClientEvent {
    /// The client's identity.
    pub identity: std::sync::Arc<Identity>,
    /// Its connection.
    pub connection: ConnectionId,
    /// The room; a request may have none.
    pub room: Option<Room>,
    /// The event's or request's name.
    pub name: EventName,
    /// The payload.
    pub payload: Payload,
    /// The retention; a request is ephemeral.
    pub retention: Retention,
    /// The client's idempotency key, if it gave one.
    pub key: Option<IdempotencyKey>,
}

/// A backend's verdict on a client's event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Publishes it, with the backend's changes.
    Publish {
        /// Another name, if the backend chose one.
        name: Option<EventName>,
        /// Another payload, if the backend rewrote it.
        payload: Option<Payload>,
        /// The delivery to the sender.
        echo: Echo,
    },
    /// The backend handled it; it is not published.
    Handled(Handled),
    /// Refuses it.
    Deny(Denial),
}

/// A backend's decision on the delivery of an event to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// No decision: it is left to the policy.
    ByPolicy,
    /// The sender gets it too.
    Deliver,
    /// The sender is left out.
    Withhold,
}

/// A backend's reply to an event it handled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handled {
    /// The reply to the sender.
    pub reply: Option<Payload>,
    /// Events to publish in the backend's name, in this order; at most [`Self::EMIT_MAX`].
    pub emit: Vec<Emit>,
}

impl Handled {
    /// The most events that one event may emit.
    pub const EMIT_MAX: usize = 16;
}

/// An event that a backend publishes while it handles a client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    /// The targets, inside the client's tenant; at least one.
    pub targets: Vec<EmitTarget>,
    /// The event's name.
    pub name: EventName,
    /// The payload.
    pub payload: Payload,
    /// The retention; ephemeral if a target is a connection.
    pub retention: Retention,
    /// Leaves the sending connection out.
    pub exclude_sender: bool,
}

/// Target of an emitted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmitTarget {
    /// To a room.
    Room(Room),
    /// To a user, by the user's home room.
    User(UserId),
    /// To every client of the tenant, by the tenant's home room.
    Everyone,
    /// To one connection.
    Connection(ConnectionId),
}

/// A backend's refusal, for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The reason for programs: the backend's own word.
    pub reason: String,
    /// The text for people.
    pub message: String,
}

/// Reason why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No backend is configured for it.
    #[error("no backend is configured")]
    None,
    /// The backend did not reply in time.
    #[error("the backend did not answer in time")]
    Timeout,
    /// The backend is unreachable, or its reply is invalid.
    #[error("the backend is not available: {0}")]
    Unavailable(String),
    /// The backend refused; the client receives the denial.
    #[error("the backend refused: {}", .0.reason)]
    Refused(Denial),
}

/// The application's side of client events.
pub trait Backend: Send + Sync + 'static {
    /// Submits a client's event to the backend before it is published.
    ///
    /// # Errors
    /// Every variant of [`BackendError`]; the event is not published.
    fn validate(&self, event: ClientEvent) -> BoxFuture<'_, Result<Verdict, BackendError>>;

    /// Sends a client's request to the backend and returns the reply.
    ///
    /// # Errors
    /// Every variant of [`BackendError`].
    fn request(&self, event: ClientEvent) -> BoxFuture<'_, Result<Payload, BackendError>>;
}

/// No backend: refuses everything with [`BackendError::None`].
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBackend;

impl Backend for NoBackend {
    fn validate(&self, _: ClientEvent) -> BoxFuture<'_, Result<Verdict, BackendError>> {
        Box::pin(std::future::ready(Err(BackendError::None)))
    }

    fn request(&self, _: ClientEvent) -> BoxFuture<'_, Result<Payload, BackendError>> {
        Box::pin(std::future::ready(Err(BackendError::None)))
    }
}
