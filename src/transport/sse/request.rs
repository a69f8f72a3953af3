//! A request for a stream: from the query and the headers to a session.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::id::{self, LastEventId};
use super::{Config, ENVELOPE_NAME};
use crate::transport::http::{Answer, Call, HandOver, text};

/// The longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8 << 10;

/// The most rooms of one request. A session may be in fewer.
const ROOMS_MAX: usize = 128;

/// The longest opening, in bytes: a shard reads it at once.
const OPENING_BYTES_MAX: usize = 60 << 10;

/// The number of the command that opens the session; the rooms follow, in the order of the request.
pub(super) const CONNECT_ID: u32 = 1;

/// A request, as far as the query says it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    /// The rooms, each with its place among all that were named; none twice.
    rooms: Vec<(usize, String)>,
    rewind: u32,
    presence: Option<String>,
    is_envelope: bool,
    last_event_id: Option<String>,
}

/// Answers a request with a session.
pub(super) fn open(call: &Call, config: &Config) -> Answer {
    match opened(call, config) {
        Ok(answer) => answer,
        // Nothing that time may mend: a page is to give up, and finds the words among its browser's network requests.
        Err((status, why)) => text(status, why).into(),
    }
}

fn opened(call: &Call, config: &Config) -> Result<Answer, (StatusCode, &'static str)> {
    let query = call.request.uri().query().unwrap_or_default();
    if query.len() > QUERY_BYTES_MAX {
        return Err((StatusCode::URI_TOO_LONG, "a query has at most 8192 bytes"));
    }
    let query = Query::parse(query).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    // The header is the newer one: a browser keeps the address and changes the header.
    let shown = call.request.headers().get("last-event-id");
    let shown = match shown {
        Some(shown) => shown.to_str().unwrap_or(FOREIGN),
        None => query.last_event_id.as_deref().unwrap_or_default(),
    };
    if matches!(id::parse(shown), LastEventId::End) {
        return Ok(ended().into());
    }
    let token = call.token();
    let token = token.or_else(|| call.cookie(config.cookie.as_deref()?));
    let opening = opening(shown, &token.unwrap_or_default(), &query);
    if opening.len() > OPENING_BYTES_MAX {
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too large"));
    }
    let envelope = call.protocols().find(ENVELOPE_NAME).filter(|_| query.is_envelope);
    Ok(Answer::Session(HandOver {
        head: head(()),
        protocol: envelope.unwrap_or(call.protocol),
        // In the opening: the session must know the cursor before it opens.
        token: None,
        opening,
        engine: None,
    }))
}

/// A text that is no id.
const FOREIGN: &str = "?";

/// Writes the request as the carrier reads it: a line with the last event id, then the commands.
fn opening(shown: &str, token: &str, query: &Query) -> Vec<u8> {
    let is_line = !shown.contains(['\n', '\r']);
    let mut opening = String::from(if is_line { shown } else { FOREIGN });
    let mut command = |command: serde_json::Value| {
        opening.push('\n');
        opening.push_str(&command.to_string());
    };
    command(json!({"id": CONNECT_ID, "connect": {"token": token}}));
    for (place, room) in &query.rooms {
        command(json!({"id": CONNECT_ID as usize + 1 + place, "join": {
            "room": room,
            "rewind": query.rewind,
            "presence": query.presence.as_deref().unwrap_or_default(),
        }}));
    }
    opening.into_bytes()
}

/// The head of a stream. A proxy must neither keep nor change nor hold it back.
pub(super) fn head<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The answer to a client that was sent away for good: at 204 an `EventSource` stops coming back.
fn ended() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Query {
    /// Parses a query. Fields that are not known are skipped: pages add some against caches.
    fn parse(query: &str) -> Result<Self, &'static str> {
        let (mut parsed, mut named) = (Self::default(), 0);
        for field in query.split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            // A token is taken from the query by the port, and is not decoded there.
            if !matches!(name, "room" | "rewind" | "presence" | "envelope" | "last_event_id") {
                continue;
            }
            let value = decoded(value).ok_or("the query is not UTF-8, or not percent-encoded")?;
            match name {
                "room" => {
                    if parsed.rooms.iter().all(|(_, room)| *room != value) {
                        parsed.rooms.push((named, value));
                    }
                    named += 1;
                }
                "rewind" => parsed.rewind = value.parse().map_err(|_| "rewind is a number of events")?,
                "presence" => match &*value {
                    "none" | "counts" | "members" | "others" => parsed.presence = Some(value),
                    _ => return Err("presence is none of none, counts, members, others"),
                },
                "envelope" => match &*value {
                    "1" | "true" => parsed.is_envelope = true,
                    "0" | "false" => parsed.is_envelope = false,
                    _ => return Err("envelope is 1 or 0"),
                },
                _ => parsed.last_event_id = Some(value),
            }
        }
        if named > ROOMS_MAX {
            return Err("a request names at most 128 rooms");
        }
        Ok(parsed)
    }
}

/// Returns the number of different rooms that a query names; `None` where it is refused.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn rooms_named(query: &str) -> Option<usize> {
    Query::parse(query).ok().map(|query| query.rooms.len())
}

/// Decodes a value of a form (URL standard, `application/x-www-form-urlencoded`): `+` is a space.
fn decoded(value: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(value.len()), value.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hexadecimal(rest.next()?)? << 4 | hexadecimal(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    let digit = char::from(digit).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(query: &str) -> Vec<(usize, String)> {
        Query::parse(query).unwrap().rooms
    }

    #[test]
    fn rooms_are_decoded_and_named_once() {
        let named = |rooms: &[(usize, &str)]| {
            let owned = rooms.iter().map(|(place, room)| (*place, (*room).to_owned()));
            owned.collect::<Vec<_>>()
        };
        assert_eq!(rooms(""), named(&[]));
        assert_eq!(
            rooms("room=a&x=%zz&room=b+c&room=a&room=%2B%26%C3%A9"),
            named(&[(0, "a"), (1, "b c"), (3, "+&é")])
        );
        assert_eq!(rooms("room"), named(&[(0, "")]), "for the session to refuse");
    }

    #[test]
    fn fields_that_cannot_be_meant_are_refused() {
        for query in [
            "room=%",
            "room=%4",
            "room=%zz",
            "room=%FF",
            "rewind=",
            "rewind=-1",
            "rewind=4294967296",
            "presence=all",
            "envelope=yes",
            &"&room=r".repeat(129),
        ] {
            assert!(Query::parse(query).is_err(), "{query}");
        }
        assert_eq!(
            Query::parse("rewind=7&presence=others&envelope=1&last_event_id=AQA&token=%zz"),
            Ok(Query {
                rewind: 7,
                presence: Some("others".to_owned()),
                is_envelope: true,
                last_event_id: Some("AQA".to_owned()),
                ..Query::default()
            })
        );
    }

    #[test]
    fn an_opening_is_lines_whatever_the_client_says() {
        let query = Query::parse("room=a%0A%22b&room=c&presence=counts").unwrap();
        let opening = String::from_utf8(opening("AQA\nx", "a\"\n.b", &query)).unwrap();
        let lines: Vec<&str> = opening.lines().collect();
        assert_eq!(lines[0], FOREIGN);
        let command = |line: &str| crate::transport::native::json::decode(line).unwrap();
        let ids: Vec<u32> = lines[1..].iter().map(|line| command(line).id).collect();
        assert_eq!(ids, [1, 2, 3]);
    }
}
