//! Decodes a client's commands from JSON.
//!
//! The envelope is parsed strictly: an unknown or repeated field is an error. So no reader behind or beside the gateway can
//! see another command in the same text. Relayed values, payloads and states, are kept verbatim and checked by
//! [`crate::json::Json`].

use bytes::Bytes;

use crate::binary;
use crate::event::{Payload, Retention};
use crate::json::Fields;
use crate::session::{Answer, Command, JoinOptions, Request, Since};
use crate::transport::native::{DecodeError, Flaw, content, request};

/// Parser of one command's fields.
type Reader = fn(&mut Fields<'_>) -> Result<Command, Flaw>;

/// Decodes one command.
///
/// # Errors
/// [`DecodeError`], with the id of the command wherever it precedes the error.
pub fn decode(text: &str) -> Result<Request, DecodeError> {
    // The usual frame is an id and a known command. Any other is read again, for its exact refusal.
    in_one_pass(text).unwrap_or_else(|| in_two_passes(text))
}

/// Decodes a frame of an id and one known command: the command's fields are split along with those of the frame.
fn in_one_pass(text: &str) -> Option<Result<Request, DecodeError>> {
    let mut frame = Fields::parse_nested(text, reader)?;
    let id = frame.outer.integer("id").unwrap_or(0);
    if frame.outer.others().next().is_some() {
        return None;
    }
    Some(request(id, from_fields(frame.name, frame.chosen, &mut frame.inner)))
}

/// Decodes any frame: splits its fields, and then those of the command.
fn in_two_passes(text: &str) -> Result<Request, DecodeError> {
    let mut frame = Fields::default();
    let read = frame.read(text);
    let id = frame.integer("id").unwrap_or(0);
    match read {
        Ok(()) => request(id, command(&frame)),
        Err(error) => request(id, Err(Flaw::malformed(error.to_string()))),
    }
}

/// Decodes the one command of a frame.
fn command(frame: &Fields<'_>) -> Result<Command, Flaw> {
    let (mut command, mut unknown) = (None, None);
    for (name, value) in frame.others() {
        match reader(name) {
            Some(reader) if command.is_none() => command = Some((name, value, reader)),
            Some(_) => return Err(Flaw::malformed("more than one command")),
            None => unknown = Some(name),
        }
    }
    let (name, value, read) = match (command, unknown) {
        (Some(command), None) => command,
        (None, None) => return Err(Flaw::malformed("there is no command")),
        (None, Some(name)) => return Err(Flaw::unsupported(format!("there is no command `{name}`"))),
        (Some(_), Some(name)) => {
            let message = format!("the field `{name}` beside the command is not known");
            return Err(Flaw::unsupported(message));
        }
    };
    if !value.starts_with('{') {
        return Err(Flaw::invalid(format!("`{name}` must be an object")));
    }
    let mut fields = Fields::parse(value).map_err(|error| Flaw::malformed(error.to_string()))?;
    from_fields(name, read, &mut fields)
}

/// Decodes a command from its name and the text of its fields; `None` for a name of none. For protocols that wrap the commands of
/// this one.
pub(in crate::transport) fn named(name: &str, fields: &str) -> Option<Result<Command, DecodeError>> {
    let read = reader(name)?;
    let command = match Fields::parse(fields) {
        Ok(mut fields) => from_fields(name, read, &mut fields),
        Err(error) => Err(Flaw::invalid(format!("the data of `{name}`: {error}"))),
    };
    Some(command.map_err(|flaw| DecodeError::new(0, flaw)))
}

/// Decodes a command from its fields.
fn from_fields(name: &str, read: Reader, fields: &mut Fields<'_>) -> Result<Command, Flaw> {
    let command = read(fields);
    finish(fields, name)?;
    command
}

/// Ends an object after its known fields were taken. An unknown field is refused first: it may change the meaning of the
/// known ones.
fn finish(fields: &Fields<'_>, whose: &str) -> Result<(), Flaw> {
    if let Some((name, _)) = fields.others().next() {
        return Err(Flaw::unsupported(format!(
            "the field `{name}` of `{whose}` is not known"
        )));
    }
    fields.wrong().map_or(Ok(()), |wrong| Err(wrong.into()))
}

fn reader(name: &str) -> Option<Reader> {
    Some(match name {
        "connect" => connect,
        "join" => join,
        "leave" => |from| {
            Ok(Command::Leave {
                room: text(from, "room"),
            })
        },
        "publish" => publish,
        "request" => ask,
        "presenceQuery" => |from| {
            Ok(Command::Presence {
                room: text(from, "room"),
            })
        },
        "presenceUpdate" => presence_update,
        "userRoomsQuery" => |from| {
            Ok(Command::UserRooms {
                user: text(from, "userId"),
            })
        },
        "historyQuery" => history_query,
        "refresh" => |from| {
            Ok(Command::Refresh {
                token: text(from, "token"),
            })
        },
        "answer" => answer,
        "ping" => |_| Ok(Command::Ping),
        _ => return None,
    })
}

/// Takes a text, empty where it is absent.
fn text(from: &mut Fields<'_>, field: &'static str) -> String {
    from.text(field).unwrap_or_default()
}

fn connect(from: &mut Fields<'_>) -> Result<Command, Flaw> {
    let (token, client) = (text(from, "token"), text(from, "client"));
    let (resume, features) = (from.list("resume"), from.texts("features"));
    let resume: Result<Vec<_>, Flaw> = resume.into_iter().map(room_position).collect();
    Ok(Command::Connect {
        token,
        client: content::client(client),
        resume: content::resume(resume?)?,
        features: content::features(features)?,
    })
}

fn room_position(element: &str) -> Result<(String, Since), Flaw> {
    let wrong = |_| Flaw::invalid("each element of `resume` must be an object");
    let mut from = Fields::parse(element).map_err(wrong)?;
    let (room, position) = (text(&mut from, "room"), from.present("position"));
    finish(&from, "resume")?;
    Ok((room, position.map_or(Since::Unreadable, since)))
}

fn join(from: &mut Fields<'_>) -> Result<Command, Flaw> {
    let (room, at, rewind) = (text(from, "room"), from.present("since"), from.integer("rewind"));
    let (presence, state) = (text(from, "presence"), from.present("state"));
    content::required(&from.texts("requiredFeatures"))?;
    Ok(Command::Join {
        room,
        options: JoinOptions {
            since: at.map(since),
            rewind: rewind.unwrap_or(0),
            presence: content::presence_mode(&presence)?,
            state: content::state(state.map(bytes))?,
        },
    })
}

fn publish(from: &mut Fields<'_>) -> Result<Command, Flaw> {
    let (room, event_name) = (text(from, "room"), text(from, "eventName"));
    let (retention, key) = (text(from, "retention"), text(from, "idempotencyKey"));
    let (payload, required) = (payload(from), from.texts("requiredFeatures"));
    content::required(&required)?;
    Ok(Command::Publish {
        room,
        event_name,
        payload: payload?,
        retention: retention_of(&retention)?,
        key,
    })
}

fn ask(from: &mut Fields<'_>) -> Result<Command, Flaw> {
    let (method, room) = (text(from, "method"), text(from, "room"));
    let payload = payload(from)?;
    Ok(Command::Ask { method, room, payload })
}

fn answer(from: &mut Fields<'_>) -> Result<Command, Flaw> {
    let (ask, error) = (from.integer("askId").unwrap_or(0), from.present("error"));
    let content = payload_if_any(from)?;
    let answer = match (content, error) {
        (Some(payload), None) => Answer::Payload(payload),
        (None, Some(error)) => answer_error(error)?,
        (None, None) => return Err(Flaw::invalid("neither payload, binary nor error")),
        (Some(_), Some(_)) => return Err(Flaw::invalid("both a payload and an error")),
    };
    Ok(Command::Answer { ask, answer })
}

fn answer_error(error: &str) -> Result<Answer, Flaw> {
    let mut from = Fields::parse(error).map_err(|_| Flaw::invalid("`error` must be an object"))?;
    let (reason, message) = (text(&mut from, "reason"), text(&mut from, "message"));
    finish(&from, "error")?;
    content::answer_error(&reason, &message)
}

fn presence_update(from: &mut Fields<'_>) -> Result<Command, Flaw> {
    let (room, state) = (text(from, "room"), from.present("state"));
    let state = content::state(state.map(bytes))?;
    Ok(Command::SetState { room, state })
}

fn history_query(from: &mut Fields<'_>) -> Result<Command, Flaw> {
    let (room, limit) = (text(from, "room"), from.integer("limit"));
    let (after, before) = (from.present("after").map(since), from.present("before").map(since));
    Ok(Command::History {
        room,
        from: content::history_from(after, before)?,
        limit: limit.unwrap_or(0),
    })
}

/// Parses a client's position from any JSON value, because a foreign one is a case of its own and not an error.
fn since(value: &str) -> Since {
    let Ok(mut at) = Fields::parse(value) else {
        return Since::Unreadable;
    };
    let (epoch, offset) = (text(&mut at, "epoch"), at.integer("offset").unwrap_or(0));
    match at.wrong() {
        None => content::since(&epoch, offset),
        Some(_) => Since::Unreadable,
    }
}

fn bytes(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

/// Takes `payload`, where `null` is a value like any other, or `binary`.
fn payload(from: &mut Fields<'_>) -> Result<Payload, Flaw> {
    payload_if_any(from)?.ok_or_else(|| Flaw::invalid("neither payload nor binary"))
}

fn payload_if_any(from: &mut Fields<'_>) -> Result<Option<Payload>, Flaw> {
    match (from.json("payload"), from.text("binary")) {
        (Some(value), None) => content::checked("the payload", value).map(|json| Some(Payload::Json(json))),
        (None, Some(text)) => binary::decode(&text)
            .map(|bytes| Some(Payload::Binary(bytes)))
            .map_err(|error| Flaw::invalid(format!("binary {error}"))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Flaw::invalid("both payload and binary")),
    }
}

fn retention_of(word: &str) -> Result<Retention, Flaw> {
    match word {
        "" | "reliable" => Ok(Retention::Reliable),
        "ephemeral" => Ok(Retention::Ephemeral),
        "last_value" => Ok(Retention::LastValue),
        _ => Err(Flaw::unsupported(
            "the retention is none of ephemeral, reliable, last_value",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const NAMES: [&str; 12] = [
        "id",
        "\\u0069d",
        "ping",
        "p\\u0069ng",
        "leave",
        "join",
        "publish",
        "request",
        "connect",
        "fly",
        "room",
        "__proto__",
    ];

    const VALUES: [&str; 18] = [
        "1",
        "0",
        "1.0",
        "1.5",
        "null",
        "nul",
        "\"a\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        " { } ",
        r#"{"room":"r"}"#,
        r#"{"room":"\u0072\n"}"#,
        r#"{"room":"r","room":"s"}"#,
        r#"{"room":7,"colour":1}"#,
        r#"{"room":"r","eventName":"e","payload":{"a":[1,"\ud83d\ude00"]},"x":null}"#,
        r#"{"room":"r","eventName":"e","payload":"\ud800"}"#,
        r#"{"token":"t","resume":[{"room":"r","position":{"epoch":"7d1e5c0a93f24b86","offset":17}}]}"#,
    ];

    proptest! {
        #[test]
        fn both_ways_decode_alike(
            members in proptest::collection::vec((select(&NAMES[..]), select(&VALUES[..])), 0..4),
            end in select(vec!["}", " } ", "}x", ",}", ""]),
        ) {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let text = format!("{{{}{end}", members.join(","));
            if let Some(decoded) = in_one_pass(&text) {
                prop_assert_eq!(decoded, in_two_passes(&text), "{}", text);
            }
        }
    }

    #[test]
    fn the_most_fields_are_counted_alike() {
        for (nulls, is_read) in [(62, true), (63, false)] {
            let nulls: Vec<String> = (0..nulls).map(|n| format!("\"f{n}\":null,")).collect();
            let text = format!("{{{}\"id\":3,\"ping\":{{}}}}", nulls.concat());
            assert_eq!(in_one_pass(&text).is_some(), is_read);
            assert_eq!(in_two_passes(&text).is_ok(), is_read);
        }
    }
}
