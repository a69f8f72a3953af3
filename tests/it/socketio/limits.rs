//! Too much of everything, by clients that mean it and by those that do not.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use roomcast::nats;
use roomcast::proto::v1;
use roomcast::rate::Rate;
use roomcast::transport::http::Origins;
use serde_json::json;

use super::speakers::{POLLING, Poller, Wire, command_packet, connect_packet, node, node_with, request, with_socketio};
use crate::protocols::events::with_events;
use crate::support::nats::NatsServer;
use crate::support::{Encoding, Node, draft, eventually, to_room, user};

/// The close code of a client that sends too much.
const FLOODING: u16 = 4005;

const LISTED: &str = "origin: https://app.example\r\n";

#[tokio::test]
async fn polls_of_an_open_connection_are_no_new_connections() {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.client.origins = Origins::Listed(vec!["https://app.example".to_owned()]);
        config.client.connect_rate = Rate {
            per_second: 1,
            burst: 1,
        };
    })
    .await;
    // Each request has a connection of its own, as in Node.
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    let storm = join_all((0..50).map(|_| request(&node, "GET", POLLING, LISTED, ""))).await;
    let (_, body, head) = storm
        .iter()
        .find(|(status, ..)| *status == 503)
        .expect("a storm is turned away");
    assert!(
        body == "too many new connections" && head.contains("retry-after: "),
        "{head}{body}"
    );
    assert!(
        head.contains("access-control-allow-origin: https://app.example\r\n"),
        "{head}"
    );
    for n in 0..20 {
        node.backend().publish("r", "news", json!(n)).await;
        assert_eq!(ada.poll().await, format!("42[\"news\",{n}]"));
        ada.post("6").await;
    }
    // A page asks before it polls.
    let asked = format!("{LISTED}access-control-request-method: POST\r\n");
    assert_eq!(request(&node, "OPTIONS", POLLING, &asked, "").await.0, 204);
    let foreign = "origin: https://evil.example\r\n";
    let storm = join_all((0..50).map(|_| request(&node, "GET", POLLING, foreign, ""))).await;
    assert!(storm.iter().all(|(status, ..)| *status == 403));
    node.finish().await;
}

#[tokio::test]
async fn a_poll_is_answered_also_when_newcomers_have_taken_all_places() {
    let node = Node::with(Encoding::Json, |config| {
        with_events(config);
        with_socketio(config, |_| {});
        config.client.handshakes_max = 4;
    })
    .await;
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    // They ask for what never comes, as often as it takes until there are four of them.
    let waiting = Mutex::new(Vec::new());
    eventually("a newcomer to be refused", || async {
        let mut raw = node.raw().await;
        raw.send(b"GET /v1/never HTTP/1.1\r\nhost: x\r\n\r\n").await;
        waiting.lock().unwrap().push(raw);
        let (_, body, _) = request(&node, "GET", POLLING, "", "").await;
        (body == "too many new connections").then_some(())
    })
    .await;
    for n in 0..5 {
        node.backend().publish("r", "news", json!(n)).await;
        // The place for such a request may be taken still by the one before.
        let packets = eventually("a poll to be answered", || async {
            let (status, packets) = ada.try_poll().await;
            (status == 200).then_some(packets)
        })
        .await;
        assert_eq!(packets, format!("42[\"news\",{n}]"));
    }
    drop(waiting);
    node.finish().await;
}

#[tokio::test]
async fn pongs_and_packets_of_nothing_have_the_rate_of_control_frames() {
    let node = node().await;
    for packet in ["3", "6"] {
        let mut wire = Wire::connect(&node, &user("ada")).await;
        wire.say_all(&[packet; 10]).await;
        assert_eq!(wire.command(0, "ping", &json!({})).await["ok"], json!(true));
        wire.say_all(&[packet; 1000]).await;
        assert_eq!(wire.close_code().await, FLOODING, "{packet}");
    }
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_connection_opens_sessions_at_a_rate() {
    let node = node().await;
    let connect = connect_packet(&user("ada"));
    let mut wire = Wire::open(&node).await;
    // As pages do that leave and come back.
    for _ in 0..8 {
        wire.say_all(&[&connect, "40/nope"]).await;
        let mut heard = [wire.hear().await, wire.hear().await];
        heard.sort();
        assert!(
            heard[0].starts_with("40{") && heard[1].starts_with("44/nope,"),
            "{heard:?}"
        );
        wire.say("41").await;
    }
    // Each session would begin with limits of its own.
    for storm in [&[connect.as_str(), "41"][..], &["40/nope"]] {
        let mut wire = Wire::open(&node).await;
        wire.say_all(&storm.repeat(200)).await;
        assert_eq!(wire.close_code().await, FLOODING);
        let poller = Poller::open(&node).await;
        poller.post(&storm.repeat(200).join("\u{1e}")).await;
        assert_eq!(poller.try_poll().await.0, 400);
    }
    wire.close().await;
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_was_refused_every_session_has_no_time_more() {
    let node = node_with(|settings| settings.connect_timeout = Duration::from_secs(1)).await;
    let mut wire = Wire::open(&node).await;
    for _ in 0..3 {
        wire.say("40{\"token\":\"x\"}").await;
        assert!(wire.hear().await.starts_with("44{"));
    }
    assert_eq!(wire.close_code().await, 4501);
    let poller = Poller::open(&node).await;
    poller.post("40{\"token\":\"x\"}").await;
    assert!(poller.poll().await.starts_with("44{"));
    assert_eq!(poller.try_poll().await.1, "1");
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn attachments_that_do_not_come_are_waited_for_as_long_as_a_message() {
    let node = Node::with(Encoding::Json, |config| {
        with_socketio(config, |_| {});
        config.sockets.frames.message_duration_max = Duration::from_millis(500);
    })
    .await;
    let owing = r#"452-["roomcast:publish",{"room":"r","eventName":"e","payload":1}]"#;
    let mut wire = Wire::connect(&node, &user("ada")).await;
    wire.say(owing).await;
    wire.say_bytes(b"one").await;
    // A pong may stand between them, and puts nothing off.
    wire.say("3").await;
    assert_eq!(wire.close_code().await, 1008);
    let poller = Poller::connect(&node, &user("bob")).await;
    poller.post(owing).await;
    node.until_connections(0).await;
    assert_eq!(poller.try_poll().await.0, 400);
    node.finish().await;
}

#[tokio::test]
async fn without_the_lease_a_poll_is_answered_by_pings_alone() {
    let server = NatsServer::start().await;
    let url = server.url();
    let node = Node::with(Encoding::Json, move |config| {
        with_socketio(config, |settings| settings.ping_interval = Duration::from_millis(300));
        config.sockets.outbox.outbox_age_max = Duration::from_millis(1500);
        config.nats = Some(nats::Config {
            servers: vec![url.clone()],
            partitions: 1,
            lease: Duration::from_secs(2),
            ..nats::Config::default()
        });
    })
    .await;
    let ada = Poller::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    server.pause().await;
    // What is acknowledged waits, once the lease has ended.
    let mut owed = Vec::new();
    for ack in 1.. {
        ada.post(&command_packet(ack, "ping", &json!({}))).await;
        owed.push(format!("43{ack}["));
        let packets = ada.poll().await;
        owed.retain(|mark| !packets.contains(mark));
        if packets.contains('2') && !owed.is_empty() {
            break;
        }
        if packets.starts_with('2') {
            ada.post("3").await;
        }
    }
    ada.post("3").await;
    // For longer than a packet may wait otherwise.
    for _ in 0..8 {
        assert_eq!(ada.poll().await, "2");
        ada.post("3").await;
    }
    server.resume();
    assert_eq!(owed.len(), 1);
    ada.poll_until(&owed[0]).await;
    eventually("a publish to be stored", || async {
        let request = v1::PublishRequest {
            targets: vec![to_room("r")],
            // Tried again, it is stored once.
            idempotency_key: "k".to_owned(),
            ..draft("news", json!(1))
        };
        node.backend().send(request).await.ok()
    })
    .await;
    let packets = ada.poll_until("42[\"news\",1]").await;
    assert_eq!(packets.matches("news").count(), 1, "{packets}");
    node.finish().await;
}
