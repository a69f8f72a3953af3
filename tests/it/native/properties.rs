//! What holds for any frame, and what hostile ones get.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use roomcast::error::ErrorCode;
use roomcast::event::{Event, EventId, EventName, Except, Payload, Retention, Timestamp};
use roomcast::identity::UserId;
use roomcast::json::Json;
use roomcast::position::{ChainLink, Epoch, Offset, Position};
use roomcast::proto::client_v1::{ClientFrame, Connect, client_frame};
use roomcast::room::{Room, Tenant};
use roomcast::session::{Command, Encoder, Request, Since};
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
fn what_is_no_command_is_malformed_and_told_with_its_id_where_it_has_one() {
    let cases = [
        ("", 0),
        ("null", 0),
        ("[]", 0),
        ("{}", 0),
        ("{\"ping\":{}}", 0),
        (r#"{"id":0,"ping":{}}"#, 0),
        (r#"{"id":-1,"ping":{}}"#, 0),
        (r#"{"id":4294967296,"ping":{}}"#, 0),
        (r#"{"id":"1","ping":{}}"#, 0),
        (r#"{"id":3}"#, 3),
        (r#"{"id":3,"ping":{}} x"#, 3),
        (r#"{"id":3,"ping":null}"#, 3),
        (r#"{"id":3,"ping":{},"leave":{}}"#, 3),
        (r#"{"id":3,"publish":{"room":"a","eventName":"e","payload":[1,}}"#, 3),
    ];
    for (text, id) in cases {
        assert_eq!(refused(text), (id, ErrorCode::Malformed), "{text}");
    }
    assert_eq!(protobuf::decode(&[0xff; 12]).unwrap_err().code, ErrorCode::Malformed);
    let without_id = client_frame_to_protobuf(&serde_json::json!({"ping": {}}));
    assert_eq!(protobuf::decode(&without_id).unwrap_err().code, ErrorCode::Malformed);
}

#[test]
fn keys_that_come_twice_and_prototypes_are_refused() {
    for text in [
        r#"{"id":3,"id":4,"ping":{}}"#,
        r#"{"id":3,"ping":{},"ping":{}}"#,
        r#"{"id":3,"leave":{"room":"a","room":"b"}}"#,
        r#"{"id":3,"leave":{"room":"a","r\u006fom":"b"}}"#,
    ] {
        assert_eq!(refused(text), (3, ErrorCode::Malformed), "{text}");
    }
    for text in [
        r#"{"id":3,"leave":{"room":"a"},"__proto__":{"admin":true}}"#,
        r#"{"id":3,"leave":{"room":"a","__proto__":{}}}"#,
    ] {
        assert_eq!(refused(text), (3, ErrorCode::Unsupported), "{text}");
    }
}

#[test]
fn a_value_that_is_not_acceptable_is_invalid_and_told_with_its_id() {
    for (text, said) in [
        (r#"{"id":3,"leave":{"room":7}}"#, "`room` must be a text"),
        (r#"{"id":3,"leave":{"room":["a"]}}"#, "`room` must be a text"),
        (r#"{"id":3,"leave":{"room":"a\ud800"}}"#, "`room` must be a text"),
        (r#"{"id":3,"leave":["a"]}"#, "`leave` must be an object"),
        (r#"{"id":3,"join":["open:x",null,0,true]}"#, "`join` must be an object"),
        (r#"{"id":3,"ping":[]}"#, "`ping` must be an object"),
        (r#"{"id":3,"ping":7}"#, "`ping` must be an object"),
        (
            r#"{"id":3,"join":{"room":"a","rewind":1.5}}"#,
            "`rewind` must be an integer",
        ),
        (
            r#"{"id":3,"join":{"room":"a","rewind":-1}}"#,
            "`rewind` must be an integer",
        ),
        (
            r#"{"id":3,"historyQuery":{"room":"a","limit":"5"}}"#,
            "`limit` must be an integer",
        ),
        (
            r#"{"id":3,"connect":{"resume":{"room":"a"}}}"#,
            "`resume` must be an array",
        ),
        (
            r#"{"id":3,"connect":{"resume":[["a",{}]]}}"#,
            "each element of `resume` must be an object",
        ),
        (
            r#"{"id":3,"connect":{"features":"a"}}"#,
            "`features` must be an array of texts",
        ),
        (
            r#"{"id":3,"publish":{"room":"a","eventName":"e","payload":"\ud83d"}}"#,
            "the payload is not acceptable JSON",
        ),
        (
            r#"{"id":3,"publish":{"room":"a","eventName":"e"}}"#,
            "neither payload nor binary",
        ),
        (
            r#"{"id":3,"publish":{"room":"a","eventName":"e","payload":null,"binary":"AA=="}}"#,
            "both payload and binary",
        ),
        (
            r#"{"id":3,"publish":{"room":"a","eventName":"e","binary":null}}"#,
            "neither payload nor binary",
        ),
    ] {
        let error = json::decode(text).expect_err(text);
        assert_eq!((error.id, error.code), (3, ErrorCode::InvalidArgument), "{text}");
        assert!(error.message.starts_with(said), "{text}: {error}");
    }
}

#[test]
fn a_number_is_taken_for_the_integer_it_equals() {
    for (written, plain) in [
        (r#"{"id":1.0,"ping":{}}"#, r#"{"id":1,"ping":{}}"#),
        (r#"{"id":1e2,"ping":{}}"#, r#"{"id":100,"ping":{}}"#),
        (
            r#"{"id":2,"join":{"room":"a","since":{"epoch":"7d1e5c0a93f24b86","offset":77.0}}}"#,
            r#"{"id":2,"join":{"room":"a","since":{"epoch":"7d1e5c0a93f24b86","offset":77}}}"#,
        ),
        (
            r#"{"id":2,"connect":{"resume":[{"room":"a","position":{"epoch":"7d1e5c0a93f24b86","offset":7.7e1}}]}}"#,
            r#"{"id":2,"connect":{"resume":[{"room":"a","position":{"epoch":"7d1e5c0a93f24b86","offset":77}}]}}"#,
        ),
        (
            r#"{"id":2,"join":{"room":"a","rewind":20.0}}"#,
            r#"{"id":2,"join":{"room":"a","rewind":20}}"#,
        ),
        (
            r#"{"id":2,"historyQuery":{"room":"a","limit":1E+1}}"#,
            r#"{"id":2,"historyQuery":{"room":"a","limit":10}}"#,
        ),
    ] {
        assert_eq!(
            json::decode(written).unwrap(),
            json::decode(plain).unwrap(),
            "{written}"
        );
    }
    // One that equals none is no id, and no position of ours.
    assert_eq!(refused(r#"{"id":1.5,"ping":{}}"#), (0, ErrorCode::Malformed));
    let unreadable = json::decode(r#"{"id":2,"join":{"room":"a","since":{"epoch":"7d1e5c0a93f24b86","offset":77.5}}}"#);
    let Command::Join { options, .. } = unreadable.unwrap().command else {
        panic!()
    };
    assert_eq!(options.since, Some(Since::Unreadable));
}

#[test]
fn null_is_absent_for_every_optional_field_and_a_payload_of_its_own() {
    for (_, text, _) in commands() {
        let Value::Object(frame) = serde_json::from_str(text).unwrap() else {
            panic!()
        };
        let (name, fields) = frame.iter().find(|(name, _)| *name != "id").unwrap();
        // With every field that is not there as null, and one that nobody knows.
        let known = [
            "token",
            "client",
            "resume",
            "features",
            "since",
            "rewind",
            "presence",
            "state",
            "requiredFeatures",
            "binary",
            "retention",
            "idempotencyKey",
            "userId",
            "after",
            "before",
            "limit",
            "of_another_version",
        ];
        let mut with_nulls = fields.as_object().unwrap().clone();
        for field in known {
            with_nulls.entry(field).or_insert(Value::Null);
        }
        let mut with_null = serde_json::json!({"id": frame["id"], "leave": null, "of_another_version": null});
        with_null[name] = with_nulls.into();
        let with_nulls = with_null.to_string();
        assert_eq!(
            json::decode(&with_nulls).unwrap(),
            json::decode(text).unwrap(),
            "{with_nulls}"
        );
    }
    let published = json::decode(r#"{"id":2,"publish":{"room":"a","eventName":"e","payload":null}}"#).unwrap();
    let Command::Publish {
        payload: Payload::Json(payload),
        ..
    } = published.command
    else {
        panic!()
    };
    assert_eq!(payload.as_str(), "null");
}

#[test]
fn a_command_of_another_version_is_unsupported() {
    assert_eq!(
        refused(r#"{"id":3,"teleport":{"room":"a"}}"#),
        (3, ErrorCode::Unsupported)
    );
    assert_eq!(refused(r#"{"id":3,"__proto__":{}}"#), (3, ErrorCode::Unsupported));
    for (text, named) in [
        (r#"{"id":3,"teleport":{"room":"a"}}"#, "`teleport`"),
        (r#"{"id":3,"ping":{},"deadline":5}"#, "`deadline`"),
        (r#"{"id":3,"ping":{"deep":true}}"#, "`deep` of `ping`"),
        (r#"{"id":3,"leave":{"room":"a","rooms":"b"}}"#, "`rooms` of `leave`"),
        // What is not known comes first: it may mean something else by what is.
        (r#"{"id":3,"publish":{"room":7,"event":"a"}}"#, "`event` of `publish`"),
        (
            r#"{"id":3,"connect":{"resume":[{"room":"a","at":{}}]}}"#,
            "`at` of `resume`",
        ),
        (
            r#"{"id":3,"join":{"room":"a","presence":"faces"}}"#,
            "presence is none of",
        ),
        (
            r#"{"id":3,"publish":{"room":"a","eventName":"e","payload":1,"retention":"eternal"}}"#,
            "the retention is none of",
        ),
        (r#"{"id":3,"join":{"room":"a","requiredFeatures":["x"]}}"#, "`x`"),
        // Of several it is the one that is not known.
        (
            r#"{"id":3,"join":{"room":"a","requiredFeatures":["history","x"]}}"#,
            "`x`",
        ),
    ] {
        let error = json::decode(text).expect_err(text);
        assert_eq!((error.id, error.code), (3, ErrorCode::Unsupported), "{text}");
        assert!(error.message.contains(named), "{text}: {error}");
    }
    // Id 3 and field 99 with an empty message.
    let error = protobuf::decode(&[0x08, 3, 0x9a, 0x06, 0]).unwrap_err();
    assert_eq!((error.id, error.code), (3, ErrorCode::Unsupported));
    assert!(error.message.contains("99"), "{error}");
    // A frame that says nothing but its id is none of another version.
    assert_eq!(protobuf::decode(&[0x08, 3]).unwrap_err().code, ErrorCode::Malformed);
}

#[test]
fn protobuf_skips_fields_of_another_version() {
    let mut frame = client_frame_to_protobuf(&serde_json::json!({"id": 3, "ping": {}}));
    frame.extend([0x9a, 0x06, 0]);
    assert_eq!(
        protobuf::decode(&frame),
        Ok(Request {
            id: 3,
            command: Command::Ping
        })
    );
}

#[test]
fn payloads_and_states_that_break_readers_are_refused() {
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let bomb = "[".repeat(60_000);
    let values = [
        deep.as_str(),
        r#""\ud800""#,
        r#"{"__proto__":{}}"#,
        r#"[{"a":{"__proto__":1}}]"#,
    ];
    for value in values {
        for text in [
            format!(r#"{{"id":3,"publish":{{"room":"a","eventName":"e","payload":{value}}}}}"#),
            format!(r#"{{"id":3,"request":{{"method":"m","payload":{value}}}}}"#),
            format!(r#"{{"id":3,"join":{{"room":"a","state":{value}}}}}"#),
            format!(r#"{{"id":3,"presenceUpdate":{{"room":"a","state":{value}}}}}"#),
        ] {
            assert_eq!(refused(&text), (3, ErrorCode::InvalidArgument), "{text}");
        }
    }
    assert_eq!(
        refused(&format!(r#"{{"id":3,"publish":{{"payload":{bomb}"#)),
        (3, ErrorCode::Malformed)
    );
    assert_eq!(refused(&format!(r#"{{"id":3,"x":{bomb}"#)), (3, ErrorCode::Malformed));
    for text in [&deep, "\"\\ud800\"", "{", ""] {
        let payload = roomcast::proto::client_v1::Payload {
            content: Some(roomcast::proto::client_v1::payload::Content::Json(text.to_owned())),
        };
        assert_eq!(
            protobuf_publish(Some(payload)).unwrap_err().code,
            ErrorCode::InvalidArgument,
            "{text}"
        );
    }
}

fn protobuf_publish(payload: Option<roomcast::proto::client_v1::Payload>) -> Result<Request, DecodeError> {
    use roomcast::proto::client_v1::{ClientFrame, Publish, client_frame};
    let publish = Publish {
        room: "a".to_owned(),
        event_name: "e".to_owned(),
        payload,
        ..Publish::default()
    };
    let frame = ClientFrame {
        id: 3,
        command: Some(client_frame::Command::Publish(publish)),
    };
    protobuf::decode(&prost::Message::encode_to_vec(&frame))
}

#[test]
fn exactly_one_payload_is_asked_for() {
    for text in [
        r#"{"id":3,"publish":{"room":"a","eventName":"e"}}"#,
        r#"{"id":3,"publish":{"room":"a","eventName":"e","payload":1,"binary":"AA=="}}"#,
        r#"{"id":3,"publish":{"room":"a","eventName":"e","binary":"A"}}"#,
    ] {
        assert_eq!(refused(text), (3, ErrorCode::InvalidArgument), "{text}");
    }
    assert_eq!(protobuf_publish(None).unwrap_err().code, ErrorCode::InvalidArgument);
    let unpadded = json::decode(r#"{"id":3,"publish":{"binary":"AA"}}"#).unwrap();
    let Command::Publish { payload, .. } = unpadded.command else {
        panic!()
    };
    assert_eq!(payload, Payload::Binary(Bytes::from_static(&[0])));
}

#[test]
fn what_cannot_be_a_position_of_ours_is_not_recovered_instead_of_refused() {
    for since in [
        r#"{"epoch":"7d1e5c0a93f24b86","offset":-1}"#,
        r#"{"epoch":"7d1e5c0a93f24b86","offset":18446744073709551616}"#,
        r#"{"epoch":"7d1e5c0a93f24b86","offset":1.5}"#,
        r#"{"epoch":"another kind","offset":1}"#,
        r#"{"offset":1}"#,
        r"{}",
        "17",
        r#""$""#,
        &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        let request = json::decode(&format!(r#"{{"id":3,"join":{{"room":"a","since":{since}}}}}"#)).unwrap();
        let Command::Join { options, .. } = request.command else {
            panic!()
        };
        assert_eq!(options.since, Some(Since::Unreadable), "{since}");
    }
    let nothing = json::decode(r#"{"id":3,"join":{"room":"a","since":null}}"#).unwrap();
    let Command::Join { options, .. } = nothing.command else {
        panic!()
    };
    assert_eq!(options.since, None);
}

#[test]
fn a_state_of_null_is_no_state() {
    for state in ["null", " null "] {
        let text = format!(r#"{{"id":3,"presenceUpdate":{{"room":"a","state":{state}}}}}"#);
        let Command::SetState { state, .. } = json::decode(&text).unwrap().command else {
            panic!()
        };
        assert_eq!(state, None);
    }
}

#[test]
fn a_connect_is_bounded() {
    let room = r#"{"room":"a","position":{"epoch":"7d1e5c0a93f24b86"}}"#;
    let connect = |rooms: usize| format!(r#"{{"id":1,"connect":{{"resume":[{}]}}}}"#, vec![room; rooms].join(","));
    assert!(json::decode(&connect(32)).is_ok());
    assert_eq!(refused(&connect(33)), (1, ErrorCode::InvalidArgument));
    let text = format!(r#"{{"id":1,"connect":{{"client":"{}"}}}}"#, "é".repeat(100));
    let Command::Connect { client, .. } = json::decode(&text).unwrap().command else {
        panic!()
    };
    assert_eq!(client, "é".repeat(64));
    for (features, characters, is_taken) in [(32, 64, true), (33, 64, false), (32, 65, false)] {
        let features = vec!["é".repeat(characters); features];
        let text = serde_json::json!({"id": 1, "connect": {"features": features}}).to_string();
        let connect = Connect {
            features,
            ..Connect::default()
        };
        let frame = ClientFrame {
            id: 1,
            command: Some(client_frame::Command::Connect(connect)),
        };
        let refused = [
            json::decode(&text).err(),
            protobuf::decode(&frame.encode_to_vec()).err(),
        ];
        for refused in refused {
            let expected = (!is_taken).then_some(ErrorCode::InvalidArgument);
            assert_eq!(refused.map(|error| error.code), expected, "{characters}");
        }
    }
}

#[test]
fn both_encodings_have_a_heartbeat_that_clients_answer_by_themselves() {
    assert_eq!(
        (&JsonProtocol.heartbeat()[..], &ProtobufProtocol.heartbeat()[..]),
        (&[0x89, 0][..], &[0x89, 0][..])
    );
}
