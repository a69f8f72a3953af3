//! Payloads and states: one of its kind, and nothing that breaks a reader.

use bytes::Bytes;
use roomcast::error::ErrorCode;
use roomcast::event::Payload;
use roomcast::session::{Command, Request};
use roomcast::transport::native::{DecodeError, json, protobuf};
use serde_json::Value;

use super::super::commands::commands;
use super::refused;
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
fn a_state_of_null_is_no_state() {
    for state in ["null", " null "] {
        let text = format!(r#"{{"id":3,"presenceUpdate":{{"room":"a","state":{state}}}}}"#);
        let Command::SetState { state, .. } = json::decode(&text).unwrap().command else {
            panic!()
        };
        assert_eq!(state, None);
    }
}
