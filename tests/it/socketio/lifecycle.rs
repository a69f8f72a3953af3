//! How sessions and connections end, and what the client is told: it decides whether a stock client comes back.

use std::time::Duration;

use roomcast::proto::v1;
use roomcast::proto::v1::disconnect_request::Session;
use serde_json::json;

use super::speakers::{Poller, Wire, connect_packet, node, node_with, with_socketio};
use crate::support::{Encoding, Node, TENANT, user};

async fn disconnect(node: &Node, id: &str, may_reconnect: bool) {
    let request = v1::DisconnectRequest {
        tenant: TENANT.to_owned(),
        session: Some(Session::UserId(id.to_owned())),
        reason: "moving".to_owned(),
        may_reconnect,
        ..Default::default()
    };
    node.backend().connections.disconnect(request).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_told_with_its_code() {
    let node = node().await;
    let mut wire = Wire::open(&node).await;
    for (packet, code, text) in [
        (
            "40".to_owned(),
            "unauthenticated",
            "Authentication error: authentication token missing or invalid",
        ),
        (
            "40{\"token\":\"x\"}".to_owned(),
            "unauthenticated",
            "Authentication error: authentication token missing or invalid",
        ),
        (
            connect_packet(&user("ada").expires_in(-3600)),
            "token_expired",
            "Authentication error: authentication token expired",
        ),
    ] {
        wire.say(&packet).await;
        let refused = wire.hear().await;
        let refused: serde_json::Value = serde_json::from_str(refused.strip_prefix("44").unwrap()).unwrap();
        assert_eq!(
            (&refused["message"], &refused["data"]["code"]),
            (&json!(text), &json!(code)),
            "{packet}"
        );
    }
    // The connection stays: the application may have a better token.
    wire.say(&connect_packet(&user("ada"))).await;
    assert!(wire.hear().await.starts_with("40{"));
    wire.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_is_kicked_leaves_its_namespace_and_one_that_may_come_back_its_connection() {
    let node = node().await;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    ada.say(&connect_packet(&user("eve")).replacen("40", "40/custom,", 1))
        .await;
    assert!(ada.hear().await.starts_with("40/custom,"));
    disconnect(&node, "ada", false).await;
    assert!(
        ada.hear()
            .await
            .starts_with("42[\"roomcast:disconnected\",{\"code\":4503,\"reason\":\"moving\"")
    );
    assert_eq!(ada.hear().await, "41");
    // The other session goes on.
    ada.say("42/custom,0[\"roomcast:ping\"]").await;
    assert!(ada.hear().await.starts_with("43/custom,0["));
    disconnect(&node, "eve", true).await;
    assert!(
        ada.hear()
            .await
            .starts_with("42/custom,[\"roomcast:disconnected\",{\"code\":4004,")
    );
    assert_eq!(ada.close_code().await, 4004);
    // The same by polling.
    let bob = Poller::connect(&node, &user("bob")).await;
    disconnect(&node, "bob", false).await;
    let packets = bob.poll_until("41").await;
    assert!(
        packets.starts_with("42[\"roomcast:disconnected\",") && packets.ends_with("\u{1e}41"),
        "{packets}"
    );
    bob.post(&connect_packet(&user("bob"))).await;
    assert!(bob.poll().await.starts_with("40{"));
    disconnect(&node, "bob", true).await;
    node.until_connections(0).await;
    assert_eq!(bob.try_poll().await.0, 400);
    node.finish().await;
}

#[tokio::test]
async fn an_expired_session_ends_its_connection_so_that_the_client_comes_back_with_a_new_token() {
    let node = node().await;
    let mut ada = Wire::connect(&node, &user("ada").expires_in(2)).await;
    let packets = ada.until_closed().await;
    let notice = packets
        .iter()
        .any(|packet| packet.starts_with("42[\"roomcast:sessionExpiring\""));
    assert!(notice, "{packets:?}");
    // In place, without an end.
    let mut bob = Wire::connect(&node, &user("bob").expires_in(5)).await;
    bob.say(&super::speakers::command_packet(
        0,
        "refresh",
        &json!({"token": user("bob").token()}),
    ))
    .await;
    let mut refreshed = bob.hear().await;
    if refreshed.starts_with("42[\"roomcast:sessionExpiring\"") {
        refreshed = bob.hear().await;
    }
    assert!(
        refreshed.starts_with("430[{\"ok\":true,\"expiresAtMs\":"),
        "{refreshed}"
    );
    bob.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_connection_without_a_session_ends() {
    let node = node_with(|settings| settings.connect_timeout = Duration::from_millis(300)).await;
    let mut silent = Wire::open(&node).await;
    assert_eq!(silent.close_code().await, 4501);
    let poller = Poller::open(&node).await;
    // A close packet: nobody is waited for who has nothing to say.
    assert_eq!(poller.try_poll().await.1, "1");
    // One that has had a session may be without one.
    let mut ada = Wire::connect(&node, &user("ada")).await;
    ada.say("41").await;
    let mut later = Wire::open(&node).await;
    assert_eq!(later.close_code().await, 4501);
    ada.say(&connect_packet(&user("ada"))).await;
    assert!(ada.hear().await.starts_with("40{"));
    ada.close().await;
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_draining_node_ends_transports_and_waits_for_nobody_without_a_session() {
    let mut node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.drain_window = Duration::from_secs(1);
    })
    .await;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    let mut nobody = Wire::open(&node).await;
    let (packets, code, ()) = tokio::join!(ada.until_closed(), nobody.close_code(), node.shut_down());
    assert!(
        packets
            .iter()
            .any(|packet| packet.starts_with("42[\"roomcast:reconnectAdvice\"")),
        "{packets:?}"
    );
    assert!(
        packets.iter().all(|packet| !packet.starts_with("41")),
        "a client that is told so stays away: {packets:?}"
    );
    assert_eq!(code, 4000);
}

#[tokio::test]
async fn revoked_clients_are_told_and_hear_nothing_more() {
    let node = node().await;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    ada.command(1, "join", &json!({"room": "s"})).await;
    let request = v1::LeaveRoomRequest {
        tenant: TENANT.to_owned(),
        room: "r".to_owned(),
        member: Some(v1::leave_room_request::Member::UserId("ada".to_owned())),
        ..Default::default()
    };
    node.backend().rooms.leave_room(request).await.unwrap();
    assert!(
        ada.hear()
            .await
            .starts_with("42[\"roomcast:roomLeft\",{\"room\":\"r\",\"cause\":\"backend\"")
    );
    node.backend().publish("r", "news", json!(1)).await;
    node.backend().publish("s", "news", json!(2)).await;
    assert_eq!(ada.hear().await, "42[\"news\",2]");
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_user_is_counted_once_over_all_protocols() {
    let node = node().await;
    let mut wire = Wire::connect(&node, &user("ada")).await;
    wire.command(0, "join", &json!({"room": "r"})).await;
    let poller = Poller::connect(&node, &user("ada")).await;
    poller.command(0, "join", &json!({"room": "r"})).await;
    let mut native = node.connect(user("ada")).await;
    let presence = native.join_to_see("r").await;
    assert_eq!(presence.members.len(), 1);
    assert_eq!(presence.members[0].connection_count, 3);
    poller.post("1").await;
    wire.close().await;
    node.finish().await;
}

#[tokio::test]
async fn commands_that_wait_hold_up_the_connection_until_they_are_done_or_their_session_has_gone() {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.session.commands_waiting_max = 2;
        config.session.publish_rate.burst = 1000;
    })
    .await;
    let ping = |ack: u32| super::speakers::command_packet(ack, "ping", &json!({}));
    // Many at once, over a WebSocket and in one body: all are carried out.
    let mut ada = Wire::connect(&node, &user("ada")).await;
    let history = super::speakers::command_packet(0, "history", &json!({"room": "r"}));
    let pings: Vec<String> = (1..=50).map(ping).collect();
    let mut packets: Vec<&str> = vec![&history];
    packets.extend(pings.iter().map(String::as_str));
    ada.say_all(&packets).await;
    for ack in 0..=50 {
        let heard = ada.hear().await;
        assert!(heard.starts_with(&format!("43{ack}[")), "{ack}: {heard}");
    }
    let bob = Poller::connect(&node, &user("bob")).await;
    bob.post(&packets.join("\u{1e}")).await;
    bob.poll_until("4350[").await;
    bob.post("1").await;
    // A session that ends while its commands wait leaves the connection to the others.
    ada.say(&connect_packet(&user("eve")).replacen("40", "40/custom,", 1))
        .await;
    assert!(ada.hear().await.starts_with("40/custom,"));
    packets.push("41");
    let custom = "42/custom,7[\"roomcast:ping\"]";
    packets.push(custom);
    ada.say_all(&packets).await;
    loop {
        if ada.hear().await.starts_with("43/custom,7[") {
            break;
        }
    }
    ada.say("42/custom,8[\"roomcast:ping\"]").await;
    while !ada.hear().await.starts_with("43/custom,8[") {}
    ada.close().await;
    node.finish().await;
}
