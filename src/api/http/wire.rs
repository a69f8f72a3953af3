//! The JSON of the HTTP mirror, and its conversions from and to the messages of gRPC.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::status::{Invalid, Refusal};
use crate::binary;
use crate::proto::v1;
use crate::proto::v1::target::Target as WireTarget;

/// The body of `POST /v1/publish`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Publish {
    tenant: String,
    targets: Vec<Target>,
    event_name: String,
    /// As it stands, so that numbers keep their digits.
    payload: Option<Box<RawValue>>,
    #[serde(rename = "payloadBase64")]
    payload_base64: Option<String>,
    #[serde(default)]
    retention: Retention,
    #[serde(default)]
    idempotency_key: String,
    expected_head: Option<Position>,
    #[serde(default)]
    exclude_connection_ids: Vec<String>,
    #[serde(default)]
    exclude_user_ids: Vec<String>,
    #[serde(default)]
    actor_user_id: String,
    #[serde(default)]
    required_features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Target {
    Room(String),
    UserId(String),
    Everyone(Everyone),
    ConnectionId(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Everyone {}

#[derive(Deserialize, Default)]
enum Retention {
    #[serde(rename = "ephemeral", alias = "RETENTION_EPHEMERAL")]
    Ephemeral,
    #[default]
    #[serde(rename = "reliable", alias = "RETENTION_RELIABLE")]
    Reliable,
    #[serde(rename = "last_value", alias = "RETENTION_LAST_VALUE")]
    LastValue,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    #[serde(default)]
    epoch: String,
    offset: u64,
}

impl Publish {
    /// The message it stands for; what it holds is checked where that is.
    pub(super) fn into_proto(self) -> Result<v1::PublishRequest, Refusal> {
        Ok(v1::PublishRequest {
            payload: payload(self.payload, self.payload_base64)?,
            tenant: self.tenant,
            targets: self.targets.into_iter().map(Target::into_proto).collect(),
            event_name: self.event_name,
            retention: self.retention.into_proto().into(),
            idempotency_key: self.idempotency_key,
            expected_head: self.expected_head.map(|position| v1::Position {
                epoch: position.epoch,
                offset: position.offset,
            }),
            exclude_connection_ids: self.exclude_connection_ids,
            exclude_user_ids: self.exclude_user_ids,
            actor_user_id: self.actor_user_id,
            required_features: self.required_features,
        })
    }
}

fn payload(json: Option<Box<RawValue>>, base64: Option<String>) -> Result<Option<v1::Payload>, Refusal> {
    use v1::payload::Content;
    let content = match (json, base64) {
        (Some(json), None) => Content::Json(json.get().to_owned()),
        (None, Some(text)) => {
            let bytes = binary::decode(&text);
            Content::Binary(bytes.map_err(|error| Refusal::invalid(Invalid::Payload, "payloadBase64", error))?)
        }
        (Some(_), Some(_)) => {
            let why = "stands beside payloadBase64";
            return Err(Refusal::invalid(Invalid::Payload, "payload", why));
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(v1::Payload { content: Some(content) }))
}

impl Target {
    fn into_proto(self) -> v1::Target {
        let target = match self {
            Self::Room(room) => WireTarget::Room(room),
            Self::UserId(user) => WireTarget::UserId(user),
            Self::Everyone(Everyone {}) => WireTarget::Everyone(v1::TenantTarget {}),
            Self::ConnectionId(connection) => WireTarget::ConnectionId(connection),
        };
        v1::Target { target: Some(target) }
    }
}

impl Retention {
    const fn into_proto(self) -> v1::Retention {
        match self {
            Self::Ephemeral => v1::Retention::Ephemeral,
            Self::Reliable => v1::Retention::Reliable,
            Self::LastValue => v1::Retention::LastValue,
        }
    }
}

/// The answer to a publish.
#[derive(Serialize)]
pub(super) struct Published {
    results: Vec<PublishedTo>,
}

#[derive(Serialize)]
struct PublishedTo {
    room: String,
    position: Option<Position>,
    duplicate: bool,
    /// Absent if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<u32>,
}

impl From<v1::PublishResponse> for Published {
    fn from(response: v1::PublishResponse) -> Self {
        let results = response.results.into_iter().map(|result| PublishedTo {
            room: result.room,
            position: result.position.map(Position::from),
            duplicate: result.duplicate,
            reached: result.reached,
        });
        Self {
            results: results.collect(),
        }
    }
}

impl From<v1::Position> for Position {
    fn from(position: v1::Position) -> Self {
        Self {
            epoch: position.epoch,
            offset: position.offset,
        }
    }
}

/// The query of a page of members.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MembersPage {
    #[serde(default)]
    pub(super) tenant: String,
    #[serde(default, alias = "page_size")]
    pub(super) page_size: i32,
    #[serde(default, alias = "page_token")]
    pub(super) page_token: String,
    #[serde(default, alias = "counts_only")]
    pub(super) counts_only: bool,
}

/// The query of whatever needs a tenant only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InTenant {
    #[serde(default)]
    pub(super) tenant: String,
}

/// A page of members.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Roster {
    members: Vec<Member>,
    next_page_token: String,
    member_count: u32,
    connection_count: u32,
    counts_only: bool,
    partial: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    user_id: String,
    connection_count: u32,
    /// As the client set it; it was checked then.
    state: Option<Box<RawValue>>,
    /// Milliseconds since the Unix epoch.
    join_time_ms: i64,
}

impl From<v1::ListMembersResponse> for Roster {
    fn from(response: v1::ListMembersResponse) -> Self {
        let members = response.members.into_iter().map(|member| Member {
            user_id: member.user_id,
            connection_count: member.connection_count,
            state: RawValue::from_string(member.state_json).ok(),
            join_time_ms: member
                .join_time
                .map_or(0, |time| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000),
        });
        Self {
            members: members.collect(),
            next_page_token: response.next_page_token,
            member_count: response.member_count,
            connection_count: response.connection_count,
            counts_only: response.counts_only,
            partial: response.partial,
        }
    }
}

/// A room in figures.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    member_count: u32,
    connection_count: u32,
    head: Option<Position>,
    history_count: u64,
    history_bytes: u64,
    partial: bool,
}

impl From<v1::GetRoomStatsResponse> for Stats {
    fn from(response: v1::GetRoomStatsResponse) -> Self {
        Self {
            member_count: response.member_count,
            connection_count: response.connection_count,
            head: response.head.map(Position::from),
            history_count: response.history_count,
            history_bytes: response.history_bytes,
            partial: response.partial,
        }
    }
}

/// A refusal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Error {
    code: &'static str,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The room's head, in a version conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<Position>,
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Self {
        let field = match refusal {
            Refusal::Invalid { field, .. } if !field.is_empty() => Some(field.clone()),
            _ => None,
        };
        let head = match refusal {
            Refusal::VersionConflict { head, .. } => Some(crate::api::convert::position(*head).into()),
            _ => None,
        };
        Self {
            code: name(refusal.code()),
            reason: refusal.reason(),
            message: refusal.message(),
            field,
            head,
        }
    }
}

/// The code as google/rpc/code.proto writes it.
const fn name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
