//! Refusals of calls, and the one table from a refusal to a gRPC status.
//!
//! Every status carries a `google.rpc.ErrorInfo` of domain `roomcast`; `docs/grpc.md` lists the reasons. The gate gives a
//! refusal below a method (an unknown method, an undecodable message) the same form.

mod details;
mod invalid;

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::credentials::Scope;
use crate::bus::{BusUnavailable, PublishError};
use crate::cluster::{ClusterError, Delivered, NotDone};
use crate::hub::{JoinRefusal, ShardsGone};
use crate::policy::Denied;
use crate::position::Position;
use crate::room::Room;

pub use invalid::Invalid;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "roomcast";

/// Delay before a retry after the bus was unavailable: longer than a broker's failover takes to begin, short enough to be
/// noticed as recovery.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Reason of a refused call.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// An argument is invalid.
    Invalid {
        /// The kind of argument.
        kind: Invalid,
        /// The path of the field, such as `targets[2].room`.
        field: String,
        /// The violated rule.
        why: String,
    },
    /// A unary call without a deadline.
    DeadlineRequired,
    /// No credential, or not a valid one.
    Unauthenticated(&'static str),
    /// The token proves nothing, for this reason.
    TokenInvalid(&'static str),
    /// The credential does not grant this scope.
    ScopeMissing(Scope),
    /// The credential does not cover the tenant.
    TenantForbidden,
    /// The tenant has no such connection.
    ConnectionNotFound,
    /// The client of the connection cannot answer.
    CannotAnswer,
    /// As many asks as it may have wait for the client's answer.
    AskLimit,
    /// The client's answer is no payload that can be relayed.
    AnswerInvalid,
    /// The connection ended, or its access was withdrawn, before it answered.
    ConnectionLost,
    /// There was no answer in time.
    NoAnswer {
        /// The delivery of the ask to its connection.
        delivered: Delivered,
    },
    /// Health or reflection of a service that is not served here.
    ServiceNotFound,
    /// The tenant has no such revocation in force.
    RevocationNotFound,
    /// The bound of revocations is reached.
    RevocationLimit(String),
    /// The idempotency key was used in this room with another event.
    KeyReused {
        /// The room.
        room: Room,
        /// Number of other rooms of the call that carry the event all the same.
        stored: u32,
    },
    /// The room's head is not the one the publisher expected.
    VersionConflict {
        /// The room.
        room: Room,
        /// The room's head.
        head: Position,
    },
    /// A requested position is no longer retained.
    PositionNotRetained {
        /// The room.
        room: Room,
        /// The oldest event still kept.
        oldest: Option<Position>,
        /// The room's head.
        head: Position,
    },
    /// The target needs a home room, and no template for it is configured.
    NoHomeRoom(&'static str),
    /// The connection has reached its bound of rooms.
    RoomLimit,
    /// The user's access to the room is revoked.
    AccessRevoked,
    /// The service exceeds its rate.
    RateLimited {
        /// The service.
        service: Arc<str>,
        /// Time until the next call may pass.
        retry_after: Duration,
    },
    /// A message is larger than its bound.
    MessageTooLarge,
    /// The reader of a stream is too slow.
    SlowConsumer,
    /// The reader of a subscription is too slow; it goes on from the cursor.
    SlowSubscriber {
        /// The cursor of the last response.
        cursor: String,
    },
    /// A bound of concurrent subscriptions is reached.
    SubscriptionLimit(&'static str),
    /// The bus did not accept it; nothing was done.
    NotStored(&'static str),
    /// The outcome is unknown: it may have been done.
    UnknownOutcome {
        /// The cause.
        why: &'static str,
        /// Number of rooms of the call that certainly stored the event.
        stored: u32,
    },
    /// The node is draining; nothing was done.
    Draining,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller cancelled the call.
    Cancelled,
    /// The feature is not implemented.
    Unimplemented(&'static str),
    /// The call requires a feature that this node does not know; nothing was done.
    UnsupportedFeature(String),
    /// An internal error: a defect of the gateway.
    Internal,
}

impl Refusal {
    /// Builds the refusal of an argument.
    #[expect(clippy::needless_pass_by_value, reason = "callers hand in the error they were given")]
    pub fn invalid(kind: Invalid, field: impl Into<String>, why: impl ToString) -> Self {
        Self::Invalid {
            kind,
            field: field.into(),
            why: why.to_string(),
        }
    }

    /// Builds the refusal of a field without a reason of its own.
    pub fn field(field: impl Into<String>, why: impl ToString) -> Self {
        Self::invalid(Invalid::Field, field, why)
    }

    /// Prefixes the field with `path`, for a message within a message.
    #[must_use]
    pub fn within(self, path: &str) -> Self {
        match self {
            Self::Invalid { kind, field, why } => Self::Invalid {
                kind,
                field: format!("{path}.{field}"),
                why,
            },
            other => other,
        }
    }

    /// Converts the bus's refusal to publish to `room`.
    #[must_use]
    pub fn publish(error: &PublishError, room: Room) -> Self {
        match error {
            PublishError::VersionConflict { current } => Self::VersionConflict { room, head: *current },
            PublishError::KeyReused => Self::KeyReused { room, stored: 0 },
            PublishError::TooLarge { .. } => Self::invalid(Invalid::PayloadTooLarge, "payload", error),
            PublishError::NotStored(why) => Self::NotStored(why),
            PublishError::UnknownOutcome(why) => Self::UnknownOutcome { why, stored: 0 },
        }
    }

    /// Returns the row of the table: status code and reason.
    const fn row(&self) -> (Code, &'static str) {
        match self {
            Self::Invalid { kind, .. } => (Code::InvalidArgument, kind.reason()),
            Self::DeadlineRequired => (Code::InvalidArgument, "DEADLINE_REQUIRED"),
            Self::Unauthenticated(_) | Self::TokenInvalid(_) => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::ScopeMissing(_) => (Code::PermissionDenied, "SCOPE_MISSING"),
            Self::TenantForbidden => (Code::PermissionDenied, "TENANT_FORBIDDEN"),
            Self::ConnectionNotFound => (Code::NotFound, "CONNECTION_NOT_FOUND"),
            Self::CannotAnswer => (Code::FailedPrecondition, "CANNOT_ANSWER"),
            Self::AskLimit => (Code::ResourceExhausted, "ASK_LIMIT"),
            Self::AnswerInvalid => (Code::FailedPrecondition, "ANSWER_INVALID"),
            Self::ConnectionLost => (Code::Unavailable, "CONNECTION_LOST"),
            Self::NoAnswer { .. } => (Code::DeadlineExceeded, "NO_ANSWER"),
            Self::ServiceNotFound => (Code::NotFound, "SERVICE_NOT_FOUND"),
            Self::RevocationNotFound => (Code::NotFound, "REVOCATION_NOT_FOUND"),
            Self::RevocationLimit(_) => (Code::ResourceExhausted, "REVOCATION_LIMIT"),
            Self::KeyReused { .. } => (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"),
            Self::VersionConflict { .. } => (Code::Aborted, "VERSION_CONFLICT"),
            Self::PositionNotRetained { .. } => (Code::OutOfRange, "POSITION_NOT_RETAINED"),
            Self::NoHomeRoom(_) => (Code::FailedPrecondition, "NO_HOME_ROOM"),
            Self::RoomLimit => (Code::FailedPrecondition, "ROOM_LIMIT"),
            Self::AccessRevoked => (Code::FailedPrecondition, "ACCESS_REVOKED"),
            Self::RateLimited { .. } => (Code::ResourceExhausted, "RATE_LIMITED"),
            Self::MessageTooLarge => (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            Self::SlowConsumer | Self::SlowSubscriber { .. } => (Code::ResourceExhausted, "SLOW_CONSUMER"),
            Self::SubscriptionLimit(_) => (Code::ResourceExhausted, "SUBSCRIPTION_LIMIT"),
            Self::NotStored(_) => (Code::Unavailable, "NOT_STORED"),
            Self::UnknownOutcome { .. } => (Code::Unavailable, "UNKNOWN_OUTCOME"),
            Self::Draining => (Code::Unavailable, "DRAINING"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "UNKNOWN_OUTCOME"),
            Self::Cancelled => (Code::Cancelled, "CANCELLED"),
            Self::Unimplemented(_) => (Code::Unimplemented, "UNIMPLEMENTED_FEATURE"),
            Self::UnsupportedFeature(_) => (Code::Unimplemented, "UNSUPPORTED_FEATURE"),
            Self::Internal => (Code::Internal, "INTERNAL"),
        }
    }

    /// Returns the status code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.row().0
    }

    /// Returns the stable reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.row().1
    }

    /// Returns the text for a developer.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Invalid { field, why, .. } if field.is_empty() => why.clone(),
            Self::Invalid { field, why, .. } => format!("{field}: {why}"),
            Self::DeadlineRequired => "a unary call needs a deadline".into(),
            Self::Unauthenticated(why) => (*why).into(),
            Self::TokenInvalid(why) => format!("the token is not valid: {why}"),
            Self::ScopeMissing(scope) => format!("the credential lacks the scope `{}`", scope.as_str()),
            Self::TenantForbidden => "the credential does not cover the tenant".into(),
            Self::ConnectionNotFound => "the tenant has no such connection".into(),
            Self::CannotAnswer => "the client of the connection cannot answer".into(),
            Self::AskLimit => "as many asks as may be wait for the client's answer".into(),
            Self::AnswerInvalid => "the client's answer is too large, or no payload".into(),
            Self::ConnectionLost => "the connection ended, or its access was withdrawn, before it answered".into(),
            Self::NoAnswer {
                delivered: Delivered::Yes,
            } => "the client was asked and did not answer in time".into(),
            Self::NoAnswer { .. } => "the deadline passed before the connection was known to be asked".into(),
            Self::ServiceNotFound => "no such service is served here".into(),
            Self::RevocationNotFound => "the tenant has no such revocation in force".into(),
            Self::RevocationLimit(why) => why.clone(),
            Self::KeyReused { .. } => "the idempotency key was used with another event".into(),
            Self::VersionConflict { .. } => "the room is not at the expected head".into(),
            Self::PositionNotRetained { .. } => "not everything asked for is kept".into(),
            Self::NoHomeRoom(whose) => format!("no room template is configured for a {whose}"),
            Self::RoomLimit => "the connection is in as many rooms as it may be".into(),
            Self::AccessRevoked => "the user's access to the room was withdrawn".into(),
            Self::RateLimited { .. } => "the service publishes more often than it may".into(),
            Self::MessageTooLarge => "the message is larger than the limit".into(),
            Self::SlowConsumer | Self::SlowSubscriber { .. } => "the reader is too far behind".into(),
            Self::SubscriptionLimit(whose) => format!("{whose} has as many subscriptions as it may"),
            Self::NotStored(why) => format!("nothing was done: {why}"),
            Self::UnknownOutcome { why, .. } => format!("outcome unknown: {why}"),
            Self::Draining => "the node shuts down; nothing was done".into(),
            Self::DeadlineExceeded => "the deadline passed; outcome unknown".into(),
            Self::Cancelled => "the call was cancelled".into(),
            Self::Unimplemented(feature) => format!("`{feature}` is not offered"),
            Self::UnsupportedFeature(feature) => format!("the required feature `{feature}` is not known"),
            Self::Internal => "internal error".into(),
        }
    }

    /// Returns the delay after which the same call may succeed.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::NotStored(_) | Self::UnknownOutcome { .. } | Self::Draining => Some(RETRY_AFTER),
            _ => None,
        }
    }
}

impl From<BusUnavailable> for Refusal {
    fn from(error: BusUnavailable) -> Self {
        Self::NotStored(error.0)
    }
}

impl From<ShardsGone> for Refusal {
    fn from(_: ShardsGone) -> Self {
        Self::Draining
    }
}

impl From<ClusterError> for Refusal {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Gone(gone) => gone.into(),
            ClusterError::Silent(nodes) => {
                tracing::warn!(?nodes, "nodes did not answer in time");
                Self::UnknownOutcome {
                    why: "not every node has answered",
                    stored: 0,
                }
            }
        }
    }
}

impl From<NotDone> for Refusal {
    fn from(error: NotDone) -> Self {
        match error {
            NotDone::NotStored(why) => Self::NotStored(why),
            NotDone::Unknown(why) => Self::UnknownOutcome { why, stored: 0 },
            NotDone::Limit(limit) => Self::RevocationLimit(limit.to_string()),
            NotDone::NotFound => Self::RevocationNotFound,
            NotDone::Behind => Self::NotStored("the node cannot hear the others"),
            NotDone::Gone(gone) => gone.into(),
        }
    }
}

impl From<JoinRefusal> for Refusal {
    fn from(refusal: JoinRefusal) -> Self {
        match refusal {
            JoinRefusal::RoomLimit => Self::RoomLimit,
            JoinRefusal::Revoked => Self::AccessRevoked,
            JoinRefusal::Unavailable => Self::NotStored("the room cannot be entered now"),
        }
    }
}

impl From<Denied> for Refusal {
    /// Converts a denial. Scope and tenant are checked before, so any other denial of a service is the tenant's.
    fn from(_: Denied) -> Self {
        Self::TenantForbidden
    }
}

#[cfg(test)]
mod tests;
