//! The body of `POST /v1/publish`.

use super::object::{self, text};
use crate::api::status::{Invalid, Refusal};
use crate::binary;
use crate::json::Fields;
use crate::proto::v1;
use crate::proto::v1::target::Target;

/// Reads the message of the body. The fields' contents are checked by the shared method.
pub(super) fn read(from: &mut Fields<'_>) -> Result<v1::PublishRequest, Refusal> {
    // All are taken before the first error is returned: every field left then is unknown.
    let (payload, targets) = (payload(from), from.list("targets"));
    let (retention, expected_head) = (retention(from), object::optional(from, "expectedHead", position));
    let request = v1::PublishRequest {
        tenant: text(from, "tenant"),
        event_name: text(from, "eventName"),
        idempotency_key: text(from, "idempotencyKey"),
        exclude_connection_ids: from.texts("excludeConnectionIds"),
        exclude_user_ids: from.texts("excludeUserIds"),
        actor_user_id: text(from, "actorUserId"),
        required_features: from.texts("requiredFeatures"),
        ..v1::PublishRequest::default()
    };
    let targets = targets.into_iter().enumerate();
    let targets = targets.map(|(index, element)| object::read_in(&format!("targets[{index}]"), element, target));
    Ok(v1::PublishRequest {
        targets: targets.collect::<Result<_, _>>()?,
        payload: payload?,
        retention: retention?.into(),
        expected_head: expected_head?,
        ..request
    })
}

/// Reads `payload` verbatim, so that numbers keep their digits and `null` is a value like any other; or `payloadBase64`.
pub(super) fn payload(from: &mut Fields<'_>) -> Result<Option<v1::Payload>, Refusal> {
    use v1::payload::Content;
    let content = match (from.value("payload"), from.text("payloadBase64")) {
        (Some(json), None) => Content::Json(json.to_owned()),
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

/// Reads one target. An empty one is kept, and refused later together with the other invalid targets.
fn target(from: &mut Fields<'_>) -> Result<v1::Target, Refusal> {
    let everyone = object::empty(from, "everyone");
    let given = [
        from.text("room").map(Target::Room),
        from.text("userId").map(Target::UserId),
        from.text("connectionId").map(Target::ConnectionId),
        everyone?.map(|()| Target::Everyone(v1::TenantTarget {})),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (_, Some(_)) => Err(Refusal::invalid(Invalid::Target, "", "names more than one target")),
        (target, None) => Ok(v1::Target { target }),
    }
}

fn position(from: &mut Fields<'_>) -> Result<v1::Position, Refusal> {
    let (epoch, offset) = (text(from, "epoch"), from.integer("offset"));
    // No default: zero, which the mapping would put in its place, expects an empty room.
    let offset = offset.ok_or_else(|| Refusal::field("offset", "is required"))?;
    Ok(v1::Position { epoch, offset })
}

fn retention(from: &mut Fields<'_>) -> Result<v1::Retention, Refusal> {
    match from.text("retention").as_deref() {
        None | Some("reliable" | "RETENTION_RELIABLE") => Ok(v1::Retention::Reliable),
        Some("ephemeral" | "RETENTION_EPHEMERAL") => Ok(v1::Retention::Ephemeral),
        Some("last_value" | "RETENTION_LAST_VALUE") => Ok(v1::Retention::LastValue),
        Some(_) => Err(Refusal::field(
            "retention",
            "is none of ephemeral, reliable, last_value",
        )),
    }
}
