//! The messages to a client, from each protocol into one form.

use roomcast::proto::client_v1;
use roomcast::proto::client_v1::server_frame::Message as Said;
use serde_json::{Value, json};

use super::heard::{Content, Heard, Kind};
use crate::support::event_stream::Dispatched;
use crate::support::socketio::Packet;

/// A thing that a client is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Event(Heard),
    /// The offset of an event that is not for this client.
    Passed(u64),
    /// A push of the gateway by its native name, with some of its fields.
    Notice(&'static str, Value),
    /// The end, and whether a client comes back by itself then.
    Ended {
        comes_back: bool,
    },
}

pub(super) fn of_native(said: Said) -> Option<Told> {
    Some(match said {
        Said::Event(event) => Told::Event(Heard::of_native(event)),
        Said::Passed(passed) => Told::Passed(passed.offset),
        Said::RoomLeft(left) => {
            let cause = left.cause().as_str_name().to_lowercase();
            let cause = cause.trim_start_matches("room_change_cause_");
            Told::Notice(
                "roomLeft",
                json!({"room": left.room, "cause": cause, "reason": left.reason}),
            )
        }
        Said::ReconnectAdvice(advice) => Told::Notice("reconnectAdvice", json!({"reason": advice.reason})),
        Said::SessionExpiring(_) => Told::Notice("sessionExpiring", json!({})),
        Said::Disconnected(told) => Told::Notice("disconnected", json!({"reason": told.reason})),
        Said::PresenceDelta(delta) => {
            let users = |members: Vec<client_v1::Member>| -> Vec<String> {
                members.into_iter().map(|member| member.user_id).collect()
            };
            presence_told(&users(delta.joined), &delta.left_user_ids)?
        }
        // Why the connection ends next.
        Said::Error(_) => return None,
        other => panic!("a push that no test asks for: {other:?}"),
    })
}

/// A change of presence, if somebody came or went: not where a user's connections are counted anew.
fn presence_told(joined: &[String], left: &[String]) -> Option<Told> {
    (!joined.is_empty() || !left.is_empty())
        .then(|| Told::Notice("presenceDelta", json!({"joined": joined, "left": left})))
}

pub(super) fn of_packet(packet: Packet) -> Option<Told> {
    let (name, mut arguments, attachments) = match packet {
        Packet::Event {
            name,
            arguments,
            attachments,
        } => (name, arguments, attachments),
        other => panic!("a packet that no test asks for: {other:?}"),
    };
    assert_eq!(arguments.len(), 1, "{name}: {arguments:?}");
    let argument = arguments.remove(0);
    if let Some(name) = name.strip_prefix("roomcast:") {
        return notice(name, &argument);
    }
    let content = match &attachments[..] {
        [] => Content::Json(argument),
        [bytes] => {
            assert_eq!(argument, r#"{"_placeholder":true,"num":0}"#);
            Content::Binary(bytes.to_vec())
        }
        more => panic!("{name} has {} attachments", more.len()),
    };
    Some(Told::Event(Heard {
        position: None,
        name,
        content,
    }))
}

pub(super) fn of_stream(kind: Kind, event: Dispatched) -> Option<Told> {
    let reserved = event.name.strip_prefix("roomcast:");
    match reserved {
        Some("expiring") => notice("sessionExpiring", &event.data),
        Some("presence") => notice("presenceDelta", &event.data),
        Some("closing") => Some(Told::Ended {
            comes_back: event.json()["reconnect"] == true,
        }),
        // The end of a stream says it once more.
        Some("refused") => None,
        Some(name) => notice(name, &event.data),
        None if kind == Kind::Envelopes => {
            let heard = Heard::of_envelope(&event.data);
            assert_eq!(heard.name, event.name);
            Some(Told::Event(heard))
        }
        None => Some(Told::Event(Heard {
            position: None,
            name: event.name,
            content: Content::Json(event.data),
        })),
    }
}

/// A push of the gateway in JSON.
fn notice(name: &str, fields: &str) -> Option<Told> {
    let fields: Value = serde_json::from_str(fields).unwrap_or_else(|error| panic!("{error}: {fields}"));
    let reason = || json!({"reason": fields["reason"].as_str().unwrap_or_default()});
    Some(match name {
        "roomLeft" => Told::Notice(
            "roomLeft",
            json!({"room": fields["room"], "cause": fields["cause"], "reason": fields["reason"].as_str().unwrap_or_default()}),
        ),
        "reconnectAdvice" => Told::Notice("reconnectAdvice", reason()),
        "sessionExpiring" => Told::Notice("sessionExpiring", json!({})),
        "disconnected" => Told::Notice("disconnected", reason()),
        // The home rooms of a session, and why its connection ends next.
        "connected" | "error" => return None,
        "presenceDelta" => {
            let users = |list: &Value, key: Option<&str>| -> Vec<String> {
                let of = |entry: &Value| key.map_or(entry, |key| &entry[key]).as_str().map(str::to_owned);
                list.as_array().into_iter().flatten().filter_map(of).collect()
            };
            presence_told(
                &users(&fields["joined"], Some("userId")),
                &users(&fields["leftUserIds"], None),
            )?
        }
        other => panic!("a push that no test asks for: {other} {fields}"),
    })
}
