//! Short ways to say and to read what the contract spells out.

use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::{Event, Join, Payload, Publish};
use serde_json::Value;

/// Shorthands for commands.
pub trait InRoom {
    fn in_room(room: &str) -> Self;
}

impl InRoom for Join {
    fn in_room(room: &str) -> Self {
        Self {
            room: room.to_owned(),
            ..Self::default()
        }
    }
}

/// See [`InRoom`].
pub trait ToRoom {
    fn to(room: &str, event: &str, json: Value) -> Self;
}

impl ToRoom for Publish {
    fn to(room: &str, event: &str, json: Value) -> Self {
        Self {
            room: room.to_owned(),
            event_name: event.to_owned(),
            payload: Some(Payload {
                content: Some(Content::Json(json.to_string())),
            }),
            ..Self::default()
        }
    }
}

/// What an event carries.
pub trait Carries {
    /// # Panics
    /// When it carries no JSON.
    fn json(&self) -> Value;
}

impl Carries for Event {
    fn json(&self) -> Value {
        match self.payload.as_ref().and_then(|payload| payload.content.as_ref()) {
            Some(Content::Json(text)) => serde_json::from_str(text).expect("JSON is relayed as JSON"),
            other => panic!("no JSON: {other:?}"),
        }
    }
}
