//! Engine.IO 4 and Socket.IO 5, as far as room servers and the gateway use them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Heard, Since, event};

/// Ends a packet of a polling request's body: Engine.IO 4, "Payload encoding".
pub(in super::super) const SEPARATOR: u8 = 0x1e;

/// The handshake of Engine.IO.
#[derive(Deserialize)]
struct Open {
    sid: String,
}

/// The acknowledgement of a command.
#[derive(Default, Deserialize)]
struct Answer {
    error: Option<Value>,
    #[serde(default)]
    recovered: bool,
}

/// Opens the session. A room server asks for no token.
pub(super) fn connect(token: &str) -> String {
    match token {
        "" => "40".to_owned(),
        token => format!("40{}", json!({"token": token})),
    }
}

/// Joins a room of the gateway.
pub(super) fn join(number: u32, room: &str, since: Since<'_>) -> String {
    let mut fields = json!({"room": room});
    if let Some(at) = since {
        fields["since"] = json!({"epoch": at.epoch, "offset": at.offset});
    }
    format!("42{number}{}", json!(["roomcast:join", fields]))
}

/// Joins all these rooms of a room server.
pub(super) fn join_all(rooms: &[String]) -> String {
    format!("420{}", json!(["join", rooms]))
}

pub(super) fn leave(room: &str) -> String {
    format!("420{}", json!(["roomcast:leave", {"room": room}]))
}

/// Reads a packet of a server. `place` is where the last stamp stood.
pub(super) fn hear(packet: &[u8], place: &mut usize) -> Heard {
    match packet {
        [b'0', open @ ..] => match serde_json::from_slice::<Open>(open) {
            Ok(open) => Heard::Opened(open.sid),
            Err(_) => Heard::Refused("the server does not speak Engine.IO 4".to_owned()),
        },
        b"2" => Heard::Ping,
        [b'4', b'0', ..] => Heard::Connected,
        [b'4', b'2', rest @ ..] if rest.starts_with(b"[\"roomcast:") => match rest {
            rest if rest.starts_with(b"[\"roomcast:resync") => Heard::Resync,
            rest if rest.starts_with(b"[\"roomcast:error") => {
                Heard::Refused(String::from_utf8_lossy(rest).into_owned())
            }
            _ => Heard::Other,
        },
        [b'4', b'2', ..] => event(packet, place),
        [b'4', b'3', rest @ ..] => acknowledged(rest),
        [b'1', ..] | [b'4', b'1' | b'4', ..] => Heard::Refused(String::from_utf8_lossy(packet).into_owned()),
        _ => Heard::Other,
    }
}

/// A room server acknowledges without an argument, the gateway with an object.
fn acknowledged(rest: &[u8]) -> Heard {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let answer = serde_json::from_slice::<Vec<Answer>>(&rest[digits..]);
    match answer.map(|mut answers| answers.pop().unwrap_or_default()) {
        Ok(Answer { error: Some(error), .. }) => Heard::Refused(error.to_string()),
        Ok(Answer { recovered: exact, .. }) => Heard::Joined { exact },
        Err(_) => Heard::Joined { exact: false },
    }
}
