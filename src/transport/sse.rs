//! Event streams: `GET /v1/events`, answered with `text/event-stream` (HTML standard, "Server-sent events").
//!
//! The request says everything that the client says: who it is, which rooms, where it left off. It becomes the commands of an
//! ordinary session, and a shard writes the body. An event is encoded once for all streams of a form; before it goes the
//! stream's own `id`, which is its cursor, so that an `EventSource` that comes back to any node goes on exactly, or is
//! told for which room it does not.
//!
//! There are two forms, each a protocol of its own, because each has bytes of its own: the payload alone, and the event as
//! the native protocol has it. `docs/sse.md` is the contract.

mod block;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod request;
mod stream;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use self::stream::EventStream;
use super::carrier::Carrier;
use super::http::{Access, Route, chunked};
use super::native::json;
use super::protocol::{self, Decoded, Protocol, Protocols};
use crate::error::CloseReason;
use crate::event::{Event, Payload};
use crate::session::{Cursor, Encoder, Frame, Message};
use crate::units::millis;

/// The path of the streams.
const PATH: &str = "/v1/events";

/// The name of the form that sends payloads alone.
const PAYLOAD_NAME: &str = "sse";

/// The name of the form that sends whole events.
const ENVELOPE_NAME: &str = "sse.envelope";

/// Settings of event streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether the path is there at all.
    pub enabled: bool,
    /// The time after which a browser comes back, at least; at most half as much again.
    pub retry: Duration,
    /// The cookie that may hold the token.
    pub cookie: Option<String>,
    /// The prefix of the names of events that the gateway itself sends.
    pub event_prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            retry: Duration::from_secs(3),
            cookie: None,
            event_prefix: "roomcast:".to_owned(),
        }
    }
}

/// Returns the protocols with event streams in addition, unless they are disabled.
#[must_use]
pub fn add_to(protocols: Protocols, config: &Config) -> Protocols {
    if !config.enabled {
        return protocols;
    }
    let form = |is_envelope| EventStreams {
        config: config.clone(),
        is_envelope,
    };
    protocols.with(form(false)).with(form(true))
}

/// Event streams of one form.
#[derive(Debug, Clone)]
struct EventStreams {
    config: Config,
    is_envelope: bool,
}

impl EventStreams {
    /// Returns the time after which one client is to come back: not the same for all that were cut off together.
    fn retry_ms(&self) -> u64 {
        let retry_ms = millis(self.config.retry);
        retry_ms + rand::random_range(0..=retry_ms / 2)
    }

    /// Returns the answer when the node is full: with any status but 200 a browser would never come back.
    fn when_full(&self) -> Response<Bytes> {
        // Once for all, so without jitter; a node that is full takes long to be less so.
        let mut body = format!("retry: {}\n", 2 * millis(self.config.retry)).into_bytes();
        let code = CloseReason::Overloaded;
        encode::closing(&mut body, &self.config.event_prefix, code, code.as_str());
        let mut response = request::head(Bytes::from(body));
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl Protocol for EventStreams {
    fn decode(&self, message: protocol::Message<'_>) -> Decoded {
        match message {
            protocol::Message::Text(text) => json::decode(text).into(),
            protocol::Message::Binary(_) => Decoded::Unsupported,
        }
    }

    fn carrier(&self) -> Carrier {
        Carrier::Stream(Box::<EventStream>::default())
    }

    fn is_upgraded_to(&self) -> bool {
        false
    }

    fn routes(&self) -> Vec<Route> {
        if self.is_envelope {
            // The path of the other form asks which one.
            return Vec::new();
        }
        let access = Access::Shared {
            headers: &["authorization", "cache-control", "last-event-id"],
        };
        let config = self.config.clone();
        let open = move |call| std::future::ready(request::open(&call, &config));
        vec![Route::get(PATH, open).access(access).when_full(self.when_full())]
    }

    fn farewell(&self, code: CloseReason, reason: &str) -> Frame {
        let mut block = Vec::new();
        if !code.may_reconnect() {
            // A browser comes back after every end. Then it shows this, and is stopped.
            block.extend_from_slice(format!("id: {}\n", id::END_ID).as_bytes());
        }
        encode::closing(&mut block, &self.config.event_prefix, code, reason);
        chunked::last_chunk(&block)
    }
}

impl Encoder for EventStreams {
    fn name(&self) -> &'static str {
        if self.is_envelope { ENVELOPE_NAME } else { PAYLOAD_NAME }
    }

    fn message(&self, id: u32, message: &Message) -> Frame {
        let mut block = Vec::with_capacity(json::encode::MESSAGE_BYTES_USUAL);
        if matches!(message, Message::Connected { .. }) {
            block.extend_from_slice(format!("retry: {}\n", self.retry_ms()).as_bytes());
        }
        encode::message(&mut block, &self.config.event_prefix, id, message);
        chunked::chunk(&block)
    }

    fn heartbeat(&self) -> Frame {
        chunked::chunk(b":\n\n")
    }

    fn event(&self, event: &Event) -> Frame {
        let bytes = if self.is_envelope {
            json::encode::event_bytes(event)
        } else {
            payload_bytes(&event.payload)
        };
        let mut block = Vec::with_capacity(bytes);
        encode::event(&mut block, &self.config.event_prefix, event, self.is_envelope);
        chunked::chunk(&block)
    }

    /// A stream sees no chain: its cursor says what it has passed.
    fn passed(&self, _: &Event) -> Option<Frame> {
        None
    }

    fn keeps_cursor(&self) -> bool {
        true
    }

    fn before_event(&self, cursor: &Cursor) -> Option<Frame> {
        Some(chunked::chunk(format!("id: {}\n", id::text(cursor)).as_bytes()))
    }
}

/// Estimates the size of a block with the payload alone.
fn payload_bytes(payload: &Payload) -> usize {
    const AROUND_USUAL: usize = 64;
    AROUND_USUAL + payload.bytes_len() * 4 / 3
}

#[cfg(test)]
mod tests;
