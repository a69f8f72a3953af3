//! The ends of streams: each is told, and none makes a browser ask for ever.

use std::time::Duration;

use futures_util::future::join_all;
use roomcast::counters::ConnectionRefused;
use roomcast::gateway::Config;
use roomcast::proto::v1;
use roomcast::proto::v1::disconnect_request::Session;
use roomcast::rate::Rate;
use roomcast::transport::http::Origins;
use serde_json::json;

use super::reader::Asking;
use crate::support::{Encoding, Node, TENANT, alone_and_over_nats, revocation_of, user};

alone_and_over_nats! {
    a_revoked_room_is_told_and_no_longer_resumed,
    a_kicked_stream_is_stopped_by_204,
    a_disconnected_stream_may_come_back,
    a_drained_stream_comes_back,
}

async fn a_revoked_room_is_told_and_no_longer_resumed() {
    let node = Node::start(Encoding::Json).await;
    let asking = Asking::of(&user("ada"), "?room=a&room=b");
    let (mut reader, _) = asking.join(&node, ["a", "b"]).await;
    let mut access = node.backend().access;
    let request = v1::RevokeRequest {
        reason: "project_left".to_owned(),
        ..revocation_of("ada", v1::revoke_request::Scope::Room("a".to_owned()))
    };
    access.revoke(request).await.unwrap();
    let left = reader.expect("roomcast:roomLeft").await;
    assert_eq!(
        left.json(),
        json!({"room": "a", "cause": "revoked", "reason": "project_left"})
    );
    // It goes on in the other one, also when it comes back.
    let backend = node.backend();
    backend.publish("a", "unheard", json!(0)).await;
    backend.publish("b", "heard", json!(0)).await;
    let id = reader.expect("heard").await.id;
    reader.cut().await;
    let mut again = asking.after(&id).open(&node).await;
    again.expect("roomcast:connected").await;
    let refused = again.expect("roomcast:refused").await.json();
    assert_eq!(
        (&refused["index"], &refused["reason"]),
        (&json!(0), &json!("forbidden"))
    );
    let joined = again.expect("roomcast:joined").await.json();
    assert_eq!((&joined["room"], &joined["recovered"]), (&json!("b"), &json!(true)));
    // One that has asked for nothing else is over.
    let mut alone = Asking::of(&user("ada"), "?room=a").open(&node).await;
    alone.expect("roomcast:connected").await;
    alone.expect("roomcast:refused").await;
    assert_eq!(alone.expect_closing().await, ("forbidden".to_owned(), false));
    node.finish().await;
}

async fn disconnect(node: &Node, may_reconnect: bool) {
    let request = v1::DisconnectRequest {
        tenant: TENANT.to_owned(),
        session: Some(Session::UserId("ada".to_owned())),
        reason: "moving".to_owned(),
        may_reconnect,
        ..Default::default()
    };
    node.backend().connections.disconnect(request).await.unwrap();
}

async fn a_kicked_stream_is_stopped_by_204() {
    let node = Node::start(Encoding::Json).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let (mut reader, _) = asking.join(&node, ["r"]).await;
    disconnect(&node, false).await;
    assert_eq!(reader.expect("roomcast:disconnected").await.json()["reason"], "moving");
    assert_eq!(reader.expect_closing().await, ("moving".to_owned(), false));
    // A browser shows what it was given. It is stopped before its token is looked at.
    for again in [
        asking.after(&reader.id),
        Asking::anonymous(&format!("?last_event_id={}", reader.id)),
    ] {
        let (_, status, head) = again.asked(&node, "GET", "1.1").await;
        assert_eq!(status, 204, "{head}");
        assert!(head.contains("cache-control: no-store\r\n"), "{head}");
    }
    node.finish().await;
}

async fn a_disconnected_stream_may_come_back() {
    let node = Node::start(Encoding::Json).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let (mut reader, _) = asking.join(&node, ["r"]).await;
    disconnect(&node, true).await;
    reader.expect("roomcast:disconnected").await;
    assert_eq!(reader.expect_closing().await, ("moving".to_owned(), true));
    let (_, recovered) = asking.after(&reader.id).join(&node, ["r"]).await;
    assert_eq!(recovered, [true]);
    node.finish().await;
}

async fn a_drained_stream_comes_back() {
    let mut node = Node::start(Encoding::Json).await;
    let (mut reader, _) = Asking::of(&user("ada"), "?room=r").join(&node, ["r"]).await;
    let told = async {
        assert_eq!(
            reader.expect("roomcast:reconnectAdvice").await.json()["reason"],
            "draining"
        );
        assert_eq!(reader.expect_closing().await, ("draining".to_owned(), true));
    };
    tokio::join!(told, node.shut_down());
}

#[tokio::test]
async fn a_refused_token_is_told_within_a_200() {
    let node = Node::start(Encoding::Json).await;
    let ada = user("ada");
    for (asking, reason) in [
        (Asking::anonymous("?room=r"), "unauthenticated"),
        (
            Asking::anonymous("?room=r").header("authorization", "Bearer a.b.c"),
            "unauthenticated",
        ),
        // In the query only where that is allowed.
        (
            Asking::anonymous(&format!("?room=r&token={}", ada.token())),
            "unauthenticated",
        ),
        (Asking::of(&user("ada").expires_in(-60), "?room=r"), "token_expired"),
    ] {
        let mut reader = asking.open(&node).await;
        let refused = reader.expect("roomcast:refused").await.json();
        assert_eq!((&refused["reason"], refused.get("index")), (&json!(reason), None));
        assert_eq!(reader.expect_closing().await, (reason.to_owned(), false));
    }
    node.finish().await;
}

#[tokio::test]
async fn an_expired_token_ends_the_stream_for_good() {
    let early = |config: &mut Config| config.session.expiry_notice = Duration::from_secs(60);
    let node = Node::with(Encoding::Json, early).await;
    let (mut reader, _) = Asking::of(&user("ada").expires_in(2), "?room=r")
        .join(&node, ["r"])
        .await;
    assert!(reader.expect("roomcast:expiring").await.json()["expiresAtMs"].is_u64());
    assert_eq!(
        reader.expect("roomcast:refused").await.json()["reason"],
        "token_expired"
    );
    assert_eq!(reader.expect_closing().await, ("token_expired".to_owned(), false));
    node.finish().await;
}

#[tokio::test]
async fn a_user_with_too_many_streams_is_told_so() {
    let few = |config: &mut Config| config.connections.per_user_max = 1;
    let node = Node::with(Encoding::Json, few).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let (_first, _) = asking.join(&node, ["r"]).await;
    let mut second = asking.open(&node).await;
    second.expect("roomcast:refused").await;
    assert_eq!(second.expect_closing().await, ("connection_limit".to_owned(), false));
    node.finish().await;
}

#[tokio::test]
async fn a_full_node_is_told_within_a_200() {
    let full = |config: &mut Config| config.connections.connections_max = 1;
    let node = Node::with(Encoding::Json, full).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let (_first, _) = asking.join(&node, ["r"]).await;
    let (mut raw, status, head) = asking.asked(&node, "GET", "1.1").await;
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    let body = String::from_utf8(raw.until_closed().await).unwrap();
    assert_eq!(
        body,
        "retry: 6000\nevent: roomcast:closing\ndata: {\"code\":4006,\"reason\":\"overloaded\",\"reconnect\":true}\n\n"
    );
    node.finish().await;
}

#[tokio::test]
async fn a_storm_is_told_within_200s_that_pages_may_read() {
    let slow = |config: &mut Config| {
        config.client.origins = Origins::Listed(vec!["https://app.example".to_owned()]);
        config.client.connect_rate = Rate {
            per_second: 1,
            burst: 1,
        };
    };
    let node = Node::with(Encoding::Json, slow).await;
    let asking = Asking::of(&user("ada"), "?room=r").header("origin", "https://app.example");
    // All at once: one by one, a slow machine would make no storm.
    let storm = join_all((0..50).map(|_| asking.asked(&node, "GET", "1.1"))).await;
    let mut turned_away = 0;
    for (mut raw, status, head) in storm {
        assert_eq!(status, 200, "{head}");
        assert!(
            head.contains("access-control-allow-origin: https://app.example\r\n"),
            "{head}"
        );
        if head.contains("content-length: ") {
            let body = String::from_utf8(raw.until_closed().await).unwrap();
            assert!(body.contains("\"overloaded\",\"reconnect\":true"), "{body}");
            turned_away += 1;
        }
    }
    assert!(turned_away > 0);
    assert!(node.refused(ConnectionRefused::Busy) >= turned_away);
    node.finish().await;
}

#[tokio::test]
async fn a_slow_reader_gets_whole_events_and_goes_on_where_it_was() {
    let small = |config: &mut Config| {
        config.sockets.outbox.outbox_bytes_max = 128 * 1024;
        config.session.replay.bytes_max = 64 << 20;
        config.session.replay.events_max = 5000;
        config.bus.history = roomcast::bus::history::HistoryRules::new(
            [],
            roomcast::bus::history::HistoryLimits {
                events_max: 5000,
                bytes_max: 64 << 20,
                ..Default::default()
            },
        );
    };
    let node = Node::with(Encoding::Json, small).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let (mut reader, _) = asking.join(&node, ["r"]).await;
    let (backend, padding, mut count) = (node.backend(), "x".repeat(16 * 1024), 0);
    while node.connections() > 0 {
        assert!(count < 2000, "a reader that does not read is still there");
        backend.publish("r", "n", json!([count, padding])).await;
        count += 1;
    }
    let mut next = 0;
    let id = loop {
        let before = reader.id.clone();
        let event = reader.next().await;
        if event.name == "roomcast:closing" {
            assert_eq!(event.json()["reason"], "slow_consumer");
            assert_eq!(event.id, before, "the id of an event that was not sent");
            break before;
        }
        assert_eq!(event.json()[0], next);
        next += 1;
    };
    assert!(next < count, "{next} of {count}");
    let mut again = asking.after(&id).open(&node).await;
    again.expect("roomcast:connected").await;
    assert_eq!(again.expect("roomcast:joined").await.json()["recovered"], true);
    for n in next..count {
        assert_eq!(again.expect("n").await.json()[0], n);
    }
    node.finish().await;
}
