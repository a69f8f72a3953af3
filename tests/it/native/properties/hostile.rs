//! Frames that no client of ours sends: what is malformed, invalid or unsupported, and told as that.

use prost::Message as _;
use roomcast::error::ErrorCode;
use roomcast::proto::client_v1::{ClientFrame, Connect, client_frame};
use roomcast::session::{Command, Request, Since};
use roomcast::transport::native::{json, protobuf};

use super::super::mapping::client_frame_to_protobuf;
use super::refused;

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
