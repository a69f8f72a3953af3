//! Revoking access and restoring it, as JSON over HTTP.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use serde::Serialize;

use super::body;
use super::object::{self, text};
use super::query::Query;
use crate::api::ApiServices;
use crate::api::credentials::Caller;
use crate::api::status::Refusal;
use crate::json::Fields;
use crate::proto::v1;

/// Reads the body of `POST /v1/revoke`, with times and durations in the proto3 JSON mapping. The fields' contents are
/// checked by the shared method.
fn read_revoke(from: &mut Fields<'_>) -> Result<v1::RevokeRequest, Refusal> {
    use v1::revoke_request::{Scope, Subject};
    let subjects = [
        from.text("userId").map(Subject::UserId),
        from.text("connectionId").map(Subject::ConnectionId),
        from.text("tokenId").map(Subject::TokenId),
    ];
    let (room, room_pattern) = (from.text("room"), from.text("roomPattern"));
    let everything = object::empty(from, "everything");
    let (issued_before, ttl) = (from.text("issuedBefore"), from.text("ttl"));
    let request = v1::RevokeRequest {
        tenant: text(from, "tenant"),
        reason: text(from, "reason"),
        message: text(from, "message"),
        required_features: from.texts("requiredFeatures"),
        ..v1::RevokeRequest::default()
    };
    let scopes = [
        room.map(Scope::Room),
        room_pattern.map(Scope::RoomPattern),
        everything?.map(|()| Scope::Everything(v1::EverythingScope {})),
    ];
    Ok(v1::RevokeRequest {
        subject: at_most_one("subject", subjects)?,
        issued_before: read("issuedBefore", issued_before)?,
        scope: at_most_one("scope", scopes)?,
        ttl: read("ttl", ttl)?,
        ..request
    })
}

fn at_most_one<T>(field: &str, given: [Option<T>; 3]) -> Result<Option<T>, Refusal> {
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (_, Some(_)) => Err(Refusal::field(field, "is given more than once")),
        (one, None) => Ok(one),
    }
}

fn read<T: std::str::FromStr>(field: &str, text: Option<String>) -> Result<Option<T>, Refusal> {
    let parse = |text: String| text.parse().map_err(|_| Refusal::field(field, "cannot be read"));
    text.map(parse).transpose()
}

/// The reply to a revocation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revoked {
    revocation_id: String,
    confirmed_node_ids: Vec<String>,
    unconfirmed_node_ids: Vec<String>,
    removed_membership_count: u32,
}

pub(super) async fn revoke(
    State(shared): State<Arc<ApiServices>>,
    Extension(caller): Extension<Arc<Caller>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Revoked>, Refusal> {
    let request = body(bytes, read_revoke)?;
    let response = shared.revoke(&caller, request).await?;
    Ok(Json(Revoked {
        revocation_id: response.revocation_id,
        confirmed_node_ids: response.confirmed_node_ids,
        unconfirmed_node_ids: response.unconfirmed_node_ids,
        removed_membership_count: response.removed_membership_count,
    }))
}

/// The reply to a restoration.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restored {
    confirmed_node_ids: Vec<String>,
    unconfirmed_node_ids: Vec<String>,
}

pub(super) async fn restore(
    State(shared): State<Arc<ApiServices>>,
    Extension(caller): Extension<Arc<Caller>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Restored>, Refusal> {
    let request = body(bytes, |from| {
        Ok(v1::RestoreRequest {
            tenant: text(from, "tenant"),
            revocation_id: text(from, "revocationId"),
            required_features: from.texts("requiredFeatures"),
        })
    })?;
    let response = shared.restore(&caller, request).await?;
    Ok(Json(Restored {
        confirmed_node_ids: response.confirmed_node_ids,
        unconfirmed_node_ids: response.unconfirmed_node_ids,
    }))
}

/// A page of revocations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revocations {
    revocations: Vec<Revocation>,
    next_page_token: String,
}

#[derive(Serialize)]
struct Everything {}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Revocation {
    revocation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everything: Option<Everything>,
    create_time: Option<String>,
    expire_time: Option<String>,
    reason: String,
    message: String,
}

pub(super) async fn revocations(
    State(shared): State<Arc<ApiServices>>,
    Extension(caller): Extension<Arc<Caller>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Revocations>, Refusal> {
    let request = Query::read(query.as_deref(), |query| v1::ListRevocationsRequest {
        tenant: query.text("tenant"),
        user_id: query.text("userId"),
        page_size: query.integer("pageSize"),
        page_token: query.text("pageToken"),
    })?;
    let response = shared.list_revocations(&caller, request).await?;
    Ok(Json(Revocations {
        revocations: response.revocations.into_iter().map(Revocation::from).collect(),
        next_page_token: response.next_page_token,
    }))
}

impl From<v1::Revocation> for Revocation {
    fn from(revocation: v1::Revocation) -> Self {
        use v1::revocation::{Scope, Subject};
        let mut json = Self {
            revocation_id: revocation.revocation_id,
            issued_before: revocation.issued_before.map(|time| time.to_string()),
            create_time: revocation.create_time.map(|time| time.to_string()),
            expire_time: revocation.expire_time.map(|time| time.to_string()),
            reason: revocation.reason,
            message: revocation.message,
            ..Self::default()
        };
        match revocation.subject {
            Some(Subject::UserId(user)) => json.user_id = Some(user),
            Some(Subject::ConnectionId(connection)) => json.connection_id = Some(connection),
            Some(Subject::TokenId(token)) => json.token_id = Some(token),
            None => {}
        }
        match revocation.scope {
            Some(Scope::Room(room)) => json.room = Some(room),
            Some(Scope::RoomPattern(glob)) => json.room_pattern = Some(glob),
            Some(Scope::Everything(_)) => json.everything = Some(Everything {}),
            None => {}
        }
        json
    }
}
