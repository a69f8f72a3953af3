//! Why a call is refused, and the one table from that to a gRPC status.
//!
//! Every status carries a `google.rpc.ErrorInfo` of domain `roomcast`; `docs/grpc.md` lists the reasons. What is refused
//! below a method (an unknown one, a message that does not decode) is dressed the same way by the gate.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use super::convert;
use super::credentials::Scope;
use crate::bus::{BusUnavailable, PublishError};
use crate::hub::ShardsGone;
use crate::policy::Denied;
use crate::position::Position;
use crate::proto::v1;
use crate::room::Room;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "roomcast";

/// When a caller may come back after the bus was away: longer than a broker's failover takes to begin, short enough to
/// be noticed as recovery.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What is wrong with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// The tenant.
    Tenant,
    /// A room name.
    Room,
    /// The targets: none, too many, or the same twice.
    Target,
    /// The event name.
    EventName,
    /// The payload: none, or not acceptable JSON.
    Payload,
    /// The payload is larger than its bound.
    PayloadTooLarge,
    /// The idempotency key.
    IdempotencyKey,
    /// The page token.
    PageToken,
    /// Another field.
    Field,
    /// More events than one call may hold.
    BatchTooLarge,
    /// The message does not decode.
    Undecodable,
}

impl Invalid {
    /// Every kind, in the order of the documentation.
    #[cfg(test)]
    pub(super) const ALL: [Self; 11] = [
        Self::Tenant,
        Self::Room,
        Self::Target,
        Self::EventName,
        Self::Payload,
        Self::PayloadTooLarge,
        Self::IdempotencyKey,
        Self::PageToken,
        Self::Field,
        Self::BatchTooLarge,
        Self::Undecodable,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::Tenant => "INVALID_TENANT",
            Self::Room => "INVALID_ROOM",
            Self::Target => "INVALID_TARGET",
            Self::EventName => "INVALID_EVENT_NAME",
            Self::Payload => "INVALID_PAYLOAD",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::IdempotencyKey => "INVALID_IDEMPOTENCY_KEY",
            Self::PageToken => "INVALID_PAGE_TOKEN",
            Self::Field => "INVALID_FIELD",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::Undecodable => "UNDECODABLE_MESSAGE",
        }
    }
}

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
    /// The credential does not grant this scope.
    ScopeMissing(Scope),
    /// The credential does not cover the tenant.
    TenantForbidden,
    /// The tenant has no such connection.
    ConnectionNotFound,
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
        current: Position,
    },
    /// Not everything that was asked for is kept.
    PositionNotRetained {
        /// The room.
        room: Room,
        /// The oldest event still kept.
        oldest: Option<Position>,
        /// Where the room is.
        current: Position,
    },
    /// The target needs a home room, and no template for it is configured.
    NoHomeRoom(&'static str),
    /// A connection is in as many rooms as it may be.
    RoomLimit,
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
    /// Not offered.
    Unimplemented(&'static str),
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
            PublishError::VersionConflict { current } => Self::VersionConflict {
                room,
                current: *current,
            },
            PublishError::KeyReused => Self::KeyReused { room, stored: 0 },
            PublishError::NotStored(why) => Self::NotStored(why),
            PublishError::UnknownOutcome(why) => Self::UnknownOutcome { why, stored: 0 },
        }
    }

    /// The table: status code and reason.
    const fn row(&self) -> (Code, &'static str) {
        match self {
            Self::Invalid { kind, .. } => (Code::InvalidArgument, kind.reason()),
            Self::DeadlineRequired => (Code::InvalidArgument, "DEADLINE_REQUIRED"),
            Self::Unauthenticated(_) => (Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::ScopeMissing(_) => (Code::PermissionDenied, "SCOPE_MISSING"),
            Self::TenantForbidden => (Code::PermissionDenied, "TENANT_FORBIDDEN"),
            Self::ConnectionNotFound => (Code::NotFound, "CONNECTION_NOT_FOUND"),
            Self::KeyReused { .. } => (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"),
            Self::VersionConflict { .. } => (Code::Aborted, "VERSION_CONFLICT"),
            Self::PositionNotRetained { .. } => (Code::OutOfRange, "POSITION_NOT_RETAINED"),
            Self::NoHomeRoom(_) => (Code::FailedPrecondition, "NO_HOME_ROOM"),
            Self::RoomLimit => (Code::FailedPrecondition, "ROOM_LIMIT"),
            Self::RateLimited { .. } => (Code::ResourceExhausted, "RATE_LIMITED"),
            Self::MessageTooLarge => (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            Self::SlowConsumer => (Code::ResourceExhausted, "SLOW_CONSUMER"),
            Self::NotStored(_) => (Code::Unavailable, "NOT_STORED"),
            Self::UnknownOutcome { .. } => (Code::Unavailable, "UNKNOWN_OUTCOME"),
            Self::Draining => (Code::Unavailable, "DRAINING"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "UNKNOWN_OUTCOME"),
            Self::Unimplemented(_) => (Code::Unimplemented, "UNIMPLEMENTED_FEATURE"),
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
            Self::ScopeMissing(scope) => format!("the credential lacks the scope `{}`", scope.as_str()),
            Self::TenantForbidden => "the credential does not cover the tenant".into(),
            Self::ConnectionNotFound => "the tenant has no such connection".into(),
            Self::KeyReused { .. } => "the idempotency key was used with another event".into(),
            Self::VersionConflict { .. } => "the room is not at the expected position".into(),
            Self::PositionNotRetained { .. } => "not everything asked for is kept".into(),
            Self::NoHomeRoom(whose) => format!("no room template is configured for a {whose}"),
            Self::RoomLimit => "the connection is in as many rooms as it may be".into(),
            Self::RateLimited { .. } => "the service publishes more often than it may".into(),
            Self::MessageTooLarge => "the message is larger than the limit".into(),
            Self::SlowConsumer => "the reader is too far behind".into(),
            Self::NotStored(why) => format!("nothing was done: {why}"),
            Self::UnknownOutcome { why, .. } => format!("perhaps it was done: {why}"),
            Self::Draining => "the node shuts down; nothing was done".into(),
            Self::DeadlineExceeded => "the deadline passed; perhaps it was done".into(),
            Self::Unimplemented(feature) => format!("`{feature}` is not offered"),
            Self::Internal => "a defect of the gateway".into(),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::ScopeMissing(scope) => vec![("scope", scope.as_str().into())],
            Self::Unimplemented(feature) => vec![("feature", (*feature).into())],
            Self::KeyReused { room, stored } => {
                vec![("room", room.name().into()), ("rooms_stored", stored.to_string())]
            }
            Self::UnknownOutcome { stored, .. } if *stored > 0 => vec![("rooms_stored", stored.to_string())],
            _ => Vec::new(),
        }
    }

    fn further(&self) -> Vec<Any> {
        match self {
            Self::Invalid { field, why, .. } => vec![google(
                "BadRequest",
                &pb::BadRequest {
                    field_violations: vec![pb::bad_request::FieldViolation {
                        field: field.clone(),
                        description: why.clone(),
                        ..Default::default()
                    }],
                },
            )],
            Self::VersionConflict { room, current } => vec![ours(
                "VersionConflict",
                &v1::VersionConflict {
                    room: room.name().to_owned(),
                    current: Some(convert::position(*current)),
                },
            )],
            Self::PositionNotRetained { room, oldest, current } => vec![ours(
                "PositionNotRetained",
                &v1::PositionNotRetained {
                    room: room.name().to_owned(),
                    oldest: oldest.map(convert::position),
                    current: Some(convert::position(*current)),
                },
            )],
            Self::RateLimited { service, retry_after } => vec![retry(*retry_after), quota(service)],
            Self::NotStored(_) | Self::UnknownOutcome { .. } | Self::Draining => vec![retry(RETRY_AFTER)],
            _ => Vec::new(),
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

    /// The details, `ErrorInfo` first.
    fn details(&self) -> Vec<Any> {
        let metadata = self.metadata().into_iter();
        let info = pb::ErrorInfo {
            reason: self.reason().to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: metadata.map(|(key, value)| (key.to_owned(), value)).collect(),
        };
        let mut details = vec![google("ErrorInfo", &info)];
        details.extend(self.further());
        details
    }

    /// The refusal of one item of a batch or stream.
    #[must_use]
    pub fn item(&self) -> v1::ItemStatus {
        v1::ItemStatus {
            code: self.code().into(),
            message: self.message(),
            details: self.details(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, message) = (refusal.code(), refusal.message());
        let status = pb::Status {
            code: code.into(),
            message: message.clone(),
            details: refusal.details(),
        };
        Self::with_details(code, message, status.encode_to_vec().into())
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

impl From<Denied> for Refusal {
    /// Scope and tenant are checked before; whatever the policy still refuses a service is the tenant's.
    fn from(_: Denied) -> Self {
        Self::TenantForbidden
    }
}

fn any(package: &str, name: &str, message: &impl prost::Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{package}.{name}"),
        value: message.encode_to_vec(),
    }
}

fn google(name: &str, message: &impl prost::Message) -> Any {
    any("google.rpc", name, message)
}

fn ours(name: &str, message: &impl prost::Message) -> Any {
    any("roomcast.v1", name, message)
}

fn retry(after: Duration) -> Any {
    google(
        "RetryInfo",
        &pb::RetryInfo {
            retry_delay: prost_types::Duration::try_from(after).ok(),
        },
    )
}

fn quota(service: &str) -> Any {
    google(
        "QuotaFailure",
        &pb::QuotaFailure {
            violations: vec![pb::quota_failure::Violation {
                subject: format!("service:{service}"),
                description: "publishes per second of one service".to_owned(),
                ..Default::default()
            }],
        },
    )
}

#[cfg(test)]
mod tests;
