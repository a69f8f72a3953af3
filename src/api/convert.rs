//! Conversion between the wire types of `roomcast.v1` and the vocabulary. Arguments are parsed here, once, with the
//! field's path in every refusal.

use bytes::Bytes;
use prost_types::Timestamp as WireTime;

use super::status::{Invalid, Refusal};
use crate::event::{Event, Payload, Retention, Timestamp};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::notice::Notice;
use crate::position::{Epoch, Offset, Position};
use crate::proto::v1;
use crate::room::{Room, Tenant};

/// The largest offset a JSON reader keeps exact.
const OFFSET_MAX: u64 = (1 << 53) - 1;

/// The most characters of an epoch that are parsed. No bus writes as many.
const EPOCH_CHARS_MAX: usize = 64;

/// The most features one call may require: more than there will be, and few enough to check on each call.
const REQUIRED_FEATURES_MAX: usize = 32;

/// The most characters of an unknown feature's name that are echoed.
const FEATURE_CHARS_MAX: usize = 64;

/// Parses a tenant. An empty one is refused, never guessed.
pub(super) fn tenant(text: &str) -> Result<Tenant, Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(Invalid::Tenant, "tenant", "is required"));
    }
    Tenant::parse(text).map_err(|error| Refusal::invalid(Invalid::Tenant, "tenant", error))
}

/// Parses the room of a request.
pub(super) fn room(tenant: &Tenant, field: &str, name: &str) -> Result<Room, Refusal> {
    Room::parse(tenant, name).map_err(|error| Refusal::invalid(Invalid::Room, field, error))
}

/// Parses a user id.
pub(super) fn user(field: &str, text: &str) -> Result<UserId, Refusal> {
    UserId::parse(text).map_err(|error| Refusal::field(field, error))
}

/// Parses a connection id.
pub(super) fn connection(field: &str, text: &str) -> Result<ConnectionId, Refusal> {
    text.parse().map_err(|error| Refusal::field(field, error))
}

/// Parses a notice to a client.
pub(super) fn notice(reason: &str, message: &str) -> Result<Notice, Refusal> {
    Notice::parse(reason, message).map_err(|error| Refusal::field(error.field(), error))
}

/// Refuses a call that requires a feature, by its name: no feature exists yet. A node must not skip a restriction that it
/// does not know.
pub(super) fn required(features: &[String]) -> Result<(), Refusal> {
    if features.len() > REQUIRED_FEATURES_MAX {
        let why = format_args!("has more than {REQUIRED_FEATURES_MAX} entries");
        return Err(Refusal::field("required_features", why));
    }
    match features.first() {
        None => Ok(()),
        Some(unknown) => Err(Refusal::UnsupportedFeature(
            unknown.chars().take(FEATURE_CHARS_MAX).collect(),
        )),
    }
}

/// Parses a payload of at most `bytes_max` bytes.
pub(super) fn payload_in(payload: Option<v1::Payload>, bytes_max: usize) -> Result<Payload, Refusal> {
    use v1::payload::Content;
    let too_large = |len: usize| {
        (len > bytes_max).then(|| {
            let why = format_args!("has {len} bytes, the limit is {bytes_max}").to_string();
            Refusal::invalid(Invalid::PayloadTooLarge, "payload", why)
        })
    };
    match payload.and_then(|payload| payload.content) {
        None => Err(Refusal::invalid(Invalid::Payload, "payload", "is required")),
        Some(Content::Json(text)) => match too_large(text.len()) {
            Some(refusal) => Err(refusal),
            None => Json::parse(text)
                .map(Payload::Json)
                .map_err(|error| Refusal::invalid(Invalid::Payload, "payload.json", error)),
        },
        // Copied: a slice would keep the whole receive buffer alive for as long as the history does.
        Some(Content::Binary(bytes)) => {
            too_large(bytes.len()).map_or_else(|| Ok(Payload::Binary(Bytes::copy_from_slice(&bytes))), Err)
        }
    }
}

/// Parses a retention. Unspecified means reliable.
pub(super) fn retention_in(retention: i32) -> Result<Retention, Refusal> {
    match v1::Retention::try_from(retention) {
        Ok(v1::Retention::Unspecified | v1::Retention::Reliable) => Ok(Retention::Reliable),
        Ok(v1::Retention::Ephemeral) => Ok(Retention::Ephemeral),
        Ok(v1::Retention::LastValue) => Ok(Retention::LastValue),
        Err(_) => Err(Refusal::field("retention", "is none of the retentions")),
    }
}

/// Parses an offset.
pub(super) fn offset(field: &str, offset: u64) -> Result<Offset, Refusal> {
    if offset > OFFSET_MAX {
        return Err(Refusal::field(field, "is 2^53 or larger"));
    }
    Ok(Offset(offset))
}

/// The epoch that a caller claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimedEpoch {
    /// None is claimed.
    Any,
    /// This epoch.
    Of(Epoch),
    /// An epoch that no bus has written.
    Unknown,
}

/// A position as claimed by a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// The claimed epoch.
    pub(super) epoch: ClaimedEpoch,
    /// The offset.
    pub(super) offset: Offset,
}

impl Claim {
    /// Parses the position in `field`.
    pub(super) fn parse(field: &str, position: &v1::Position) -> Result<Self, Refusal> {
        if position.epoch.chars().nth(EPOCH_CHARS_MAX).is_some() {
            let why = format_args!("is longer than {EPOCH_CHARS_MAX} characters");
            return Err(Refusal::field(format!("{field}.epoch"), why));
        }
        let epoch = match position.epoch.parse() {
            _ if position.epoch.is_empty() => ClaimedEpoch::Any,
            Ok(epoch) => ClaimedEpoch::Of(epoch),
            Err(_) => ClaimedEpoch::Unknown,
        };
        let offset = offset(&format!("{field}.offset"), position.offset)?;
        Ok(Self { epoch, offset })
    }

    /// Reports whether the room is in the claimed epoch.
    pub(super) fn same_epoch(&self, head: Position) -> bool {
        match self.epoch {
            ClaimedEpoch::Any => true,
            ClaimedEpoch::Of(epoch) => epoch == head.epoch,
            ClaimedEpoch::Unknown => false,
        }
    }
}

/// Writes a position.
pub(super) fn position(position: Position) -> v1::Position {
    v1::Position {
        epoch: position.epoch.to_string(),
        offset: position.offset.0,
    }
}

/// Writes a time.
pub(super) fn time(time: Timestamp) -> WireTime {
    WireTime {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.0 % 1000).unwrap_or_default() * 1_000_000,
    }
}

/// Writes an event.
pub(super) fn event(event: &Event) -> v1::Event {
    v1::Event {
        id: event.id.to_string(),
        room: event.room.name().to_owned(),
        event_name: event.name.as_str().to_owned(),
        position: event.link.map(|link| position(link.position)),
        previous_offset: event.link.map_or(0, |link| link.prev.0),
        publish_time: Some(time(event.time)),
        actor_user_id: event
            .actor
            .as_ref()
            .map(|user| user.as_str().to_owned())
            .unwrap_or_default(),
        retention: retention(event.retention).into(),
        payload: Some(payload(&event.payload)),
    }
}

const fn retention(retention: Retention) -> v1::Retention {
    match retention {
        Retention::Ephemeral => v1::Retention::Ephemeral,
        Retention::Reliable => v1::Retention::Reliable,
        Retention::LastValue => v1::Retention::LastValue,
    }
}

/// Writes a payload.
pub(super) fn payload(payload: &Payload) -> v1::Payload {
    use v1::payload::Content;
    let content = match payload {
        Payload::Json(json) => Content::Json(json.as_str().to_owned()),
        Payload::Binary(bytes) => Content::Binary(bytes.clone()),
    };
    v1::Payload { content: Some(content) }
}
