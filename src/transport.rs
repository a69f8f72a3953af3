//! Transports: how clients reach a session. Each speaks commands and messages of [`crate::session`] and never sees hub,
//! bus or another edge. A connection is three parts: its [`carrier`] cuts messages out of bytes, its [`protocol`] reads and writes
//! them, and its socket holds what is not written yet.

pub mod carrier;
pub mod http;
mod lingering;
mod link;
pub mod native;
pub mod outbox;
pub mod protocol;
pub mod shard;
mod socket;
pub mod socketio;
pub mod sse;
mod vector;
pub mod websocket;

/// The text that goes before the name of an application's event in a protocol whose own events begin with a prefix: the prefix once
/// more where the name begins with it, so that nobody can publish what looks like an event of the gateway.
fn escape<'p>(prefix: &'p str, name: &str) -> &'p str {
    if name.starts_with(prefix) { prefix } else { "" }
}

/// As much of a text as fits into so many bytes, cut between characters.
fn prefix(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
