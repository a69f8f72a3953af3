//! Who stops reading is closed, may resume, and delays nobody.

use std::time::Duration;

use roomcast::gateway::Config;
use roomcast::proto::client_v1::HistoryQuery;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::rate::Rate;
use serde_json::json;

use crate::support::{Carries as _, Client, Encoding, Node, over_encodings, user, within};

over_encodings! {
    who_stops_reading_is_closed_and_comes_back_without_a_loss,
    who_reads_too_slowly_for_too_long_is_closed,
    who_asks_and_does_not_read_is_answered_when_it_does,
}

/// Publishes large events one by one until so many connections are left; who reads gets each before the next.
async fn publish_until(node: &Node, reader: &mut Client, connections: usize) -> u32 {
    let backend = node.backend();
    let padding = "x".repeat(16 * 1024);
    for n in 0..2000 {
        backend.publish("r", "n", json!({"n": n, "padding": padding})).await;
        assert_eq!(reader.expect_event("r", "n").await.json()["n"], n);
        if node.connections() == connections {
            return n;
        }
    }
    panic!("who does not read is still there");
}

async fn who_stops_reading_is_closed_and_comes_back_without_a_loss(encoding: Encoding) {
    let small = |config: &mut Config| {
        config.sockets.outbox.outbox_bytes_max = 128 * 1024;
        // What waits in the kernel on both sides counts as missed as well when it is thrown away.
        config.session.replay.bytes_max = 64 << 20;
        config.session.replay.events_max = 3000;
        config.bus.history = roomcast::bus::history::HistoryRules::new(
            [],
            roomcast::bus::history::HistoryLimits {
                events_max: 3000,
                bytes_max: 64 << 20,
                ..Default::default()
            },
        );
    };
    let node = Node::with(encoding, small).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let last = publish_until(&node, &mut ben, 1).await;
    // She reads on: some events, none left out among them, and then why it ended.
    let reason = ada.expect_close(4002).await;
    assert_eq!(reason, "slow_consumer");
    let mut seen = 0;
    for push in ada.take_pushes() {
        let Said::Event(event) = push else { panic!("{push:?}") };
        assert_eq!(event.json()["n"], seen);
        seen += 1;
    }
    assert!(
        seen <= last,
        "everything was delivered, and she was closed all the same"
    );
    let mut again = node.connect(user("ada")).await;
    let joined = again.join_since("r", &ada.position("r")).await;
    assert!(joined.recovered);
    for n in seen..=last {
        assert_eq!(again.expect_event("r", "n").await.json()["n"], n);
    }
    node.backend().publish("r", "end", json!({})).await;
    again.expect_nothing_before("end").await;
    ben.expect_nothing_before("end").await;
    node.finish().await;
}

async fn who_reads_too_slowly_for_too_long_is_closed(encoding: Encoding) {
    let patient = |config: &mut Config| {
        config.sockets.outbox.outbox_bytes_max = 256 << 20;
        config.sockets.outbox.outbox_age_max = Duration::from_secs(2);
    };
    let node = Node::with(encoding, patient).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    within("the slow reader to be closed", publish_until(&node, &mut ben, 1)).await;
    ada.expect_close(4002).await;
    node.finish().await;
}

async fn who_asks_and_does_not_read_is_answered_when_it_does(encoding: Encoding) {
    const QUESTIONS: usize = 60;
    let fast = |config: &mut Config| {
        config.session.publish_rate = Rate {
            per_second: 10_000,
            burst: 10_000,
        };
    };
    let node = Node::with(encoding, fast).await;
    let padding = "x".repeat(16 * 1024);
    for n in 0..10 {
        node.backend()
            .publish("r", "n", json!({"n": n, "padding": padding}))
            .await;
    }
    let mut ada = node.connect(user("ada")).await;
    let mut ids = Vec::new();
    for _ in 0..QUESTIONS {
        let query = HistoryQuery {
            room: "r".to_owned(),
            ..Default::default()
        };
        ids.push(ada.say(Command::HistoryQuery(query)).await);
    }
    // Others are served meanwhile.
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    for id in ids {
        let Ok(Said::History(history)) = ada.reply(id).await else {
            panic!("no history")
        };
        assert_eq!(history.events.len(), 10);
    }
    node.finish().await;
}
