//! The JSON of the HTTP mirror's replies, converted from the messages of gRPC.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::status::Refusal;
use crate::proto::v1;

#[derive(Serialize)]
struct Position {
    epoch: String,
    offset: u64,
}

/// The reply to a publish.
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
    /// The text that the client set; it was validated then.
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

/// Numbers of a room.
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

/// Returns the code's name in google/rpc/code.proto.
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
