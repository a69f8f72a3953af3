//! Names of events and rooms, from a client and from a backend.

use roomcast::proto::client_v1::{ErrorCode, Join, Publish};
use roomcast::proto::v1;
use serde_json::json;
use tonic::Code;

use crate::support::{Encoding, InRoom as _, Node, ToRoom as _, draft, over_encodings, reason, to_room, user};

over_encodings! {
    names_that_socket_io_keeps_for_itself_are_refused,
    event_names_are_bounded_and_hold_no_control_characters,
    rooms_are_compared_as_bytes_and_none_is_a_wildcard,
    names_that_are_no_rooms_are_refused,
}

async fn expect_event_name_refused(node: &Node, name: &str) {
    let mut ada = node.connect(user("ada")).await;
    let refusal = ada.try_publish(Publish::to("r", name, json!({}))).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.reason.as_str()),
        (ErrorCode::Invalid, "invalid_event_name"),
        "{name:?}"
    );
    let request = v1::PublishRequest {
        targets: vec![to_room("r")],
        ..draft(name, json!({}))
    };
    let refusal = node.backend().send(request).await.unwrap_err();
    assert_eq!(
        (refusal.code(), reason(&refusal).as_str()),
        (Code::InvalidArgument, "INVALID_EVENT_NAME"),
        "{name:?}"
    );
}

async fn names_that_socket_io_keeps_for_itself_are_refused(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    for name in [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
        "error",
    ] {
        expect_event_name_refused(&node, name).await;
    }
    for name in ["Connect", "connected", "errors", "message"] {
        node.backend().publish("r", name, json!({})).await;
        ben.expect_nothing_before(name).await;
    }
    node.finish().await;
}

async fn event_names_are_bounded_and_hold_no_control_characters(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    let (long, exact) = ("é".repeat(64) + "x", "é".repeat(64));
    for name in ["", &long, "a\nb", "a\0", "\u{85}", "\u{1b}[31m"] {
        expect_event_name_refused(&node, name).await;
    }
    let mut ada = node.connect(user("ada")).await;
    for name in [exact.as_str(), "task:created", "ünïcødé 🦀", " ", "\u{202e}"] {
        ada.publish("r", name, json!({})).await;
        ben.expect_nothing_before(name).await;
    }
    node.finish().await;
}

async fn rooms_are_compared_as_bytes_and_none_is_a_wildcard(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let exact = "r".repeat(255);
    // Twins under Unicode normalization and case folding, and what a message broker might read as a pattern.
    let rooms = [
        "caf\u{e9}",
        "cafe\u{301}",
        "Room",
        "room",
        "*",
        ">",
        "a.b",
        "a.*",
        "a.>",
        "$JS.API.>",
        "_INBOX.x",
        " ",
        "room ",
        "../../x",
        "\u{feff}",
        exact.as_str(),
    ];
    let mut ada = node.connect(user("ada")).await;
    for room in rooms {
        ada.join(room).await;
    }
    let backend = node.backend();
    for room in rooms {
        node.assert_reached(backend.publish(room, "one", json!({})).await.reached, 1);
        ada.expect_event(room, "one").await;
    }
    for room in ["a.c", "a", "anything", "$JS.API.INFO", "caf", "ROOM"] {
        node.assert_reached(backend.publish(room, "none", json!({})).await.reached, 0);
    }
    backend.publish("room", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn names_that_are_no_rooms_are_refused(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let long = "r".repeat(256);
    for room in ["", "a\0b", "a\r\nb", "\u{7f}", "a\u{9f}", "\u{1b}[31m", &long] {
        let mut ada = node.connect(user("ada")).await;
        let refusal = ada.try_join(Join::in_room(room)).await.unwrap_err();
        assert_eq!(
            (refusal.code(), refusal.reason.as_str()),
            (ErrorCode::Invalid, "invalid_room"),
            "{room:?}"
        );
        let refusal = ada.try_publish(Publish::to(room, "e", json!({}))).await.unwrap_err();
        assert_eq!(refusal.reason, "invalid_room", "{room:?}");
        let request = v1::PublishRequest {
            targets: vec![to_room(room)],
            ..draft("e", json!({}))
        };
        let refusal = node.backend().send(request).await.unwrap_err();
        assert_eq!(
            (refusal.code(), reason(&refusal).as_str()),
            (Code::InvalidArgument, "INVALID_ROOM"),
            "{room:?}"
        );
    }
    node.finish().await;
}
