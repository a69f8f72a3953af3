//! The connection around a session: upgrade, frames, the end of a side.

use std::time::{Duration, Instant};

use roomcast::proto::client_v1::Ping;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{connect_with, now_ms};
use crate::support::raw::{self, FIN, TEXT};
use crate::support::{Encoding, Ended, Node, over_encodings, user};
over_encodings! {
    a_ping_is_answered,
    a_client_that_closes_gets_its_close_frame_back,
    a_message_of_the_wrong_kind_ends_the_connection,
}

async fn a_ping_is_answered(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let Ok(Said::Pong(pong)) = ada.ask(Command::Ping(Ping {})).await else {
        panic!("no pong")
    };
    assert!((pong.server_time_ms - now_ms()).abs() < 30_000);
    node.finish().await;
}

async fn a_client_that_closes_gets_its_close_frame_back(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    ada.say_raw(Message::Close(Some(
        tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: 1000.into(),
            reason: "bye".into(),
        },
    )))
    .await;
    let Ended::Closed { code, .. } = ada.end().await else {
        panic!("no close frame")
    };
    assert_eq!(code, 1000);
    node.until_connections(0).await;
    node.finish().await;
}

async fn a_message_of_the_wrong_kind_ends_the_connection(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let wrong = match encoding {
        Encoding::Json => Message::binary(vec![8, 1]),
        Encoding::Protobuf => Message::text("{\"id\":1,\"ping\":{}}"),
    };
    ada.say_raw(wrong).await;
    ada.expect_close(1003).await;
    node.finish().await;
}

#[tokio::test]
async fn who_offers_no_subprotocol_speaks_json_and_who_offers_none_that_is_known_is_refused() {
    let node = Node::start(Encoding::Json).await;
    let mut plain = node.raw().await;
    plain.send(raw::upgrade(&[]).as_bytes()).await;
    let (status, head) = plain.head().await;
    assert_eq!(status, 101);
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    plain.frame(FIN | TEXT, b"{\"id\":9,\"ping\":{}}").await;
    let (first, payload) = plain.next_frame().await;
    let text = String::from_utf8(payload).unwrap();
    assert!(
        first == FIN | TEXT && text.contains("\"id\":9") && text.contains("unauthenticated"),
        "{text}"
    );
    let mut foreign = node.raw().await;
    foreign
        .send(raw::upgrade(&[("sec-websocket-protocol", "graphql-ws")]).as_bytes())
        .await;
    assert_eq!(foreign.head().await.0, 400);
    node.finish().await;
}

#[tokio::test]
async fn ten_wrong_tokens_take_no_longer_than_it_takes() {
    // A guard against a refusal that waits: everything a stranger can cause is answered at once.
    let node = Node::start(Encoding::Json).await;
    let start = Instant::now();
    for _ in 0..10 {
        let mut client = node.open().await;
        connect_with(&mut client, "hello").await.unwrap_err();
        client.expect_close(4501).await;
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    node.finish().await;
}

#[tokio::test]
async fn who_does_not_wait_for_the_upgrade_is_heard() {
    let node = Node::start(Encoding::Json).await;
    let connect = json!({"id": 1, "connect": {"token": user("ada").token()}}).to_string();
    let join = json!({"id": 2, "join": {"room": "r"}}).to_string();
    let upgrade = raw::upgrade(&[]).into_bytes();
    let frames = [
        raw::masked(FIN | TEXT, connect.as_bytes()),
        raw::masked(FIN | TEXT, join.as_bytes()),
    ]
    .concat();
    // Whole, and cut within a frame.
    for cut in [frames.len(), 100] {
        let mut eager = node.raw().await;
        eager.send(&[&upgrade[..], &frames[..cut]].concat()).await;
        assert_eq!(eager.head().await.0, 101);
        eager.send(&frames[cut..]).await;
        for expected in ["\"connected\"", "\"joined\""] {
            let text = String::from_utf8(eager.next_frame().await.1).unwrap();
            assert!(text.contains(expected), "{text}");
        }
    }
    node.finish().await;
}

#[tokio::test]
async fn who_ends_its_side_without_a_word_is_let_go() {
    let node = Node::start(Encoding::Json).await;
    let mut half = node.raw().await;
    half.upgrade(&[]).await;
    node.until_connections(1).await;
    half.end_own_side().await;
    half.until_closed().await;
    node.until_connections(0).await;
    node.finish().await;
}
