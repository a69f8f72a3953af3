//! What holds for any frame, and what hostile ones get.

mod hostile;
mod payloads;

use proptest::prelude::*;
use roomcast::error::ErrorCode;
use roomcast::event::{Event, EventId, EventName, Except, Payload, Retention, Timestamp};
use roomcast::identity::UserId;
use roomcast::json::Json;
use roomcast::position::{ChainLink, Epoch, Offset, Position};
use roomcast::room::{Room, Tenant};
use roomcast::session::Encoder;
use roomcast::transport::native::DecodeError;
use roomcast::transport::native::json::{self, JsonProtocol};
use roomcast::transport::native::protobuf::{self, ProtobufProtocol};
use serde_json::Value;

use super::commands::commands;
use super::mapping::{client_frame_to_protobuf, server_frame_to_json};
use super::unframed;
fn payload() -> impl Strategy<Value = Payload> {
    let text = any::<String>().prop_map(|text| Json::from(&Value::from(text)));
    let other = prop::sample::select(vec![
        "null",
        " [1, -2.5e300,\t{}]\n",
        "\"\\ud83d\\ude00\"",
        "{\"a\":{\"a\":0}}",
    ])
    .prop_map(|text| Json::parse(text.as_bytes()).unwrap());
    prop_oneof![
        prop_oneof![text, other].prop_map(Payload::Json),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Payload::Binary(bytes.into())),
    ]
}

fn link() -> impl Strategy<Value = ChainLink> {
    (any::<u64>(), 1..1_u64 << 53, any::<u64>()).prop_map(|(epoch, offset, prev)| ChainLink {
        position: Position {
            epoch: Epoch::from_bits(epoch),
            offset: Offset(offset),
        },
        prev: Offset(prev % offset),
    })
}

fn event() -> impl Strategy<Value = Event> {
    let retention = prop::sample::select(vec![Retention::Ephemeral, Retention::Reliable, Retention::LastValue]);
    let names = ("[^\\pC]{1,60}", "[^\\pC]{1,30}", prop::option::of("[^\\pC]{1,30}"));
    let names = names.prop_filter("short enough", |(room, name, user)| {
        room.len() < 255 && name.len() < 128 && user.as_ref().is_none_or(|user| user.len() < 128)
    });
    (
        names,
        any::<u128>(),
        retention,
        prop::option::of(link()),
        0..1_u64 << 53,
        payload(),
    )
        .prop_map(|((room, name, actor), id, retention, link, time, payload)| Event {
            room: Room::parse(&Tenant::default(), &room).unwrap(),
            id: EventId::from_bits(id),
            name: EventName::parse(&format!("{name}!")).unwrap(),
            retention,
            link,
            time: Timestamp(time),
            actor: actor.map(|actor| UserId::parse(&actor).unwrap()),
            except: Except::NOBODY,
            payload,
        })
}

/// A golden command with something done to it.
fn damaged_command() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let at = any::<prop::sample::Index>();
    (prop::sample::select(commands()), at, any::<u8>(), 0..4_u8).prop_map(|((_, text, _), at, byte, what)| {
        let protobuf = client_frame_to_protobuf(&serde_json::from_str(text).unwrap());
        let damage = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            bytes
        };
        (damage(text.as_bytes().to_vec()), damage(protobuf))
    })
}

proptest! {
    #[test]
    fn both_encodings_say_the_same_of_any_event(event in event()) {
        let (json, protobuf) = (JsonProtocol.event(&event), ProtobufProtocol.event(&event));
        let json: Value = serde_json::from_slice(unframed(&json).1).unwrap();
        prop_assert_eq!(&json, &server_frame_to_json(unframed(&protobuf).1));
        let told = &json["event"];
        prop_assert_eq!(told["room"].as_str(), Some(event.room.name()));
        prop_assert_eq!(told["eventName"].as_str(), Some(event.name.as_str()));
        prop_assert_eq!(told["offset"].as_u64(), event.offset().map(|offset| offset.0));
        if let Payload::Json(payload) = &event.payload {
            prop_assert_eq!(&told["payload"], &serde_json::from_str::<Value>(payload.as_str()).unwrap());
        }
        if event.link.is_some() {
            let (json, protobuf) = (JsonProtocol.passed(&event).unwrap(), ProtobufProtocol.passed(&event).unwrap());
            let json: Value = serde_json::from_slice(unframed(&json).1).unwrap();
            prop_assert_eq!(json, server_frame_to_json(unframed(&protobuf).1));
        }
    }

    #[test]
    fn nothing_a_client_sends_breaks_the_reader(
        (text, bytes) in prop_oneof![
            damaged_command(),
            (prop::collection::vec(any::<u8>(), 0..80), prop::collection::vec(any::<u8>(), 0..80)),
        ],
    ) {
        let answers = [json::decode(&String::from_utf8_lossy(&text)), protobuf::decode(&bytes)];
        for error in answers.into_iter().filter_map(Result::err) {
            prop_assert!(error.message.len() <= DecodeError::MESSAGE_BYTES_MAX && !error.message.is_empty());
        }
    }
}

fn refused(text: &str) -> (u32, ErrorCode) {
    let error = json::decode(text).expect_err(text);
    (error.id, error.code)
}

#[test]
fn both_encodings_have_a_heartbeat_that_clients_answer_by_themselves() {
    assert_eq!(
        (&JsonProtocol.heartbeat()[..], &ProtobufProtocol.heartbeat()[..]),
        (&[0x89, 0][..], &[0x89, 0][..])
    );
}
