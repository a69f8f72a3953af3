//! Encodes the server's messages as JSON.

use std::time::Duration;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;

use super::object::{Object, text};
use crate::error::CloseReason;
use crate::event::{Event, EventName, Payload};
use crate::identity::Expiry;
use crate::position::Position;
use crate::presence::{Change, Present, Roster};
use crate::room::Room;
use crate::session::{HistoryPage, Joined, Message, Refusal};
use crate::transport::native::{content, error_code};

/// Size that most messages fit into, in bytes.
pub(in crate::transport) const MESSAGE_BYTES_USUAL: usize = 256;

/// Size of an event's frame without the texts of its publisher.
const EVENT_BYTES_FIXED: usize = 300;

/// Estimates the size of an event's frame; rather too much than too little, which would cost a reallocation.
pub(in crate::transport) fn event_bytes(event: &Event) -> usize {
    let payload = match &event.payload {
        Payload::Json(json) => json.bytes().len(),
        Payload::Binary(bytes) => bytes.len() / 3 * 4 + 4,
    };
    EVENT_BYTES_FIXED + event.room.name().len() + event.name.as_str().len() + payload
}

pub(super) fn event(out: &mut Vec<u8>, event: &Event) {
    Object::write(out, |frame| frame.object("event", |object| event_fields(object, event)));
}

pub(super) fn passed(out: &mut Vec<u8>, event: &Event) {
    Object::write(out, |frame| {
        frame.object("passed", |object| {
            object.text("room", event.room.name());
            link_fields(object, event);
        });
    });
}

pub(super) fn message(out: &mut Vec<u8>, id: u32, message: &Message) {
    Object::write(out, |frame| {
        frame.number("id", id);
        frame.object(name(message), |object| fields(object, message));
    });
}

/// The name of a message's field in its frame.
pub(in crate::transport) const fn name(message: &Message) -> &'static str {
    match message {
        Message::Error(_) => "error",
        Message::Connected { .. } => "connected",
        Message::Joined(_) => "joined",
        Message::Left { .. } => "left",
        Message::Published { .. } => "published",
        Message::Reply(_) => "reply",
        Message::Presence { .. } => "presence",
        Message::StateSet { .. } => "presenceUpdated",
        Message::UserRooms { .. } => "userRooms",
        Message::History(_) => "history",
        Message::Refreshed { .. } => "refreshed",
        Message::Pong { .. } => "pong",
        Message::Answered { .. } => "answered",
        Message::Asked { .. } => "ask",
        Message::RoomJoined { .. } => "roomJoined",
        Message::RoomLeft { .. } => "roomLeft",
        Message::Disconnected { .. } => "disconnected",
        Message::PresenceChanged(_) => "presenceDelta",
        Message::Degraded { .. } => "degraded",
        Message::Resync { .. } => "resync",
        Message::ReconnectAdvice { .. } => "reconnectAdvice",
        Message::Expiring { .. } => "sessionExpiring",
    }
}

/// Writes the fields of a message.
pub(in crate::transport) fn fields(object: &mut Object<'_>, message: &Message) {
    match message {
        Message::Error(refusal) => refusal_fields(object, refusal),
        Message::Connected {
            connection,
            user,
            expiry,
            heartbeat,
            time,
            rooms,
            features,
            server_version,
        } => {
            object.plain("connectionId", connection);
            object.text("userId", user.as_str());
            expiry_field(object, *expiry);
            object.number("heartbeatIntervalMs", content::millis(*heartbeat));
            object.number("serverTimeMs", time.0);
            object.list("rooms", rooms, |out, joined| {
                Object::write(out, |object| joined_fields(object, joined));
            });
            object.list("features", features.iter(), |out, feature| text(out, feature));
            object.text("serverVersion", server_version);
        }
        Message::Joined(joined) => joined_fields(object, joined),
        Message::Left { room } | Message::StateSet { room } => object.text("room", room.name()),
        Message::Published {
            position,
            duplicate,
            reached,
            reply,
        } => {
            position_field(object, position.as_ref());
            object.flag("duplicate", *duplicate);
            if let Some(reached) = reached {
                object.exactly("reached", *reached);
            }
            if let Some(reply) = reply {
                object.object("reply", |object| payload_field(object, reply));
            }
        }
        Message::Reply(payload) => payload_field(object, payload),
        Message::Presence { room, roster } => roster_fields(object, room, roster),
        Message::UserRooms { user, rooms, partial } => {
            object.text("userId", user.as_str());
            object.list("rooms", rooms, |out, room| text(out, room.name()));
            object.flag("partial", *partial);
        }
        Message::History(page) => history_fields(object, page),
        Message::Refreshed { expiry } | Message::Expiring { expiry } => expiry_field(object, *expiry),
        Message::Pong { time } => object.number("serverTimeMs", time.0),
        Message::Answered { accepted } => object.flag("accepted", *accepted),
        Message::Asked { ask, method, payload } => ask_fields(object, *ask, method, payload),
        Message::RoomJoined { joined, change } => {
            object.object("joined", |object| joined_fields(object, joined));
            object.text("cause", content::change_word(*change));
        }
        Message::RoomLeft { room, change, notice } => {
            object.text("room", room.name());
            object.text("cause", content::change_word(*change));
            object.text("reason", notice.reason_or(content::change_word(*change)));
            object.text("message", notice.message());
        }
        Message::Disconnected { reason, notice } => {
            object.number("code", reason.code());
            object.text("reason", notice.reason_or(reason.as_str()));
            object.text("message", notice.message());
        }
        Message::PresenceChanged(change) => change_fields(object, change),
        Message::Degraded { active } => object.flag("active", *active),
        Message::Resync { room, head } => {
            object.text("room", room.name());
            head_field(object, head);
        }
        Message::ReconnectAdvice { delay, jitter } => advice_fields(object, *delay, *jitter),
    }
}

fn ask_fields(object: &mut Object<'_>, ask: u32, method: &EventName, payload: &Payload) {
    object.number("askId", ask);
    object.text("method", method.as_str());
    payload_field(object, payload);
}

fn advice_fields(object: &mut Object<'_>, delay: Duration, jitter: Duration) {
    object.number("delayMs", content::millis(delay));
    object.number("jitterMs", content::millis(jitter));
    object.text("reason", CloseReason::Draining.as_str());
    object.text("message", content::DRAINING);
}

pub(in crate::transport) fn expiry_field(object: &mut Object<'_>, expiry: Expiry) {
    object.number("expiresAtMs", content::expires_at_ms(expiry));
}

pub(in crate::transport) fn refusal_fields(object: &mut Object<'_>, refusal: &Refusal) {
    object.text("code", error_code::word(error_code::kind(refusal.code)));
    object.text("reason", &refusal.reason);
    object.text("message", &refusal.message);
    object.number("retryAfterMs", refusal.retry_after.map_or(0, content::millis));
}

fn joined_fields(object: &mut Object<'_>, joined: &Joined) {
    object.text("room", joined.room.name());
    head_field(object, &joined.head);
    object.flag("recovered", joined.recovered);
    object.number("replayed", joined.replayed);
    if let Some(roster) = &joined.roster {
        object.object("presence", |object| roster_fields(object, &joined.room, roster));
    }
}

fn position_field(object: &mut Object<'_>, position: Option<&Position>) {
    if let Some(position) = position {
        object.object("position", |object| position_fields(object, position));
    }
}

pub(in crate::transport) fn head_field(object: &mut Object<'_>, head: &Position) {
    object.object("head", |object| position_fields(object, head));
}

fn position_fields(object: &mut Object<'_>, position: &Position) {
    object.plain("epoch", position.epoch);
    object.number("offset", position.offset.0);
}

pub(in crate::transport) fn roster_fields(object: &mut Object<'_>, room: &Room, roster: &Roster) {
    object.text("room", room.name());
    object.list("members", roster.members.iter().flatten(), member);
    object.number("memberCount", roster.counts.users);
    object.flag("countsOnly", roster.members.is_none());
    object.flag("partial", roster.partial);
}

fn change_fields(object: &mut Object<'_>, change: &Change) {
    object.text("room", change.room.name());
    object.list("joined", &change.joined, member);
    object.list("leftUserIds", &change.left, |out, user| text(out, user.as_str()));
    object.list("updated", &change.updated, member);
    object.number("memberCount", change.counts.users);
    object.flag("countsOnly", change.counts_only);
    object.list("present", &change.present, member);
}

fn member(out: &mut Vec<u8>, present: &Present) {
    Object::write(out, |object| {
        object.text("userId", present.user.as_str());
        object.number("connectionCount", present.connections);
        if let Some(state) = &present.state {
            object.json("state", state);
        }
    });
}

fn history_fields(object: &mut Object<'_>, page: &HistoryPage) {
    object.text("room", page.room.name());
    object.list("events", &page.events, |out, event| {
        Object::write(out, |object| event_fields(object, event));
    });
    head_field(object, &page.head);
    object.flag("complete", page.complete);
    object.flag("more", page.more);
}

pub(in crate::transport) fn event_fields(object: &mut Object<'_>, event: &Event) {
    object.text("room", event.room.name());
    object.plain("id", event.id);
    object.text("eventName", event.name.as_str());
    link_fields(object, event);
    object.number("timeMs", event.time.0);
    if let Some(actor) = &event.actor {
        object.text("actorUserId", actor.as_str());
    }
    object.text("retention", content::retention_word(event.retention));
    payload_field(object, &event.payload);
}

fn link_fields(object: &mut Object<'_>, event: &Event) {
    if let Some(link) = event.link {
        object.plain("epoch", link.position.epoch);
        object.number("offset", link.position.offset.0);
        object.number("previousOffset", link.prev.0);
    }
}

fn payload_field(object: &mut Object<'_>, payload: &Payload) {
    match payload {
        Payload::Json(json) => object.json("payload", json),
        Payload::Binary(bytes) => object.plain("binary", Base64Display::new(bytes, &STANDARD)),
    }
}
