//! Requests for streams, good ones and bad ones.

use roomcast::gateway::Config;
use roomcast::transport::http::Origins;
use roomcast::transport::{native, sse};
use serde_json::json;

use super::reader::Asking;
use crate::support::{Encoding, Node, user};

const APP: &str = "https://app.example";

fn for_pages(config: &mut Config) {
    config.client.origins = Origins::Listed(vec![APP.to_owned()]);
    config.client.token_in_query = true;
    let streams = sse::Config {
        cookie: Some("session".to_owned()),
        ..sse::Config::default()
    };
    config.protocols = sse::add_to(native::protocols(), &streams);
}

#[tokio::test]
async fn what_can_never_be_answered_is_refused_by_a_status() {
    let node = Node::start(Encoding::Json).await;
    let many = format!("?{}", "room=r&".repeat(129));
    let long = format!("?room={}", "r".repeat(8200));
    for (query, method, version, expected) in [
        ("?room=%zz", "GET", "1.1", 400),
        ("?room=%FF", "GET", "1.1", 400),
        ("?rewind=many", "GET", "1.1", 400),
        ("?presence=all", "GET", "1.1", 400),
        ("?envelope=perhaps", "GET", "1.1", 400),
        (&*many, "GET", "1.1", 400),
        (&*long, "GET", "1.1", 414),
        ("?room=r", "GET", "1.0", 505),
        ("?room=r", "POST", "1.1", 405),
        ("?room=r", "DELETE", "1.1", 405),
        ("?room=r", "HEAD", "1.1", 200),
    ] {
        let (_, status, head) = Asking::of(&user("ada"), query).asked(&node, method, version).await;
        assert_eq!(status, expected, "{method} {query}: {head}");
    }
    assert_eq!(node.connections(), 0);
    node.finish().await;
}

#[tokio::test]
async fn rooms_are_named_in_every_spelling() {
    let node = Node::start(Encoding::Json).await;
    let query = "?room=a+b&room=a%20b&x=1&room=%C3%A9%2B&room=a%0Ab&room=";
    let mut reader = Asking::of(&user("ada"), query).open(&node).await;
    reader.expect("roomcast:connected").await;
    for room in ["a b", "é+"] {
        assert_eq!(reader.expect("roomcast:joined").await.json()["room"], room);
    }
    for index in [3, 4] {
        let refused = reader.expect("roomcast:refused").await.json();
        assert_eq!(
            (&refused["index"], &refused["reason"]),
            (&json!(index), &json!("invalid_room"))
        );
    }
    node.backend().publish("é+", "n", json!(1)).await;
    reader.expect("n").await;
    node.finish().await;
}

#[tokio::test]
async fn a_stream_has_as_many_rooms_as_a_session_may_have() {
    let few = |config: &mut Config| config.session.rooms_max = 2;
    let node = Node::with(Encoding::Json, few).await;
    let mut reader = Asking::of(&user("ada"), "?room=a&room=b&room=c").open(&node).await;
    reader.expect("roomcast:connected").await;
    reader.expect("roomcast:joined").await;
    reader.expect("roomcast:joined").await;
    assert_eq!(reader.expect("roomcast:refused").await.json()["reason"], "room_limit");
    node.finish().await;
}

#[tokio::test]
async fn a_stream_without_rooms_waits_and_rewinds_with_rooms() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    for n in 0..5 {
        backend.publish("r", "n", json!(n)).await;
    }
    let (mut reader, _) = Asking::of(&user("ada"), "?room=r&rewind=2").join(&node, ["r"]).await;
    for n in 3..5 {
        assert_eq!(reader.expect("n").await.json(), n);
    }
    let (roomless, []) = Asking::of(&user("ada"), "").join(&node, []).await;
    assert_eq!(roomless.id, "AQA");
    node.until_connections(2).await;
    node.finish().await;
}

#[tokio::test]
async fn a_listed_page_may_ask_with_a_cookie_and_read_the_answer() {
    let node = Node::with(Encoding::Json, for_pages).await;
    let cookie = format!("a=b; session={}", user("ada").token());
    let asking = Asking::anonymous("?room=r").header("cookie", &cookie);
    let from = |origin| asking.clone().header("origin", origin);
    let (_, status, head) = from(APP).asked(&node, "GET", "1.1").await;
    assert_eq!(status, 200);
    for line in [
        "access-control-allow-origin: https://app.example\r\n",
        "access-control-allow-credentials: true\r\n",
        "vary: origin\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    from(APP).join(&node, ["r"]).await;
    asking
        .clone()
        .header("sec-fetch-site", "same-origin")
        .join(&node, ["r"])
        .await;
    let (_, status, _) = from("https://evil.example").asked(&node, "GET", "1.1").await;
    assert_eq!(status, 403);
    // Of another site that does not say which, the cookie does not count.
    let mut hidden = asking.clone().header("sec-fetch-site", "cross-site").open(&node).await;
    hidden.expect("roomcast:refused").await;
    // A token that was named goes before one that was not.
    let mut named = Asking::anonymous("?room=r&token=x")
        .header("cookie", &cookie)
        .open(&node)
        .await;
    named.expect("roomcast:refused").await;
    let (_, status, head) = from(APP)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization, last-event-id")
        .asked(&node, "OPTIONS", "1.1")
        .await;
    assert_eq!(status, 204, "{head}");
    for line in [
        "access-control-allow-methods: get, head\r\n",
        "access-control-allow-headers: authorization, cache-control, last-event-id\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    node.finish().await;
}

#[tokio::test]
async fn a_cookie_counts_for_nothing_where_every_page_may_ask() {
    let open = |config: &mut Config| {
        for_pages(config);
        config.client.origins = Origins::Any;
    };
    let node = Node::with(Encoding::Json, open).await;
    let cookie = format!("session={}", user("ada").token());
    let mut reader = Asking::anonymous("?room=r").header("cookie", &cookie).open(&node).await;
    reader.expect("roomcast:refused").await;
    node.finish().await;
}

#[tokio::test]
async fn a_disabled_path_is_not_there() {
    let disabled = |config: &mut Config| {
        let streams = sse::Config {
            enabled: false,
            ..sse::Config::default()
        };
        config.protocols = sse::add_to(native::protocols(), &streams);
    };
    let node = Node::with(Encoding::Json, disabled).await;
    let (_, status, _) = Asking::of(&user("ada"), "?room=r").asked(&node, "GET", "1.1").await;
    assert_eq!(status, 404);
    node.finish().await;
}

#[tokio::test]
async fn nothing_is_taken_behind_the_request() {
    let node = Node::start(Encoding::Json).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let (mut reader, _) = asking.join(&node, ["r"]).await;
    reader.raw.send(asking.request("GET", "1.1").as_bytes()).await;
    assert_eq!(reader.expect_closing().await, ("policy_violation".to_owned(), false));
    node.until_connections(0).await;
    node.finish().await;
}
