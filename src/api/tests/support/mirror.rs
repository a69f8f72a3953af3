//! Requests as the bodies of the HTTP mirror.

use serde_json::{Map, Value, json};

use crate::proto::v1;
use crate::proto::v1::payload::Content;
use crate::proto::v1::revoke_request::{Scope, Subject};
use crate::proto::v1::target::Target;

/// A body from its fields, without those that say nothing.
fn body(fields: Vec<(&str, Value)>) -> String {
    let said = |value: &Value| !matches!(value, Value::Null) && value != "" && value != &json!([]);
    let fields = fields.into_iter().filter(|(_, value)| said(value));
    let fields: Map<String, Value> = fields.map(|(name, value)| (name.to_owned(), value)).collect();
    Value::Object(fields).to_string()
}

/// A publish as the mirror takes it.
pub(in crate::api::tests) fn publish_body(event: &v1::PublishRequest) -> String {
    let targets = event.targets.iter().map(|target| match &target.target {
        Some(Target::Room(room)) => json!({"room": room}),
        Some(Target::UserId(user)) => json!({"userId": user}),
        other => panic!("{other:?}"),
    });
    let Some(Content::Json(payload)) = event.payload.clone().unwrap().content else {
        panic!("no JSON");
    };
    let head = event.expected_head.as_ref();
    body(vec![
        ("tenant", json!(event.tenant)),
        ("targets", targets.collect()),
        ("eventName", json!(event.event_name)),
        ("payload", serde_json::from_str(&payload).unwrap()),
        ("idempotencyKey", json!(event.idempotency_key)),
        (
            "expectedHead",
            head.map(|head| json!({"epoch": head.epoch, "offset": head.offset}))
                .into(),
        ),
        ("excludeConnectionIds", json!(event.exclude_connection_ids)),
        ("excludeUserIds", json!(event.exclude_user_ids)),
        ("actorUserId", json!(event.actor_user_id)),
        ("requiredFeatures", json!(event.required_features)),
    ])
}

/// A revocation as the mirror takes it.
pub(in crate::api::tests) fn revoke_body(revoke: &v1::RevokeRequest) -> String {
    let subject = match revoke.subject.clone().unwrap() {
        Subject::UserId(user) => ("userId", json!(user)),
        Subject::ConnectionId(connection) => ("connectionId", json!(connection)),
        Subject::TokenId(token) => ("tokenId", json!(token)),
    };
    let scope = match revoke.scope.clone().unwrap() {
        Scope::Room(room) => ("room", json!(room)),
        Scope::RoomPattern(glob) => ("roomPattern", json!(glob)),
        Scope::Everything(_) => ("everything", json!({})),
    };
    body(vec![
        ("tenant", json!(revoke.tenant)),
        subject,
        scope,
        ("ttl", json!(format!("{}s", revoke.ttl.unwrap().seconds))),
        ("reason", json!(revoke.reason)),
        ("message", json!(revoke.message)),
        ("requiredFeatures", json!(revoke.required_features)),
    ])
}
