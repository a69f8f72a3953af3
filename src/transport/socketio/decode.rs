//! From events of a client to commands.
//!
//! The commands of the native protocol are events whose names begin with a prefix; their one argument has the same fields.

use bytes::Bytes;

use super::offset;
use super::packet::{Kind, Packet};
use crate::error::{CloseReason, ErrorCode};
use crate::event::{EventName, Payload};
use crate::json::{self, Fields, Json, Members};
use crate::session::recovery::Claim;
use crate::session::{Answer, Command, Refusal, Request};
use crate::transport::native;
use crate::transport::protocol::Decoded;

/// The names of commands that differ from those of the native protocol.
const SHORT_NAMES: [(&str, &str); 3] = [
    ("presence", "presenceQuery"),
    ("history", "historyQuery"),
    ("userRooms", "userRoomsQuery"),
];

/// The reason in the refusal of an event that is no command.
pub(in crate::transport) const UNHANDLED: &str = "unhandled_event";

/// The id of a request whose sender waits for no acknowledgement.
pub(super) const UNACKNOWLEDGED: u32 = 0;

/// The id of the request that opens a session.
pub(in crate::transport) const CONNECT: u32 = u32::MAX;

/// The id of a request by the number of its acknowledgement, which may be 0.
const fn request_id(ack: Option<u32>) -> u32 {
    match ack {
        // Never the last number: `ACK_MAX` is below.
        Some(ack) => ack + 1,
        None => UNACKNOWLEDGED,
    }
}

/// Reads the token, and the claim to a session, out of the data of a CONNECT packet.
///
/// # Errors
/// [`CloseReason::ProtocolError`] for data that is no object.
pub(super) fn connect(data: &str) -> Result<(Option<String>, Option<Claim>), CloseReason> {
    if data.is_empty() {
        return Ok((None, None));
    }
    let auth = Members::parse(data).map_err(|_| CloseReason::ProtocolError)?;
    let claim = auth
        .text("pid")
        .and_then(|pid| offset::claim(&pid, auth.text("offset").as_deref()));
    Ok((auth.text("token"), claim))
}

/// Reads an event, or an acknowledgement, which answers an ask.
///
/// # Errors
/// [`CloseReason::ProtocolError`]: no array, an array without a name, a name that only libraries use, a placeholder of an attachment that
/// there is not.
pub(super) fn event(packet: &Packet<'_>, attachments: &[Bytes], prefix: &str) -> Result<Decoded, CloseReason> {
    const MALFORMED: CloseReason = CloseReason::ProtocolError;
    let elements = json::elements(packet.data).ok_or(MALFORMED)?;
    if packet.kind == Kind::Ack {
        let ask = packet.ack.ok_or(MALFORMED)?;
        let answer = answer(packet.data, &elements, attachments);
        let (id, command) = (UNACKNOWLEDGED, Command::Answer { ask, answer });
        return Ok(Decoded::Request(Request { id, command }));
    }
    let (first, arguments) = elements.split_first().ok_or(MALFORMED)?;
    let is_number = || first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let name = match json::string(first) {
        Some(name) => name,
        None if is_number() => (*first).to_owned(),
        None => return Err(MALFORMED),
    };
    if EventName::RESERVED.contains(&&*name) {
        return Err(MALFORMED);
    }
    let id = request_id(packet.ack);
    let read = match name.strip_prefix(prefix) {
        Some(command) => read(command, arguments, attachments),
        None => Err(Refusal {
            reason: UNHANDLED.to_owned(),
            ..Refusal::new(ErrorCode::Unsupported, "nothing here handles this event")
        }),
    };
    Ok(match read {
        Ok(command) => Decoded::Request(Request { id, command }),
        Err(refusal) => Decoded::Refused { id, refusal },
    })
}

/// Reads the answer in an acknowledgement: its one argument, `null` where there is none, and all as an array where there are
/// several. An attachment can only be the whole answer.
fn answer(data: &str, arguments: &[&str], attachments: &[Bytes]) -> Answer {
    let json = |text: &str| Json::parse(text.to_owned());
    let read = match (attachments, arguments) {
        ([], []) => json("null"),
        ([], [argument]) => json(argument),
        ([], _) => json(data),
        ([attachment], [argument]) if json(argument).is_ok_and(|json| placeholder(&json) == Some(0)) => {
            return Answer::Payload(Payload::Binary(attachment.clone()));
        }
        _ => return Answer::Unreadable,
    };
    read.map_or(Answer::Unreadable, |json| Answer::Payload(Payload::Json(json)))
}

/// Reads a command from the arguments of its event.
fn read(name: &str, arguments: &[&str], attachments: &[Bytes]) -> Result<Command, Refusal> {
    let invalid = |why: &str| Refusal::new(ErrorCode::InvalidArgument, why);
    let data = match arguments {
        [] | ["null"] => "{}",
        [data] => data,
        _ => return Err(invalid("a command has one argument, an object")),
    };
    let long = SHORT_NAMES.iter().find(|(short, _)| *short == name);
    let command = match long.map_or(name, |(_, long)| long) {
        // The session is open, by the CONNECT packet; what is asked is answered by an acknowledgement.
        "connect" | "answer" => None,
        name => native::json::named(name, data),
    };
    let command = command.ok_or_else(|| {
        let shown = crate::transport::prefix(name, 64);
        Refusal::new(ErrorCode::Unsupported, format!("there is no command `{shown}`"))
    })?;
    let mut command = command.map_err(|error| match error.code {
        // The JSON was read: what is wrong with it is no misuse of the protocol.
        ErrorCode::Malformed => invalid(&error.message),
        _ => error.refusal(),
    })?;
    match (attachments, payload_of(&mut command)) {
        ([], _) => Ok(command),
        ([attachment], Some(payload)) if is_placeholder(payload) => {
            *payload = Payload::Binary(attachment.clone());
            Ok(command)
        }
        _ => Err(invalid("binary data can only be a whole payload")),
    }
}

/// Returns the payload of a command that has one.
fn payload_of(command: &mut Command) -> Option<&mut Payload> {
    match command {
        Command::Publish { payload, .. } | Command::Ask { payload, .. } => Some(payload),
        _ => None,
    }
}

/// Reports whether a payload stands for the first attachment.
fn is_placeholder(payload: &Payload) -> bool {
    let Payload::Json(json) = payload else { return false };
    placeholder(json).is_some_and(|number| number == 0)
}

/// Returns the number of the attachment that a value stands for.
fn placeholder(json: &Json) -> Option<u32> {
    let mut fields = Fields::parse(json.as_str()).ok()?;
    let (is_one, number) = (fields.flag("_placeholder")?, fields.integer("num")?);
    (is_one && fields.wrong().is_none() && fields.others().next().is_none()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Retention;
    use crate::session::recovery::Pid;

    fn decode(text: &str, attachments: &[Bytes]) -> Result<Decoded, CloseReason> {
        event(&Packet::parse(text).unwrap(), attachments, "roomcast:")
    }

    fn request(text: &str, attachments: &[Bytes]) -> Request {
        match decode(text, attachments) {
            Ok(Decoded::Request(request)) => request,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refusal(text: &str, attachments: &[Bytes]) -> (u32, ErrorCode, String) {
        match decode(text, attachments) {
            Ok(Decoded::Refused { id, refusal }) => (id, refusal.code, refusal.reason),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn commands_are_events_with_a_prefix() {
        let leave = |room: &str| Command::Leave { room: room.to_owned() };
        let id_and_leave = request(r#"20["roomcast:leave",{"room":"r"}]"#, &[]);
        assert_eq!((id_and_leave.id, id_and_leave.command), (1, leave("r")));
        let unacknowledged = request(r#"2["roomcast:leave",{"room":"r"}]"#, &[]);
        assert_eq!(unacknowledged.id, UNACKNOWLEDGED);
        assert_eq!(request(r#"27["roomcast:ping"]"#, &[]).command, Command::Ping);
        assert_eq!(request(r#"27["roomcast:ping",null]"#, &[]).command, Command::Ping);
        let asked = request(r#"28["roomcast:presence",{"room":"r"}]"#, &[]).command;
        assert_eq!(asked, Command::Presence { room: "r".to_owned() });
        let largest = request(r#"24294967293["roomcast:ping"]"#, &[]).id;
        assert!(largest < CONNECT, "{largest}");
    }

    #[test]
    fn a_payload_may_be_one_attachment() {
        let text = r#"51-3["roomcast:publish",{"room":"r","eventName":"e","payload":{"_placeholder":true,"num":0}}]"#;
        let published = request(text, &[Bytes::from_static(b"\x04bytes")]).command;
        let expected = Command::Publish {
            room: "r".to_owned(),
            event_name: "e".to_owned(),
            payload: Payload::Binary(Bytes::from_static(b"\x04bytes")),
            retention: Retention::Reliable,
            key: String::new(),
        };
        assert_eq!(published, expected);
        for (num, attachments) in [("1", 1), ("0.5", 1), ("0", 2), ("\"0\"", 1)] {
            let text = text.replace("\"num\":0", &format!("\"num\":{num}"));
            let attachments = vec![Bytes::new(); attachments];
            assert_eq!(refusal(&text, &attachments).1, ErrorCode::InvalidArgument, "{text}");
        }
        let nested =
            r#"51-3["roomcast:publish",{"room":"r","eventName":"e","payload":[{"_placeholder":true,"num":0}]}]"#;
        assert_eq!(refusal(nested, &[Bytes::new()]).1, ErrorCode::InvalidArgument);
        // Without an attachment it is a value like any other.
        let plain = text.replace("51-3", "23");
        assert!(matches!(
            request(&plain, &[]).command,
            Command::Publish {
                payload: Payload::Json(_),
                ..
            }
        ));
    }

    #[test]
    fn what_nobody_handles_is_refused_in_words() {
        let unhandled = (6, ErrorCode::Unsupported, "unhandled_event".to_owned());
        assert_eq!(refusal(r#"25["chat",{"a":1}]"#, &[]), unhandled);
        assert_eq!(refusal(r"25[7]", &[]), unhandled);
        let unsupported = |text| assert_eq!(refusal(text, &[]).1, ErrorCode::Unsupported, "{text}");
        unsupported(r#"25["roomcast:fly"]"#);
        unsupported(r#"25["roomcast:connect",{"token":"t"}]"#);
        unsupported(r#"25["roomcast:leave",{"room":"r","colour":1}]"#);
        for text in [
            r#"25["roomcast:leave",{"room":"r"},2]"#,
            r#"25["roomcast:leave",7]"#,
            r#"25["roomcast:leave",{"room":7}]"#,
            r#"25["roomcast:leave",{"room":"r","room":"s"}]"#,
        ] {
            assert_eq!(refusal(text, &[]).1, ErrorCode::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn what_no_client_sends_ends_the_connection() {
        for text in [
            "2",
            "2{}",
            "2[]",
            "2[{}]",
            "2[null]",
            "2[\"a\"",
            "2[\"connect\"]",
            "2[\"newListener\"]",
            "3[]",
            "31{}",
        ] {
            assert_eq!(decode(text, &[]).map(|_| ()), Err(CloseReason::ProtocolError), "{text}");
        }
    }

    #[test]
    fn an_acknowledgement_answers_an_ask() {
        let answered = |text: &str, attachments: &[Bytes]| match request(text, attachments) {
            Request {
                id: UNACKNOWLEDGED,
                command: Command::Answer { ask: 12, answer },
            } => answer,
            other => panic!("{text}: {other:?}"),
        };
        let json = |text: &'static str| Answer::Payload(Payload::Json(Json::parse(text).unwrap()));
        let bytes = Bytes::from_static(b"\x04bytes");
        for (text, expected) in [
            ("312[]", json("null")),
            ("312[null]", json("null")),
            (r#"312["a"]"#, json(r#""a""#)),
            (r#"312[{ "n":1.0 }]"#, json(r#"{ "n":1.0 }"#)),
            (r#"3/custom,12["a", [2]]"#, json(r#"["a", [2]]"#)),
            // Without an attachment it is a value like any other.
            (
                r#"312[{"_placeholder":true,"num":0}]"#,
                json(r#"{"_placeholder":true,"num":0}"#),
            ),
            (r#"312["\ud800"]"#, Answer::Unreadable),
            (r#"312[{"__proto__":1}]"#, Answer::Unreadable),
        ] {
            assert_eq!(answered(text, &[]), expected, "{text}");
        }
        let one = r#"61-12[{"_placeholder":true,"num":0}]"#;
        assert_eq!(
            answered(one, std::slice::from_ref(&bytes)),
            Answer::Payload(Payload::Binary(bytes.clone()))
        );
        for text in [
            r#"61-12[{"_placeholder":true,"num":1}]"#,
            r#"61-12[{"file":{"_placeholder":true,"num":0}}]"#,
            r#"61-12["a",{"_placeholder":true,"num":0}]"#,
            "61-12[]",
        ] {
            assert_eq!(
                answered(text, std::slice::from_ref(&bytes)),
                Answer::Unreadable,
                "{text}"
            );
        }
        let two = r#"62-12[{"_placeholder":true,"num":0}]"#;
        assert_eq!(answered(two, &[bytes.clone(), bytes.clone()]), Answer::Unreadable);
    }

    #[test]
    fn the_token_stands_in_the_data_of_connect() {
        let token = |data| connect(data).map(|(token, _)| token);
        assert_eq!(token(""), Ok(None));
        assert_eq!(token(r#"{"a":1}"#), Ok(None));
        assert_eq!(token(r#"{"token":"a.b.c","x":[]}"#), Ok(Some("a.b.c".to_owned())));
        for text in ["[]", "\"a\"", "{", "7"] {
            assert_eq!(token(text), Err(CloseReason::ProtocolError), "{text}");
        }
        let claim = |data: &str| connect(data).unwrap().1;
        let pid = Pid::random();
        let claimed = claim(&format!(r#"{{"pid":"{pid}","offset":"AQA","token":"t"}}"#)).unwrap();
        assert_eq!((claimed.pid, claimed.offset), (pid, None));
        assert_eq!(claim(r#"{"pid":7}"#), None);
        assert_eq!(claim(r#"{"pid":"guessed"}"#), None);
    }
}
