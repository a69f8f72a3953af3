//! Targets of the fuzzer for what clients of Socket.IO send: `fuzz/`, and the short run in the tests. Each takes bytes of a client and
//! panics where an invariant does not hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;

use super::Application;
use super::inbox::{Inbox, Namespaces};
use super::packet::{Engine, Kind, Packet};
use super::payload::{self, Answer, PACKETS_PER_ANSWER, Part};
use super::query::Query;
use crate::error::CloseReason;
use crate::session::ProtocolId;
use crate::transport::websocket::frame::{binary_frame, text_frame};

/// The bounds of the targets: as small as lets both sides of them be reached.
const PACKETS_MAX: usize = 20;
const BYTES_MAX: usize = 2_000;

/// Separates the messages of [`messages`].
const BREAK: u8 = b'\n';

fn namespaces() -> Namespaces {
    Namespaces {
        list: [("/".into(), ProtocolId::new(2)), ("/custom".into(), ProtocolId::new(3))].into(),
        prefix: "roomcast:".into(),
        application: Application::SocketIo,
    }
}

/// Parses an Engine.IO packet, and the Socket.IO packet in it; one that is written again is read as the same.
pub fn packet(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(engine) = Engine::parse(text) else { return };
    match engine {
        Engine::Ping(data) => assert_eq!(format!("2{data}"), text),
        Engine::Message(data) => {
            assert_eq!(format!("4{data}"), text);
            if let Ok(packet) = Packet::parse(data) {
                assert!(packet.attachments <= Packet::ATTACHMENTS_MAX);
                let written = written(&packet);
                assert_eq!(Packet::parse(&written), Ok(packet), "{written}");
            }
        }
        Engine::Close | Engine::Pong | Engine::Upgrade | Engine::Noop => {}
    }
}

/// Writes a packet as a client does that names every namespace.
fn written(packet: &Packet<'_>) -> String {
    let kind = match (packet.kind, packet.attachments) {
        (Kind::Connect, _) => "0".to_owned(),
        (Kind::Disconnect, _) => "1".to_owned(),
        (Kind::Event, 0) => "2".to_owned(),
        (Kind::Ack, 0) => "3".to_owned(),
        (Kind::Event, count) => format!("5{count}-"),
        (Kind::Ack, count) => format!("6{count}-"),
    };
    let ack = packet.ack.map_or_else(String::new, |ack| ack.to_string());
    format!("{kind}{},{ack}{}", packet.namespace, packet.data)
}

/// Splits the body of a polling request; what is answered to a poll is split into the same.
pub fn polling_body(bytes: &[u8]) {
    let Ok(parts) = payload::parts(bytes, PACKETS_MAX) else {
        return;
    };
    assert!(parts.len() <= PACKETS_MAX);
    let frames: Vec<Bytes> = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text_frame(text),
            Part::Binary(bytes) => binary_frame(bytes),
        })
        .collect();
    let mut waiting: Bytes = frames.concat().into();
    let mut bodies = Vec::new();
    while !waiting.is_empty() {
        let (mut answer, before) = (Answer::default(), waiting.len());
        answer.take_from(&mut waiting);
        assert!(waiting.len() < before, "an answer takes something");
        bodies.push(answer.into_body().expect("it has taken something"));
    }
    let mut answered = Vec::new();
    for body in &bodies {
        let part = payload::parts(body, PACKETS_PER_ANSWER).expect("a client can read it");
        answered.extend(part);
    }
    assert_eq!(answered, parts);
}

/// Reads messages of a WebSocket, one behind the other; those that begin with `b` are binary. As bodies of polling requests, one
/// or many, they come to the same.
pub fn messages(bytes: &[u8]) {
    let (namespaces, mut inbox) = (namespaces(), Inbox::default());
    let (mut steps, mut failed, mut bodies) = (Vec::new(), None, Vec::new());
    for message in bytes.split(|byte| *byte == BREAK).take(PACKETS_MAX) {
        let (body, step) = match message.strip_prefix(b"b") {
            Some(binary) if binary.len() <= BYTES_MAX => (
                format!("b{}", STANDARD.encode(binary)),
                inbox.binary(binary, BYTES_MAX, &namespaces),
            ),
            Some(_) => return,
            None => match std::str::from_utf8(message) {
                Ok(text) if !text.contains('\u{1e}') => (text.to_owned(), inbox.text(text, &namespaces)),
                _ => return,
            },
        };
        bodies.push(body);
        assert!(inbox.held_bytes() <= bytes.len() + BYTES_MAX, "what is held is bounded");
        match step {
            Ok(step) => steps.extend(step.map(|step| format!("{step:?}"))),
            Err(reason) => {
                failed = Some(reason);
                break;
            }
        }
    }
    let expected = failed.map_or(Ok(steps), Err);
    let whole = [bodies.join("\u{1e}")];
    assert_eq!(polled(&whole, &namespaces), expected, "in one body: {whole:?}");
    assert_eq!(
        polled(&bodies, &namespaces),
        expected,
        "in bodies of their own: {bodies:?}"
    );
}

fn polled(bodies: &[String], namespaces: &Namespaces) -> Result<Vec<String>, CloseReason> {
    let (mut inbox, mut steps) = (Inbox::default(), Vec::new());
    for body in bodies {
        let read = inbox.packets(body.as_bytes(), (PACKETS_MAX, BYTES_MAX), namespaces)?;
        steps.extend(read.into_iter().map(|step| format!("{step:?}")));
    }
    Ok(steps)
}

/// Checks the parameters of a request by each method.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let query = Query::of(text);
    for method in [Method::GET, Method::POST, Method::OPTIONS, Method::DELETE] {
        if let Err(error) = query.check(&method) {
            assert_eq!(error.response().status(), http::StatusCode::BAD_REQUEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::mutator::run;

    #[test]
    fn mutated_packets_hold_the_invariants() {
        run("socketio_packet", super::packet);
    }

    #[test]
    fn mutated_polling_bodies_hold_the_invariants() {
        run("socketio_polling", super::polling_body);
    }

    #[test]
    fn mutated_messages_hold_the_invariants() {
        run("socketio_messages", super::messages);
    }

    #[test]
    fn mutated_queries_hold_the_invariants() {
        run("socketio_query", super::query);
    }
}
