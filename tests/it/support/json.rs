//! The JSON form of the protocol, written from the mapping in `client.proto` and not from the gateway's codec. Strict: a
//! field that the contract does not name, or one that is there with its zero value, fails the test.

mod command;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::server_frame::Message;
use roomcast::proto::client_v1::*;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use command::encode;

/// A message of the server.
///
/// # Panics
/// When it is no message of the contract.
pub fn decode(text: &str) -> ServerFrame {
    let mut frame = Fields::of(text, text);
    let id = frame.number("id");
    let known = frame.left.len() == 1;
    assert!(known, "one message in each frame: {text}");
    let name = frame.left.keys().next().unwrap().clone();
    let mut fields = Fields::of(text, frame.take(&name).unwrap());
    let message = message(&name, &mut fields);
    fields.finish();
    ServerFrame {
        id,
        message: Some(message),
    }
}

/// The fields of an object that was read, as far as they have not been taken.
struct Fields<'t> {
    whole: &'t str,
    left: BTreeMap<String, &'t RawValue>,
}

impl<'t> Fields<'t> {
    fn of(whole: &'t str, object: &'t str) -> Self {
        let left = serde_json::from_str(object).unwrap_or_else(|error| panic!("{error}: {object} in {whole}"));
        Self { whole, left }
    }

    fn take(&mut self, key: &str) -> Option<&'t str> {
        self.left.remove(key).map(RawValue::get)
    }

    /// A value that is left out where it is zero.
    fn value<T: DeserializeOwned + Default + PartialEq>(&mut self, key: &str) -> T {
        let Some(text) = self.take(key) else {
            return T::default();
        };
        let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{key}: {error} in {}", self.whole));
        assert!(value != T::default(), "{key} is zero and there, in {}", self.whole);
        value
    }

    fn string(&mut self, key: &str) -> String {
        self.value(key)
    }

    fn number<T: DeserializeOwned + Default + PartialEq>(&mut self, key: &str) -> T {
        self.value(key)
    }

    /// A value whose zero is told, too.
    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let text = self.take(key)?;
        Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{key}: {error} in {}", self.whole)))
    }

    fn flag(&mut self, key: &str) -> bool {
        self.value(key)
    }

    /// An enum's value as its word.
    fn word(&mut self, key: &str, prefix: &str, value: impl Fn(&str) -> Option<i32>) -> i32 {
        let word = self.string(key);
        if word.is_empty() {
            return 0;
        }
        assert_eq!(word, word.to_lowercase());
        value(&format!("{prefix}{}", word.to_uppercase()))
            .unwrap_or_else(|| panic!("no {prefix} is called {word}, in {}", self.whole))
    }

    fn object<T>(&mut self, key: &str, read: impl Fn(&mut Fields<'t>) -> T) -> Option<T> {
        let text = self.take(key)?;
        Some(self.inner(text, read))
    }

    fn list<T>(&mut self, key: &str, read: impl Fn(&mut Fields<'t>) -> T) -> Vec<T> {
        let Some(text) = self.take(key) else {
            return Vec::new();
        };
        let items: Vec<&'t RawValue> = serde_json::from_str(text).expect("a list");
        assert!(!items.is_empty(), "{key} is empty and there, in {}", self.whole);
        items.into_iter().map(|item| self.inner(item.get(), &read)).collect()
    }

    fn inner<T>(&self, text: &'t str, read: impl Fn(&mut Fields<'t>) -> T) -> T {
        let mut fields = Fields::of(self.whole, text);
        let value = read(&mut fields);
        fields.finish();
        value
    }

    fn payload(&mut self) -> Payload {
        let content = match (self.take("payload"), self.take("binary")) {
            (Some(json), None) => Content::Json(json.to_owned()),
            (None, Some(text)) => {
                let text: String = serde_json::from_str(text).expect("binary is a text");
                Content::Binary(STANDARD.decode(text).expect("binary is base64").into())
            }
            _ => panic!("a payload or binary: {}", self.whole),
        };
        Payload { content: Some(content) }
    }

    fn position(&mut self, key: &str) -> Option<Position> {
        self.object(key, |at| Position {
            epoch: at.string("epoch"),
            offset: at.number("offset"),
        })
    }

    fn finish(self) {
        assert!(
            self.left.is_empty(),
            "fields the contract does not name: {:?} in {}",
            self.left.keys(),
            self.whole
        );
    }
}

fn message(name: &str, from: &mut Fields<'_>) -> Message {
    match name {
        "error" => Message::Error(ErrorReply {
            code: from.word("code", "ERROR_CODE_", |name| {
                ErrorCode::from_str_name(name).map(Into::into)
            }),
            reason: from.string("reason"),
            message: from.string("message"),
            retry_after_ms: from.number("retryAfterMs"),
        }),
        "connected" => Message::Connected(Connected {
            connection_id: from.string("connectionId"),
            user_id: from.string("userId"),
            expires_at_ms: from.number("expiresAtMs"),
            heartbeat_interval_ms: from.number("heartbeatIntervalMs"),
            server_time_ms: from.number("serverTimeMs"),
            rooms: from.list("rooms", joined),
            features: from.value("features"),
            server_version: from.string("serverVersion"),
        }),
        "joined" => Message::Joined(joined(from)),
        "left" => Message::Left(Left {
            room: from.string("room"),
        }),
        "published" => Message::Published(Published {
            position: from.position("position"),
            duplicate: from.flag("duplicate"),
            reached: from.optional("reached"),
            reply: from.object("reply", reply),
        }),
        "reply" => Message::Reply(reply(from)),
        "presence" => Message::Presence(presence(from)),
        "presenceUpdated" => Message::PresenceUpdated(PresenceUpdated {
            room: from.string("room"),
        }),
        "userRooms" => Message::UserRooms(UserRooms {
            user_id: from.string("userId"),
            rooms: from.value("rooms"),
            partial: from.flag("partial"),
        }),
        "history" => Message::History(History {
            room: from.string("room"),
            events: from.list("events", event),
            head: from.position("head"),
            complete: from.flag("complete"),
            more: from.flag("more"),
        }),
        "refreshed" => Message::Refreshed(Refreshed {
            expires_at_ms: from.number("expiresAtMs"),
        }),
        "pong" => Message::Pong(Pong {
            server_time_ms: from.number("serverTimeMs"),
        }),
        "answered" => Message::Answered(Answered {
            accepted: from.flag("accepted"),
        }),
        _ => push(name, from),
    }
}

fn push(name: &str, from: &mut Fields<'_>) -> Message {
    let why = |from: &mut Fields<'_>| {
        from.word("cause", "ROOM_CHANGE_CAUSE_", |name| {
            RoomChangeCause::from_str_name(name).map(Into::into)
        })
    };
    match name {
        "event" => Message::Event(event(from)),
        "ask" => Message::Ask(Ask {
            ask_id: from.number("askId"),
            method: from.string("method"),
            payload: Some(from.payload()),
        }),
        "passed" => Message::Passed(Passed {
            room: from.string("room"),
            epoch: from.string("epoch"),
            offset: from.number("offset"),
            previous_offset: from.number("previousOffset"),
        }),
        "presenceDelta" => Message::PresenceDelta(PresenceDelta {
            room: from.string("room"),
            joined: from.list("joined", member),
            left_user_ids: from.value("leftUserIds"),
            updated: from.list("updated", member),
            member_count: from.number("memberCount"),
            counts_only: from.flag("countsOnly"),
            present: from.list("present", member),
        }),
        "roomJoined" => Message::RoomJoined(RoomJoined {
            joined: from.object("joined", joined),
            cause: why(from),
        }),
        "roomLeft" => Message::RoomLeft(RoomLeft {
            room: from.string("room"),
            cause: why(from),
            reason: from.string("reason"),
            message: from.string("message"),
        }),
        "disconnected" => Message::Disconnected(Disconnected {
            code: from.number("code"),
            reason: from.string("reason"),
            message: from.string("message"),
        }),
        "degraded" => Message::Degraded(Degraded {
            active: from.flag("active"),
        }),
        "resync" => Message::Resync(Resync {
            room: from.string("room"),
            head: from.position("head"),
        }),
        "reconnectAdvice" => Message::ReconnectAdvice(ReconnectAdvice {
            delay_ms: from.number("delayMs"),
            jitter_ms: from.number("jitterMs"),
            reason: from.string("reason"),
            message: from.string("message"),
        }),
        "sessionExpiring" => Message::SessionExpiring(SessionExpiring {
            expires_at_ms: from.number("expiresAtMs"),
        }),
        other => panic!("the contract names no message `{other}`: {}", from.whole),
    }
}

fn reply(from: &mut Fields<'_>) -> Reply {
    Reply {
        payload: Some(from.payload()),
    }
}

fn joined(from: &mut Fields<'_>) -> Joined {
    Joined {
        room: from.string("room"),
        head: from.position("head"),
        recovered: from.flag("recovered"),
        replayed: from.number("replayed"),
        presence: from.object("presence", presence),
    }
}

fn presence(from: &mut Fields<'_>) -> Presence {
    Presence {
        room: from.string("room"),
        members: from.list("members", member),
        member_count: from.number("memberCount"),
        counts_only: from.flag("countsOnly"),
        partial: from.flag("partial"),
    }
}

fn member(from: &mut Fields<'_>) -> Member {
    Member {
        user_id: from.string("userId"),
        connection_count: from.number("connectionCount"),
        state_json: from.take("state").map(str::to_owned),
    }
}

fn event(from: &mut Fields<'_>) -> Event {
    Event {
        room: from.string("room"),
        id: from.string("id"),
        event_name: from.string("eventName"),
        epoch: from.string("epoch"),
        offset: from.number("offset"),
        previous_offset: from.number("previousOffset"),
        time_ms: from.number("timeMs"),
        actor_user_id: from.string("actorUserId"),
        retention: from.word("retention", "RETENTION_", |name| {
            Retention::from_str_name(name).map(Into::into)
        }),
        payload: Some(from.payload()),
    }
}
