//! The formats in NATS: events in their stored form, sequences and times in headers.

use async_nats::HeaderMap;
use async_nats::header::{IntoHeaderName, NATS_TIME_STAMP};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message as _;

use crate::event::{Event, EventId, EventName, Except, Payload, Publish, Retention, Timestamp};
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::nats::trace;
use crate::proto::node_v1::{EphemeralEvent, LastValue, Retention as WireRetention, StoredEvent, stored_event};
use crate::room::Room;
use crate::trace::TRACEPARENT;

/// Returns the stored form of an event.
pub(super) fn stored(publish: &Publish) -> StoredEvent {
    let payload = match &publish.payload {
        Payload::Json(json) => stored_event::Payload::Json(json.bytes().clone()),
        Payload::Binary(bytes) => stored_event::Payload::Binary(bytes.clone()),
    };
    let retention = match publish.retention {
        Retention::Ephemeral => WireRetention::Ephemeral,
        Retention::Reliable => WireRetention::Reliable,
        Retention::LastValue => WireRetention::LastValue,
    };
    StoredEvent {
        id: Bytes::copy_from_slice(&publish.id.bits().to_be_bytes()),
        name: publish.name.as_str().to_owned(),
        retention: retention.into(),
        payload: Some(payload),
        actor: publish
            .actor
            .as_ref()
            .map_or_else(String::new, |actor| actor.as_str().to_owned()),
        except_connections: publish
            .except
            .connections()
            .iter()
            .map(|connection| Bytes::copy_from_slice(&connection.bits().to_be_bytes()))
            .collect(),
        except_users: publish
            .except
            .users()
            .iter()
            .map(|user| user.as_str().to_owned())
            .collect(),
        fingerprint: fingerprint(publish),
    }
}

/// Decodes a stored event, without its link; `None` when no node has written it.
pub(super) fn event(room: &Room, bytes: Bytes, time: Timestamp) -> Option<Event> {
    restore(room, StoredEvent::decode(bytes).ok()?, time)
}

/// Returns an ephemeral event as it is sent over the sender's connection of this number.
pub(super) fn ephemeral(publish: &Publish, sender: u64, connection: u64) -> EphemeralEvent {
    EphemeralEvent {
        event: Some(stored(publish)),
        sender,
        connection,
    }
}

/// Decodes an ephemeral event received at this time, with its sender and the connection it was sent over; `None` when
/// no node has sent it.
pub(super) fn passed_on(room: &Room, bytes: Bytes, time: Timestamp) -> Option<(Event, u64, u64)> {
    let sent = EphemeralEvent::decode(bytes).ok()?;
    let event = restore(room, sent.event?, time)?;
    (event.retention == Retention::Ephemeral).then_some((event, sent.sender, sent.connection))
}

/// Decodes a stored last value, without its link.
pub(super) fn last_value(room: &Room, stored: LastValue) -> Option<Event> {
    restore(room, stored.event?, Timestamp(stored.time_ms))
}

/// Restores an event from its stored form.
pub(super) fn restore(room: &Room, stored: StoredEvent, time: Timestamp) -> Option<Event> {
    let retention = match stored.retention() {
        WireRetention::Unspecified => return None,
        WireRetention::Ephemeral => Retention::Ephemeral,
        WireRetention::Reliable => Retention::Reliable,
        WireRetention::LastValue => Retention::LastValue,
    };
    let payload = match stored.payload? {
        stored_event::Payload::Json(text) => Payload::Json(Json::parse(text).ok()?),
        stored_event::Payload::Binary(bytes) => Payload::Binary(bytes),
    };
    let actor = match stored.actor.as_str() {
        "" => None,
        actor => Some(UserId::parse(actor).ok()?),
    };
    Some(Event {
        room: room.clone(),
        id: EventId::from_bits(bits(&stored.id)?),
        name: EventName::parse(&stored.name).ok()?,
        retention,
        link: None,
        time,
        actor,
        except: except(&stored.except_connections, &stored.except_users)?,
        payload,
    })
}

fn except(connections: &[Bytes], users: &[String]) -> Option<Except> {
    if connections.is_empty() && users.is_empty() {
        return Some(Except::NOBODY);
    }
    let connections = connections.iter().map(|bytes| ConnectionId::from_bits(bits(bytes)?));
    let users = users.iter().map(|user| UserId::parse(user).ok());
    Some(Except::new(
        connections.collect::<Option<_>>()?,
        users.collect::<Option<_>>()?,
    ))
}

fn bits(bytes: &[u8]) -> Option<u128> {
    Some(u128::from_be_bytes(bytes.try_into().ok()?))
}

/// Fingerprints an event under a key, to distinguish it from another; the same on every node. 0 without a key.
fn fingerprint(publish: &Publish) -> u64 {
    if publish.key.is_none() {
        return 0;
    }
    let (kind, payload) = match &publish.payload {
        Payload::Json(json) => (0_u8, json.bytes()),
        Payload::Binary(bytes) => (1, bytes),
    };
    let retention = match publish.retention {
        Retention::Ephemeral => 0_u8,
        Retention::Reliable => 1,
        Retention::LastValue => 2,
    };
    let actor = publish.actor.as_ref().map_or("", UserId::as_str);
    let digest = hash(&[
        &[kind, retention],
        publish.name.as_str().as_bytes(),
        b"\0",
        actor.as_bytes(),
        b"\0",
        payload,
    ]);
    let [first, ..] = digest.as_chunks::<8>().0 else {
        unreachable!("a digest has 32 bytes")
    };
    u64::from_be_bytes(*first).max(1)
}

/// Returns the identifier by which the stream deduplicates: that of the publisher's key in its room, or a random one.
/// The window is the stream's, so the room is part of it. It is hashed, so that every key has one size and no special
/// characters.
pub(super) fn message_id(publish: &Publish) -> String {
    match &publish.key {
        Some(key) => URL_SAFE_NO_PAD.encode(&hash(&[publish.room.key(), b"\0", key.scoped().as_bytes()])[..24]),
        None => URL_SAFE_NO_PAD.encode(rand::random::<u128>().to_be_bytes()),
    }
}

fn hash(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// Returns the publisher's trace; empty for none.
pub(super) fn traceparent(headers: Option<&HeaderMap>) -> String {
    let found = headers.and_then(|headers| headers.get(TRACEPARENT));
    found.map_or_else(String::new, |value| value.as_str().to_owned())
}

/// Adds the current trace, if there is one.
pub(super) fn add_trace(headers: &mut HeaderMap) {
    let traceparent = trace::current();
    if !traceparent.is_empty() {
        headers.insert(TRACEPARENT, traceparent);
    }
}

/// Reads a number from a header.
pub(super) fn number(headers: &HeaderMap, name: impl IntoHeaderName) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

/// Reads the time that the stream stamped.
pub(super) fn time(headers: &HeaderMap) -> Option<Timestamp> {
    let time = async_nats::datetime::parse_rfc3339(headers.get(NATS_TIME_STAMP)?.as_str()).ok()?;
    timestamp(time)
}

/// Converts a server's time.
pub(super) fn timestamp(time: async_nats::datetime::DateTime) -> Option<Timestamp> {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000)
        .ok()
        .map(Timestamp)
}
