use super::*;
use crate::event::{EventId, EventName, Except, Retention, Timestamp};
use crate::json::Json;
use crate::position::{Epoch, Offset, Position};
use crate::room::{Room, Tenant};
use crate::transport::websocket::frame::text_frame;

fn event_in(name: &str, payload: Payload) -> Event {
    let tenant = Tenant::parse("t").unwrap();
    Event {
        room: Room::parse(&tenant, "r").unwrap(),
        id: EventId::random(),
        name: EventName::parse(name).unwrap(),
        link: None,
        time: Timestamp(1),
        retention: Retention::Ephemeral,
        payload,
        actor: None,
        except: Except::NOBODY,
    }
}

fn event_of(namespace: &str, name: &str, payload: Payload) -> Frame {
    Namespace::new(namespace, &super::super::Config::default(), Vec::new()).event(&event_in(name, payload))
}

fn json(text: &'static str) -> Payload {
    Payload::Json(Json::parse(text).unwrap())
}

#[test]
fn events_are_packets_of_their_namespace() {
    assert_eq!(
        event_of("/", "said", json("{ \"n\": 1.0 }")),
        text_frame("42[\"said\",{ \"n\": 1.0 }]")
    );
    assert_eq!(
        event_of("/custom", "a\"b", json("null")),
        text_frame("42/custom,[\"a\\\"b\",null]")
    );
    let binary = event_of("/custom", "file", Payload::Binary(bytes::Bytes::from_static(b"\x04")));
    let packet = text_frame("451-/custom,[\"file\",{\"_placeholder\":true,\"num\":0}]");
    assert_eq!(binary, [packet, binary_frame(b"\x04")].concat());
}

#[test]
fn no_publisher_can_imitate_the_gateway() {
    let told = event_of("/", "roomcast:roomLeft", json("{}"));
    assert_eq!(told, text_frame("42[\"roomcast:roomcast:roomLeft\",{}]"));
}

#[test]
fn asks_are_events_with_an_acknowledgement() {
    let asked = |namespace: &str, payload| {
        let namespace = Namespace::new(namespace, &super::super::Config::default(), Vec::new());
        let (ask, method) = (12, EventName::parse("confirm").unwrap());
        namespace.message(0, &Message::Asked { ask, method, payload })
    };
    assert_eq!(asked("/", json("{}")), text_frame("4212[\"confirm\",{}]"));
    let binary = asked("/custom", Payload::Binary(bytes::Bytes::from_static(b"\x04")));
    let packet = text_frame("451-/custom,12[\"confirm\",{\"_placeholder\":true,\"num\":0}]");
    assert_eq!(binary, [packet, binary_frame(b"\x04")].concat());
}

#[test]
fn a_resync_says_where_its_room_goes_on() {
    let room = Room::parse(&Tenant::parse("t").unwrap(), "r").unwrap();
    let head = Position {
        epoch: Epoch::from_bits(1),
        offset: Offset(7),
    };
    let namespace = Namespace::new("/", &super::super::Config::default(), Vec::new());
    let told = namespace.message(0, &Message::Resync { room, head });
    let data = r#"{"room":"r","head":{"epoch":"0000000000000001","offset":7}}"#;
    assert_eq!(told, text_frame(&format!("42[\"roomcast:resync\",{data}]")));
}

/// Completes an event for one connection, as one run of frames.
fn completed(payload: Payload, recovery: &Recovery) -> Frame {
    let config = crate::transport::socketio::Config {
        recovery: Some(std::time::Duration::from_secs(120)),
        ..Default::default()
    };
    let namespace = Namespace::new("/custom", &config, Vec::new());
    let event = event_in("said", payload);
    let shared = namespace.event(&event);
    match namespace.complete(&shared, recovery) {
        Ending::None => shared,
        Ending::Tail(tail) => [shared, tail].concat().into(),
        Ending::Whole(whole) => whole,
    }
}

/// Reads a run of frames back: the bodies, those of one message joined.
fn messages(mut run: Frame) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    while let Some(frame) = split_first(&mut run) {
        let text = |body: &Frame| String::from_utf8(body.to_vec()).unwrap();
        match frame {
            Written::Text(body) | Written::OpenText(body) | Written::Binary(body) => messages.push(text(&body)),
            Written::Tail(body) => messages.last_mut().unwrap().push_str(&text(&body)),
            Written::Control => panic!("a control frame"),
        }
    }
    messages
}

#[test]
fn an_event_is_completed_by_the_offset_of_its_connection() {
    let mut recovery = Recovery {
        ticket: Some(crate::session::recovery::Pid::random().into()),
        ..Recovery::default()
    };
    let mut offset = Vec::new();
    offset::write(&recovery, &mut offset);
    let offset = String::from_utf8(offset).unwrap();
    let bytes = || Payload::Binary(bytes::Bytes::from_static(b"\x04"));
    assert_eq!(
        messages(completed(json("7"), &recovery)),
        [format!("42/custom,[\"said\",7,\"{offset}\"]")]
    );
    let packet = format!("451-/custom,[\"said\",{{\"_placeholder\":true,\"num\":0}},\"{offset}\"]");
    assert_eq!(messages(completed(bytes(), &recovery)), [packet, "\x04".to_owned()]);
    // Nothing is kept of the session: a client that was given no secret takes no argument for an offset.
    recovery.ticket = None;
    assert_eq!(messages(completed(json("7"), &recovery)), ["42/custom,[\"said\",7]"]);
}
