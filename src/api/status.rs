//! Why a call is refused, and the one table from that to a gRPC status.
//!
//! Every status carries a `google.rpc.ErrorInfo` of domain `roomcast`; `docs/grpc.md` lists the reasons. What is refused
//! below a method (an unknown one, a message that does not decode) is dressed the same way by the gate.

mod details;
mod invalid;

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::credentials::Scope;
use crate::bus::{BusUnavailable, PublishError};
use crate::cluster::{ClusterError, NotDone};
use crate::hub::{JoinRefusal, ShardsGone};
use crate::policy::Denied;
use crate::position::Position;
use crate::room::Room;

pub use invalid::Invalid;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "roomcast";

/// When a caller may come back after the bus was away: longer than a broker's failover takes to begin, short enough to
/// be noticed as recovery.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// An argument is not acceptable.
    Invalid {
        /// What kind.
        kind: Invalid,
        /// The path of the field, such as `targets[2].room`.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// A unary call came without a deadline.
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
    /// Health or reflection of a service that is not served here.
    ServiceNotFound,
    /// The tenant has no such revocation in force.
    RevocationNotFound,
    /// There are as many revocations as there may be.
    RevocationLimit(String),
    /// The idempotency key was used in this room with another event.
    KeyReused {
        /// The room.
        room: Room,
        /// How many other rooms of the call carry the event all the same.
        stored: u32,
    },
    /// The room is not where the publisher expected it.
    VersionConflict {
        /// The room.
        room: Room,
        /// Where it is.
        head: Position,
    },
    /// Not everything that was asked for is kept.
    PositionNotRetained {
        /// The room.
        room: Room,
        /// The oldest event still kept.
        oldest: Option<Position>,
        /// Where the room is.
        head: Position,
    },
    /// The target needs a home room, and no template for it is configured.
    NoHomeRoom(&'static str),
    /// A connection is in as many rooms as it may be.
    RoomLimit,
    /// The user's access to the room was withdrawn.
    AccessRevoked,
    /// The service calls more often than it may.
    RateLimited {
        /// The service.
        service: Arc<str>,
        /// When the next call may pass.
        retry_after: Duration,
    },
    /// A message is larger than its bound.
    MessageTooLarge,
    /// The reader of a stream is too far behind.
    SlowConsumer,
    /// The bus did not take it; nothing was done.
    NotStored(&'static str),
    /// It may have been done.
    UnknownOutcome {
        /// Why it is not known.
        why: &'static str,
        /// In how many rooms of the call it certainly was.
        stored: u32,
    },
    /// The node shuts down; nothing was done.
    Draining,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller has given the call up.
    Cancelled,
    /// Not offered.
    Unimplemented(&'static str),
    /// The call requires a feature that this node does not know; nothing was done.
    UnsupportedFeature(String),
    /// A defect of the gateway.
    Internal,
}

impl Refusal {
    /// An argument is not acceptable.
    #[expect(clippy::needless_pass_by_value, reason = "callers hand in the error they were given")]
    pub fn invalid(kind: Invalid, field: impl Into<String>, why: impl ToString) -> Self {
        Self::Invalid {
            kind,
            field: field.into(),
            why: why.to_string(),
        }
    }

    /// Another field than those with a reason of their own is not acceptable.
    pub fn field(field: impl Into<String>, why: impl ToString) -> Self {
        Self::invalid(Invalid::Field, field, why)
    }

    /// The same refusal of a message that stands in the field `path` of the call's own.
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

    /// The bus refused to publish to `room`.
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

    /// The table: status code and reason.
    const fn row(&self) -> (Code, &'static str) {
        match self {
            Self::Invalid { kind, .. } => (Code::InvalidArgument, kind.reason()),
            Self::DeadlineRequired => (Code::InvalidArgument, "DEADLINE_REQUIRED"),
            Self::Unauthenticated(_) | Self::TokenInvalid(_) => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::ScopeMissing(_) => (Code::PermissionDenied, "SCOPE_MISSING"),
            Self::TenantForbidden => (Code::PermissionDenied, "TENANT_FORBIDDEN"),
            Self::ConnectionNotFound => (Code::NotFound, "CONNECTION_NOT_FOUND"),
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
            Self::SlowConsumer => (Code::ResourceExhausted, "SLOW_CONSUMER"),
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

    /// The status code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.row().0
    }

    /// The stable reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.row().1
    }

    /// For a developer to read.
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
            Self::SlowConsumer => "the reader is too far behind".into(),
            Self::NotStored(why) => format!("nothing was done: {why}"),
            Self::UnknownOutcome { why, .. } => format!("perhaps it was done: {why}"),
            Self::Draining => "the node shuts down; nothing was done".into(),
            Self::DeadlineExceeded => "the deadline passed; perhaps it was done".into(),
            Self::Cancelled => "the call was given up".into(),
            Self::Unimplemented(feature) => format!("`{feature}` is not offered"),
            Self::UnsupportedFeature(feature) => format!("the required feature `{feature}` is not known"),
            Self::Internal => "a defect of the gateway".into(),
        }
    }

    /// How long to wait before the same call may succeed.
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
    /// Scope and tenant are checked before; whatever the policy still refuses a service is the tenant's.
    fn from(_: Denied) -> Self {
        Self::TenantForbidden
    }
}

#[cfg(test)]
mod tests;
