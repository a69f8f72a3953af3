//! A refusal on the wire: `google.rpc.Status` with its details, for a call and for one item of a batch or stream.

use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::Status;
use tonic_types::pb;

use super::{DOMAIN, Refusal};
use crate::api::convert;
use crate::cluster::Delivered;
use crate::proto::v1;

impl Refusal {
    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::ScopeMissing(scope) => vec![("scope", scope.as_str().into())],
            Self::Unimplemented(feature) => vec![("feature", (*feature).into())],
            Self::KeyReused { room, stored } => {
                vec![("room", room.name().into()), ("rooms_stored", stored.to_string())]
            }
            Self::NoAnswer { delivered } => vec![("delivered", delivered.as_str().into())],
            Self::AnswerInvalid | Self::ConnectionLost => vec![("delivered", Delivered::Yes.as_str().into())],
            Self::UnsupportedFeature(feature) => vec![("feature", feature.clone())],
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
            Self::VersionConflict { room, head } => vec![ours(
                "VersionConflict",
                &v1::VersionConflict {
                    room: room.name().to_owned(),
                    head: Some(convert::position(*head)),
                },
            )],
            Self::PositionNotRetained { room, oldest, head } => vec![ours(
                "PositionNotRetained",
                &v1::PositionNotRetained {
                    room: room.name().to_owned(),
                    oldest: oldest.map(convert::position),
                    head: Some(convert::position(*head)),
                },
            )],
            Self::SlowSubscriber { cursor } => vec![ours(
                "SubscriptionEnded",
                &v1::SubscriptionEnded { cursor: cursor.clone() },
            )],
            Self::RateLimited { service, retry_after } => vec![retry(*retry_after), quota(service)],
            _ => self.retry_after().map(retry).into_iter().collect(),
        }
    }

    /// Returns the details, `ErrorInfo` first.
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

    /// Returns the refusal of one item of a batch or stream.
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
