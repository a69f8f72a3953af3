//! Withdrawing access and giving it back, as JSON over HTTP.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::{bad_query, body};
use crate::api::Shared;
use crate::api::credentials::Caller;
use crate::api::status::Refusal;
use crate::proto::v1;

/// The body of `POST /v1/revoke`: times and durations as the proto3 JSON mapping writes them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Revoke {
    #[serde(default)]
    tenant: String,
    user_id: Option<String>,
    connection_id: Option<String>,
    token_id: Option<String>,
    issued_before: Option<String>,
    room: Option<String>,
    room_pattern: Option<String>,
    everything: Option<Everything>,
    ttl: Option<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    required_features: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Everything {}

impl Revoke {
    /// The message it stands for; what it holds is checked where that is.
    fn into_proto(self) -> Result<v1::RevokeRequest, Refusal> {
        use v1::revoke_request::{Scope, Subject};
        let subjects = [
            self.user_id.map(Subject::UserId),
            self.connection_id.map(Subject::ConnectionId),
            self.token_id.map(Subject::TokenId),
        ];
        let scopes = [
            self.room.map(Scope::Room),
            self.room_pattern.map(Scope::RoomPattern),
            self.everything
                .map(|Everything {}| Scope::Everything(v1::EverythingScope {})),
        ];
        Ok(v1::RevokeRequest {
            tenant: self.tenant,
            subject: at_most_one("subject", subjects)?,
            issued_before: read("issuedBefore", self.issued_before)?,
            scope: at_most_one("scope", scopes)?,
            ttl: read("ttl", self.ttl)?,
            reason: self.reason,
            message: self.message,
            required_features: self.required_features,
        })
    }
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

/// The answer to a revocation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revoked {
    revocation_id: String,
    confirmed_node_ids: Vec<String>,
    unconfirmed_node_ids: Vec<String>,
    removed_membership_count: u32,
}

pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Arc<Caller>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Revoked>, Refusal> {
    let request: Revoke = body(bytes)?;
    let response = shared.revoke(&caller, request.into_proto()?).await?;
    Ok(Json(Revoked {
        revocation_id: response.revocation_id,
        confirmed_node_ids: response.confirmed_node_ids,
        unconfirmed_node_ids: response.unconfirmed_node_ids,
        removed_membership_count: response.removed_membership_count,
    }))
}

/// The body of `POST /v1/restore`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Restore {
    #[serde(default)]
    tenant: String,
    #[serde(default)]
    revocation_id: String,
}

/// The answer to a restoration.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restored {
    confirmed_node_ids: Vec<String>,
    unconfirmed_node_ids: Vec<String>,
}

pub(super) async fn restore(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Arc<Caller>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Restored>, Refusal> {
    let Restore { tenant, revocation_id } = body(bytes)?;
    let request = v1::RestoreRequest { tenant, revocation_id };
    let response = shared.restore(&caller, request).await?;
    Ok(Json(Restored {
        confirmed_node_ids: response.confirmed_node_ids,
        unconfirmed_node_ids: response.unconfirmed_node_ids,
    }))
}

/// The query of a page of revocations.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevocationsPage {
    #[serde(default)]
    tenant: String,
    #[serde(default, alias = "user_id")]
    user_id: String,
    #[serde(default, alias = "page_size")]
    page_size: i32,
    #[serde(default, alias = "page_token")]
    page_token: String,
}

/// A page of revocations.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revocations {
    revocations: Vec<Revocation>,
    next_page_token: String,
}

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
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Arc<Caller>>,
    query: Result<Query<RevocationsPage>, QueryRejection>,
) -> Result<Json<Revocations>, Refusal> {
    let Query(page) = query.map_err(|rejection| bad_query(&rejection))?;
    let request = v1::ListRevocationsRequest {
        tenant: page.tenant,
        user_id: page.user_id,
        page_size: page.page_size,
        page_token: page.page_token,
    };
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
