//! The events of a room, as each protocol tells them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roomcast::proto::client_v1;
use roomcast::proto::v1;
use serde_json::json;
use serde_json::value::RawValue;

use crate::support::{User, user};

/// A protocol and the way it is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Protobuf,
    WebSocket,
    Polling,
    /// Begins to poll, and goes over to a WebSocket after some events.
    Upgraded,
    /// An event stream of payloads.
    Payloads,
    /// An event stream of whole events.
    Envelopes,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Json,
        Self::Protobuf,
        Self::WebSocket,
        Self::Polling,
        Self::Upgraded,
        Self::Payloads,
        Self::Envelopes,
    ];

    /// A user whose name is the kind's.
    pub fn user(self) -> User {
        user(&format!("{self:?}"))
    }

    /// Whether its events say their positions.
    pub fn tells_positions(self) -> bool {
        matches!(self, Self::Json | Self::Protobuf | Self::Envelopes)
    }
}

/// The content of an event, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Content {
    Json(String),
    Binary(Vec<u8>),
}

/// An event as it was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Heard {
    /// Epoch and offset.
    pub position: Option<(String, u64)>,
    pub name: String,
    pub content: Content,
}

impl Heard {
    /// The same as a client of this kind is told it.
    pub fn told_to(mut self, kind: Kind) -> Self {
        if !kind.tells_positions() {
            self.position = None;
        }
        // The data of such a stream is always JSON.
        if let (Kind::Payloads, Content::Binary(bytes)) = (kind, &self.content) {
            self.content = Content::Json(json!(STANDARD.encode(bytes)).to_string());
        }
        self
    }

    /// The event that a subscriber got, or that stands in a history.
    pub fn of_backend(event: v1::Event) -> Self {
        let content = event.payload.and_then(|payload| payload.content);
        Self {
            position: event.position.map(|position| (position.epoch, position.offset)),
            name: event.event_name,
            content: match content.expect("an event has a payload") {
                v1::payload::Content::Json(text) => Content::Json(text),
                v1::payload::Content::Binary(bytes) => Content::Binary(bytes.to_vec()),
            },
        }
    }

    pub fn of_native(event: client_v1::Event) -> Self {
        let content = event.payload.and_then(|payload| payload.content);
        Self {
            position: (!event.epoch.is_empty()).then_some((event.epoch, event.offset)),
            name: event.event_name,
            content: match content.expect("an event has a payload") {
                client_v1::payload::Content::Json(text) => Content::Json(text),
                client_v1::payload::Content::Binary(bytes) => Content::Binary(bytes.to_vec()),
            },
        }
    }

    pub fn of_envelope(data: &str) -> Self {
        // By hand: a payload may be null.
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        let text = |key: &str| -> Option<String> { serde_json::from_str(fields.get(key)?.get()).ok() };
        let offset = fields.get("offset").and_then(|offset| offset.get().parse().ok());
        Self {
            position: text("epoch").zip(offset),
            name: text("eventName").expect("an event has a name"),
            content: match (fields.get("payload"), text("binary")) {
                (Some(json), None) => Content::Json(json.get().to_owned()),
                (None, Some(text)) => Content::Binary(STANDARD.decode(text).expect("binary is base64")),
                _ => panic!("a payload or binary: {data}"),
            },
        }
    }
}

/// A hash of events in their order.
pub fn digest(events: &[Heard]) -> u64 {
    let mut hasher = DefaultHasher::new();
    events.hash(&mut hasher);
    hasher.finish()
}
