//! From polling to a WebSocket.

use serde_json::json;

use super::speakers::{POLLING, Poller, WEBSOCKET, Wire, hasty, node, node_with, request};
use crate::support::user;

/// A WebSocket for the connection of a client that polls, probed.
async fn probed(node: &crate::support::Node, client: &Poller<'_>) -> Wire {
    let mut wire = Wire::upgrade(node, &format!("{WEBSOCKET}&sid={}", client.sid)).await;
    wire.say("2probe").await;
    assert_eq!(wire.hear().await, "3probe");
    wire
}

#[tokio::test]
async fn nothing_is_lost_doubled_or_reordered_by_an_upgrade() {
    let node = node().await;
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    let (backend, mut heard) = (node.backend(), Vec::new());
    for n in 0..5 {
        backend.publish("r", "news", json!(n)).await;
    }
    heard.extend(ada.poll_until("[\"news\",4]").await.split('\u{1e}').map(str::to_owned));
    let mut wire = probed(&node, &ada).await;
    for n in 5..25 {
        backend.publish("r", "news", json!(n)).await;
    }
    // A poll during the probe is released with nothing, each time.
    assert_eq!(ada.poll().await, "6");
    assert_eq!(ada.poll().await, "6");
    // Swift posts a packet of nothing, others may have commands under way.
    ada.post("6").await;
    ada.post("427[\"roomcast:ping\"]").await;
    wire.say("5").await;
    for n in 25..30 {
        backend.publish("r", "news", json!(n)).await;
    }
    while heard.len() < 31 {
        heard.push(wire.hear().await);
    }
    let pong = heard.iter().position(|packet| packet.starts_with("437[")).unwrap();
    heard.remove(pong);
    let expected: Vec<String> = (0..30).map(|n| format!("42[\"news\",{n}]")).collect();
    assert_eq!(heard, expected);
    // Polling is over, and so is upgrading.
    assert_eq!(ada.try_poll().await.0, 400);
    let mut second = Wire::upgrade(&node, &format!("{WEBSOCKET}&sid={}", ada.sid)).await;
    second.until_ended().await;
    assert_eq!(wire.command(8, "ping", &json!({})).await["ok"], json!(true));
    node.until_connections(1).await;
    wire.close().await;
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_post_that_was_under_way_is_carried_out_after_the_upgrade_and_no_other() {
    let node = node().await;
    let ada = Poller::connect(&node, &user("ada")).await;
    let mut wire = probed(&node, &ada).await;
    wire.say("5").await;
    assert_eq!(wire.command(0, "ping", &json!({})).await["ok"], json!(true));
    // However long it was under way.
    ada.post("421[\"roomcast:ping\"]").await;
    assert!(wire.hear().await.starts_with("431["));
    assert_eq!(ada.try_post("422[\"roomcast:ping\"]").await.0, 400);
    assert_eq!(wire.command(3, "ping", &json!({})).await["ok"], json!(true));
    wire.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_probe_that_fails_leaves_polling_as_it_was() {
    let node = node_with(|settings| settings.upgrade_timeout = std::time::Duration::from_millis(300)).await;
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    let query = format!("{WEBSOCKET}&sid={}", ada.sid);
    for first in ["5", "40", "2", "x", "2probe "] {
        let mut wire = Wire::upgrade(&node, &query).await;
        wire.say(first).await;
        assert_eq!(wire.close_code().await, 1002, "{first}");
    }
    // Nothing follows the probe; meanwhile a second WebSocket is of no use.
    let mut wire = probed(&node, &ada).await;
    Wire::upgrade(&node, &query).await.until_ended().await;
    node.backend().publish("r", "news", json!(1)).await;
    assert_eq!(wire.close_code().await, 1008);
    assert_eq!(ada.poll().await, "42[\"news\",1]");
    // One that is cut off.
    let wire = probed(&node, &ada).await;
    drop(wire);
    node.backend().publish("r", "news", json!(2)).await;
    let mut packets = ada.poll().await;
    while packets == "6" {
        packets = ada.poll().await;
    }
    assert_eq!(packets, "42[\"news\",2]");
    ada.post("1").await;
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_ping_that_falls_due_during_an_upgrade_survives_it() {
    let node = node_with(hasty).await;
    let ada = Poller::open(&node).await;
    let mut wire = probed(&node, &ada).await;
    // The time of the ping is over when another connection has had its own.
    let mut other = Wire::open(&node).await;
    assert_eq!(other.hear().await, "2");
    wire.say("5").await;
    assert_eq!(wire.hear().await, "2");
    wire.say("3").await;
    assert_eq!(wire.hear().await, "2");
    // The silent ones are closed.
    assert_eq!(wire.close_code().await, 4003);
    assert_eq!(other.close_code().await, 4003);
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn an_upgrade_needs_the_connections_credential() {
    let node = node().await;
    let bearer = format!("authorization: Bearer {}\r\n", user("ada").token());
    let (_, body, _) = request(&node, "GET", POLLING, &bearer, "").await;
    let sid = body.split('"').nth(3).unwrap();
    Wire::upgrade(&node, &format!("{WEBSOCKET}&sid={sid}"))
        .await
        .until_ended()
        .await;
    let query = format!("{POLLING}&sid={sid}");
    assert_eq!(request(&node, "POST", &query, &bearer, "1").await.0, 200);
    node.until_connections(0).await;
    node.finish().await;
}
