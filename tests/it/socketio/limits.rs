//! Too much of everything, by clients that mean it and by those that do not.

use std::sync::Mutex;

use futures_util::future::join_all;
use roomcast::rate::Rate;
use roomcast::transport::http::Origins;
use serde_json::json;

use super::speakers::{POLLING, Poller, request, with_socketio};
use crate::protocols::events::with_events;
use crate::support::{Encoding, Node, eventually, user};

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
