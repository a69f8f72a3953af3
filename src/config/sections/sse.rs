//! `[sse]`: event streams.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::values::PositiveTime;
use crate::config::{ClientSection, Problem};
use crate::transport::sse;

/// Event streams (Server-Sent Events) at `/v1/events` of the port for clients.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "sse::Config", deny_unknown_fields)]
#[schemars(rename = "Sse")]
pub(in crate::config) struct Sse {
    /// Serves event streams.
    enabled: bool,
    /// Time after which a browser reconnects a stream that ended; up to half of it is added at random.
    #[serde(with = "PositiveTime")]
    retry: Duration,
    /// The cookie that holds the token where neither header nor query does. Needs `client.origins` to be a list, which may be
    /// empty: then only pages of the gateway's own origin have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
    /// Prefix of the names of events that the gateway itself sends. An application's event that begins with it is sent with
    /// the prefix once more.
    event_prefix: String,
}

/// The longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 32;

/// Checks a prefix of the gateway's own events.
pub(super) fn wrong_prefix(key: &str, prefix: &str) -> Option<Problem> {
    let is_wrong = prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || prefix.chars().any(char::is_control);
    is_wrong.then(|| Problem::new(key, "has 1 to 32 bytes and no control characters"))
}

/// Returns the problems of the section.
pub(super) fn check(sse: &sse::Config, client: &ClientSection) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(wrong_prefix("sse.event_prefix", &sse.event_prefix));
    if u32::try_from(sse.retry.as_millis()).is_err() {
        problems.push(Problem::new("sse.retry", "must be at most 49 days"));
    }
    let Some(cookie) = &sse.cookie else { return problems };
    if !is_token(cookie) {
        problems.push(Problem::new("sse.cookie", "is not the name of a cookie"));
    }
    if client.origins == ["*"] {
        let message = "needs a list in `client.origins`: with `*` any page could use a visitor's cookie";
        problems.push(Problem::new("sse.cookie", message));
    }
    problems
}

/// Reports whether a text is a token (RFC 9110 section 5.6.2), as a cookie's name is.
fn is_token(text: &str) -> bool {
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_token)
}
