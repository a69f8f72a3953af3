//! HTTP long-polling.

use futures_util::future::join_all;
use roomcast::proto::v1;
use roomcast::transport::http::Origins;
use serde_json::json;

use super::speakers::{POLLING, Poller, answer, command_packet, node, node_with, request, send_request, with_socketio};
use crate::support::raw::upgrade;
use crate::support::{Encoding, Node, alone_and_over_nats, eventually, revocation_of, user};

// Over NATS each request goes to another gateway than the one before.
alone_and_over_nats! {
    a_client_that_polls_gets_everything_in_order,
    a_request_brings_several_packets_and_binary_data,
    a_second_poll_ends_the_connection,
    bad_bodies_end_the_connection,
    a_connection_is_used_with_its_own_credential_only,
    pages_are_held_to_one_list_of_origins,
    what_a_client_does_not_poll_is_bounded,
}

async fn a_client_that_polls_gets_everything_in_order() {
    let node = node().await;
    let ada = Poller::connect(&node, &user("ada")).await;
    let joined = ada.command(0, "join", &json!({"room": "r"})).await;
    assert_eq!(joined["ok"], json!(true));
    // A poll that waits is answered by an event.
    let backend = node.backend();
    let (packets, _) = tokio::join!(ada.poll(), backend.publish("r", "news", json!(0)));
    assert_eq!(packets, "42[\"news\",0]");
    for n in 1..=50 {
        node.backend().publish("r", "news", json!(n)).await;
    }
    // At most sixteen at a time: more end the connection of python-engineio.
    let mut heard = Vec::new();
    while heard.len() < 50 {
        let packets = ada.poll().await;
        let packets: Vec<&str> = packets.split('\u{1e}').collect();
        assert!(packets.len() <= 16, "{}", packets.len());
        heard.extend(packets.into_iter().map(str::to_owned));
    }
    let expected: Vec<String> = (1..=50).map(|n| format!("42[\"news\",{n}]")).collect();
    assert_eq!(heard, expected);
    ada.post("1").await;
    node.until_connections(0).await;
    node.finish().await;
}

async fn a_request_brings_several_packets_and_binary_data() {
    let node = node().await;
    let ada = Poller::connect(&node, &user("ada")).await;
    let publish = r#"451-1["roomcast:publish",{"room":"r","eventName":"e","payload":{"_placeholder":true,"num":0}}]"#;
    let join = command_packet(0, "join", &json!({"room": "r"}));
    ada.post(&format!("{join}\u{1e}{publish}\u{1e}bAQIDBA==\u{1e}3\u{1e}6"))
        .await;
    let packets = ada.poll_until("431[").await;
    let packets = if packets.contains("bAQIDBA==") {
        packets
    } else {
        format!("{packets}\u{1e}{}", ada.poll_until("bAQIDBA==").await)
    };
    assert!(
        packets.contains("451-[\"e\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQIDBA=="),
        "{packets}"
    );
    ada.post("1").await;
    assert_eq!(ada.try_poll().await.0, 400);
    node.finish().await;
}

#[tokio::test]
async fn the_end_answers_the_poll_that_waits() {
    let node = node().await;
    eventually("a poll that waited", || async {
        let ada = Poller::open(&node).await;
        // Which of the two arrives first is not known.
        let ((status, body), ()) = tokio::join!(ada.try_poll(), ada.post("1"));
        assert!(status == 400 || body == "6", "{status} {body}");
        (status == 200).then_some(())
    })
    .await;
    node.finish().await;
}

async fn a_second_poll_ends_the_connection() {
    let node = node().await;
    let ada = Poller::open(&node).await;
    // Either may come first.
    let (one, other) = tokio::join!(ada.try_poll(), ada.try_poll());
    let mut both = [one, other];
    both.sort();
    assert_eq!(both[0], (200, "1".to_owned()));
    assert_eq!(both[1].0, 400);
    assert_eq!(ada.try_poll().await.0, 400);
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_poll_that_is_given_up_ends_the_connection() {
    let node = Node::with(Encoding::Json, |config| {
        // No ping falls due: it is the end of the poll that ends the connection.
        with_socketio(config, |settings| {
            settings.ping_interval = std::time::Duration::from_secs(600);
        });
        config.client.handshakes_max = 1;
    })
    .await;
    let ada = Poller::open(&node).await;
    let mut raw = node.raw().await;
    send_request(&mut raw, "GET", &ada.query(), "", "").await;
    until_a_place_is_free(&node).await;
    raw.end_own_side().await;
    node.until_connections(0).await;
    assert_eq!(ada.try_poll().await.0, 400);
    node.finish().await;
}

async fn bad_bodies_end_the_connection() {
    let node = node().await;
    let many = ["6"; 1001].join("\u{1e}");
    for body in ["", "abc", "4", "40\u{1e}", "b?", "2", "5", &many] {
        let ada = Poller::connect(&node, &user("ada")).await;
        let (status, text) = ada.try_post(body).await;
        assert!(
            status == 400 || (status, &*text) == (200, "ok"),
            "{body}: {status} {text}"
        );
        assert_eq!(ada.try_poll().await.0, 400, "{body}");
    }
    // As many as may be are taken.
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.post(&["6"; 1000].join("\u{1e}")).await;
    // Bytes are base64 in this version.
    let binary = "content-type: application/octet-stream\r\n";
    let (status, ..) = request(&node, "POST", &ada.query(), binary, "4x").await;
    assert_eq!(status, 400);
    assert_eq!(ada.try_poll().await.0, 400);
    // A body that is too large is not read, and harms nobody.
    let bob = Poller::connect(&node, &user("bob")).await;
    assert_eq!(bob.try_post(&"x".repeat(103_126)).await.0, 413);
    bob.post("1").await;
    node.until_connections(0).await;
    node.finish().await;
}

async fn a_connection_is_used_with_its_own_credential_only() {
    let node = node().await;
    let bearer = |id: &str| format!("authorization: Bearer {}\r\n", user(id).token());
    // Made once: a token says when it was made.
    let ada = bearer("ada");
    let (status, body, _) = request(&node, "GET", POLLING, &ada, "").await;
    assert_eq!(status, 200);
    let sid = body.split('"').nth(3).unwrap();
    let query = format!("{POLLING}&sid={sid}");
    for headers in [String::new(), bearer("eve")] {
        let (status, body, _) = request(&node, "GET", &query, &headers, "").await;
        assert_eq!((status, &*body), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
        assert_eq!(request(&node, "POST", &query, &headers, "40").await.0, 400);
        // Nor can it be ended so.
        let binary = format!("{headers}content-type: application/octet-stream\r\n");
        assert_eq!(request(&node, "POST", &query, &binary, "4x").await.0, 400);
    }
    // The token of the handshake opens the session.
    assert_eq!(request(&node, "POST", &query, &ada, "40").await.0, 200);
    let (_, body, _) = request(&node, "GET", &query, &ada, "").await;
    assert!(body.starts_with("40{\"sid\":"), "{body}");
    assert!(!body.contains(sid), "the secret is no public id");
    assert_eq!(request(&node, "POST", &query, &ada, "1").await.0, 200);
    node.finish().await;
}

async fn pages_are_held_to_one_list_of_origins() {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.client.origins = Origins::Listed(vec!["https://app.example".to_owned()]);
    })
    .await;
    let shared = "access-control-allow-origin: https://app.example\r\n";
    let listed = "origin: https://app.example\r\n";
    let (status, body, head) = request(&node, "GET", POLLING, listed, "").await;
    assert_eq!(status, 200);
    assert!(
        head.contains(shared) && head.contains("access-control-allow-credentials: true\r\n"),
        "{head}"
    );
    let query = format!("{POLLING}&sid={}", body.split('"').nth(3).unwrap());
    assert_eq!(request(&node, "POST", &query, listed, "1").await.0, 200);
    // Errors can be read as well.
    for (method, query, body) in [
        ("GET", "EIO=4".to_owned(), String::new()),
        ("POST", query.clone(), "4x".to_owned()),
        ("POST", query.clone(), "x".repeat(100_001)),
    ] {
        let (status, _, head) = request(&node, method, &query, listed, &body).await;
        assert!(status >= 400 && head.contains(shared), "{status} {head}");
    }
    // The preflight comes without an id, and asks for any header.
    let asked = "access-control-request-method: POST\r\naccess-control-request-headers: content-type,x-app\r\n";
    let (status, _, head) = request(&node, "OPTIONS", POLLING, &format!("{listed}{asked}"), "").await;
    assert_eq!(status, 204);
    assert!(
        head.contains("access-control-allow-headers: content-type,x-app\r\n"),
        "{head}"
    );
    for origin in ["https://evil.example", "null", "https://app.example.evil"] {
        let headers = format!("origin: {origin}\r\n");
        let (status, _, head) = request(&node, "GET", POLLING, &headers, "").await;
        assert!(
            status == 403 && !head.contains("access-control-allow-origin"),
            "{origin}: {head}"
        );
        let mut raw = node.raw().await;
        let handshake = upgrade(&[("origin", origin)]).replace("/v1/ws", "/socket.io/?EIO=4&transport=websocket");
        raw.send(handshake.as_bytes()).await;
        assert_eq!(raw.head().await.0, 403, "{origin}");
    }
    node.until_connections(0).await;
    node.finish().await;
}

/// Waits until a newcomer is let in. A poll gives its place back once it waits.
async fn until_a_place_is_free(node: &Node) {
    eventually("a place for a newcomer", || async {
        let mut raw = node.raw().await;
        send_request(&mut raw, "GET", "EIO=4", "", "").await;
        (raw.head().await.0 == 400).then_some(())
    })
    .await;
}

#[tokio::test]
async fn polls_that_wait_take_no_places_of_newcomers() {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.client.handshakes_max = 4;
    })
    .await;
    let mut clients = Vec::new();
    for n in 0..10 {
        let client = Poller::connect(&node, &user(&format!("user {n}"))).await;
        client.command(0, "join", &json!({"room": "r"})).await;
        clients.push(client);
    }
    let mut waiting = Vec::new();
    for client in &clients {
        let mut raw = node.raw().await;
        send_request(&mut raw, "GET", &client.query(), "", "").await;
        until_a_place_is_free(&node).await;
        waiting.push(raw);
    }
    node.backend().publish("r", "news", json!(1)).await;
    let answers = join_all(waiting.iter_mut().map(answer)).await;
    for (status, body, _) in answers {
        assert_eq!((status, &*body), (200, "42[\"news\",1]"));
    }
    for client in &clients {
        client.post("1").await;
    }
    node.finish().await;
}

async fn what_a_client_does_not_poll_is_bounded() {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.sockets.outbox.outbox_bytes_max = 64 * 1024;
    })
    .await;
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    let padding = "x".repeat(16 * 1024);
    for _ in 0..8 {
        node.backend().publish("r", "news", json!(padding)).await;
    }
    node.until_connections(0).await;
    assert_eq!(ada.try_poll().await.0, 400);
    node.finish().await;
}

#[tokio::test]
async fn a_silent_client_is_closed_also_while_it_polls() {
    let node = node_with(super::speakers::hasty).await;
    let ada = Poller::open(&node).await;
    assert_eq!(ada.poll().await, "2");
    ada.post("3").await;
    assert_eq!(ada.poll().await, "2");
    // The answer does not come.
    let (status, _) = ada.try_poll().await;
    assert!(status == 503 || status == 400, "{status}");
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_poll_that_waits_brings_the_advice_of_a_drain() {
    let mut node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.client.handshakes_max = 1;
    })
    .await;
    let query = Poller::connect(&node, &user("ada")).await.query();
    let mut raw = node.raw().await;
    send_request(&mut raw, "GET", &query, "", "").await;
    until_a_place_is_free(&node).await;
    let ((status, body, _), ()) = tokio::join!(answer(&mut raw), node.shut_down());
    assert_eq!(status, 200, "{body}");
    assert!(body.starts_with("42[\"roomcast:reconnectAdvice\","), "{body}");
}

#[tokio::test]
async fn a_client_that_polls_is_told_of_a_revocation_and_stays() {
    let node = node().await;
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    let request = revocation_of("ada", v1::revoke_request::Scope::Room("r".to_owned()));
    node.backend().access.revoke(request.clone()).await.unwrap();
    let told = ada.poll().await;
    assert!(
        told.starts_with("42[\"roomcast:roomLeft\",{\"room\":\"r\",\"cause\":\"revoked\""),
        "{told}"
    );
    // With an event that waits it is closed: nothing of the room may reach it any more.
    ada.command(1, "join", &json!({"room": "s"})).await;
    node.backend().publish("s", "news", json!(1)).await;
    let of_s = v1::RevokeRequest {
        scope: Some(v1::revoke_request::Scope::Room("s".to_owned())),
        ..request
    };
    node.backend().access.revoke(of_s).await.unwrap();
    node.until_connections(0).await;
    assert_eq!(ada.try_poll().await.0, 400);
    node.finish().await;
}
