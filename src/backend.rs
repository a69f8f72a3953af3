//! The application behind the gateway: sees client events before anyone else does, and answers requests.
//!
//! Fails closed: an answer that does not come in time is a refusal. Nothing here knows sockets or the bus.

mod config;
mod grpc;

use futures_util::future::BoxFuture;

use crate::event::{EventName, IdempotencyKey, Payload, Retention};
use crate::identity::{ConnectionId, Identity, UserId};
use crate::room::Room;

pub use config::Config;
pub use grpc::{BackendConfigError, GrpcBackend};

/// Something a client said that a backend is to see.
#[derive(Debug, Clone)]
pub struct ClientEvent {
    /// Who said it.
    pub identity: std::sync::Arc<Identity>,
    /// Over which connection.
    pub connection: ConnectionId,
    /// To which room; a request may have none.
    pub room: Option<Room>,
    /// The event's or request's name.
    pub name: EventName,
    /// What it carries.
    pub payload: Payload,
    /// How it is to be kept; a request is ephemeral.
    pub retention: Retention,
    /// The client's idempotency key, if it gave one.
    pub key: Option<IdempotencyKey>,
}

/// What becomes of a client's event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is published, with what the backend changed.
    Publish {
        /// Another name, if the backend chose one.
        name: Option<EventName>,
        /// Another payload, if the backend rewrote it.
        payload: Option<Payload>,
        /// Whether the sender gets it too, if the backend decided so.
        echo: Option<bool>,
    },
    /// The backend took it; it is not published.
    Handled(Handled),
    /// It is refused.
    Deny(Denial),
}

/// What a backend says that took an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handled {
    /// Told to the sender.
    pub reply: Option<Payload>,
    /// Published in the backend's name, in this order; at most [`Self::EMIT_MAX`].
    pub emit: Vec<Emit>,
}

impl Handled {
    /// The most events one event gives rise to.
    pub const EMIT_MAX: usize = 16;
}

/// An event that a backend publishes in the course of a client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    /// Where it goes, inside the client's tenant; at least one.
    pub targets: Vec<EmitTarget>,
    /// The event's name.
    pub name: EventName,
    /// What it carries.
    pub payload: Payload,
    /// How it is kept; ephemeral if a target is a connection.
    pub retention: Retention,
    /// Whether the sending connection is left out.
    pub exclude_sender: bool,
}

/// Where an emitted event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmitTarget {
    /// To a room.
    Room(Room),
    /// To a user, by the user's own room.
    User(UserId),
    /// To everybody in the tenant, by the tenant's own room.
    Everyone,
    /// To one connection.
    Connection(ConnectionId),
}

/// A backend's refusal, which the client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// For its program: the backend's own word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No backend is configured for it.
    #[error("no backend is configured")]
    None,
    /// It did not answer in time.
    #[error("the backend did not answer in time")]
    Timeout,
    /// It cannot be reached, or answered junk.
    #[error("the backend is not available: {0}")]
    Unavailable(String),
    /// It refused; the client reads the denial.
    #[error("the backend refused: {}", .0.reason)]
    Refused(Denial),
}

/// The application's side of client events.
pub trait Backend: Send + Sync + 'static {
    /// Shows a client's event to the backend before it is published.
    ///
    /// # Errors
    /// Every variant of [`BackendError`]; the event is not published then.
    fn validate(&self, event: ClientEvent) -> BoxFuture<'_, Result<Verdict, BackendError>>;

    /// Asks the backend for an answer to a client's request.
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
