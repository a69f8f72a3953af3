//! What a stream tells: each message is an event with a reserved name, whose data is JSON.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;

use super::block;
use super::request::CONNECT_ID;
use crate::error::CloseReason;
use crate::event::{Event, Payload};
use crate::session::{Joined, Message, RoomChange};
use crate::transport::escape;
use crate::transport::native::content;
use crate::transport::native::json::encode::{
    event_fields, expiry_field, fields, head_field, refusal_fields, roster_fields,
};
use crate::transport::native::json::object::Object;

/// Writes a message; nothing for replies to commands that a stream cannot give.
pub(super) fn message(out: &mut Vec<u8>, prefix: &str, id: u32, message: &Message) {
    let mut event = |name: &str, fill: &dyn Fn(&mut Object<'_>)| reserved(out, prefix, name, fill);
    match message {
        Message::Error(refusal) => event("refused", &|object| {
            // The commands behind the first one are the rooms, in their order.
            if let Some(index) = id.checked_sub(CONNECT_ID + 1) {
                object.exactly("index", index);
            }
            refusal_fields(object, refusal);
        }),
        Message::Connected {
            connection,
            user,
            expiry,
            heartbeat,
            time,
            rooms,
            features: _,
            server_version,
        } => {
            event("connected", &|object| {
                object.plain("connectionId", connection);
                object.text("userId", user.as_str());
                expiry_field(object, *expiry);
                object.number("heartbeatIntervalMs", content::millis(*heartbeat));
                object.number("serverTimeMs", time.0);
                object.text("serverVersion", server_version);
            });
            for joined in rooms {
                event("joined", &|object| joined_fields(object, joined, None));
            }
        }
        Message::Joined(joined) => event("joined", &|object| joined_fields(object, joined, None)),
        Message::RoomJoined { joined, change } => {
            event("joined", &|object| joined_fields(object, joined, Some(*change)));
        }
        Message::RoomLeft { .. } => event("roomLeft", &|object| fields(object, message)),
        Message::Disconnected { .. } => event("disconnected", &|object| fields(object, message)),
        Message::PresenceChanged(_) => event("presence", &|object| fields(object, message)),
        Message::Degraded { active } => event("degraded", &|object| truth(object, "active", *active)),
        Message::Resync { .. } => event("resync", &|object| fields(object, message)),
        Message::ReconnectAdvice { .. } => event("reconnectAdvice", &|object| fields(object, message)),
        Message::Expiring { .. } => event("expiring", &|object| fields(object, message)),
        Message::Left { .. }
        | Message::Published { .. }
        | Message::Reply(_)
        | Message::Presence { .. }
        | Message::StateSet { .. }
        | Message::UserRooms { .. }
        | Message::History(_)
        | Message::Refreshed { .. }
        | Message::Pong { .. }
        | Message::Answered { .. }
        | Message::Asked { .. } => {}
    }
}

/// Writes the last event of a stream.
pub(super) fn closing(out: &mut Vec<u8>, prefix: &str, code: CloseReason, reason: &str) {
    reserved(out, prefix, "closing", &|object| {
        object.number("code", code.code());
        object.text("reason", reason);
        truth(object, "reconnect", code.may_reconnect());
    });
}

/// Writes an event of the application under its own name. One that begins like a reserved name gets the prefix once more, and
/// so is none.
pub(super) fn event(out: &mut Vec<u8>, prefix: &str, event: &Event, is_envelope: bool) {
    let name = event.name.as_str();
    let prefix = escape(prefix, name);
    if is_envelope {
        let mut data = Vec::new();
        Object::write(&mut data, |object| event_fields(object, event));
        return block::event(out, &[prefix, name], &data);
    }
    match &event.payload {
        Payload::Json(json) => block::event(out, &[prefix, name], json.bytes()),
        // JSON as well, so that a page may parse whatever comes.
        Payload::Binary(bytes) => {
            let data = format!("\"{}\"", Base64Display::new(bytes, &STANDARD));
            block::event(out, &[prefix, name], data.as_bytes());
        }
    }
}

fn reserved(out: &mut Vec<u8>, prefix: &str, name: &str, fill: &dyn Fn(&mut Object<'_>)) {
    let mut data = Vec::new();
    Object::write(&mut data, |object| fill(object));
    block::event(out, &[prefix, name], &data);
}

/// Writes what the native protocol leaves out where it is false: here it is the answer to a question.
fn truth(object: &mut Object<'_>, key: &'static str, value: bool) {
    object.raw(key, if value { "true" } else { "false" });
}

fn joined_fields(object: &mut Object<'_>, joined: &Joined, change: Option<RoomChange>) {
    object.text("room", joined.room.name());
    head_field(object, &joined.head);
    truth(object, "recovered", joined.recovered);
    object.exactly("replayed", joined.replayed);
    if let Some(roster) = &joined.roster {
        object.object("presence", |object| roster_fields(object, &joined.room, roster));
    }
    if let Some(change) = change {
        object.text("cause", content::change_word(change));
    }
}
