//! Going on from a cursor: on the same node, on another one, and where the history no longer reaches back.

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::v1;
use serde_json::json;

use super::{Reader, expect_the_rest_after_each, patient, to};
use crate::support::nats::NatsServer;
use crate::support::{Encoding, Node, over_encodings};

over_encodings! {
    every_cursor_of_a_run_goes_on_exactly,
    what_the_history_has_dropped_is_told,
}

const ROOMS: [&str; 2] = ["r", "s"];

fn after(cursor: &str) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        cursor: cursor.to_owned(),
        ..to(&ROOMS)
    }
}

async fn every_cursor_of_a_run_goes_on_exactly(encoding: Encoding) {
    const COUNT: usize = 30;
    let node = Node::with(encoding, patient).await;
    let backend = node.backend();
    let mut reader = Reader::begin(&backend, to(&ROOMS)).await;
    let (mut told, mut cursors) = (Vec::new(), vec![(reader.cursor.clone(), 0)]);
    for number in 0..COUNT {
        let room = ROOMS[usize::from(number % 3 == 0)];
        backend.publish(room, "e", json!(number)).await;
        told.extend(reader.events(1).await);
        cursors.push((reader.cursor.clone(), told.len()));
    }
    assert_eq!(told.len(), COUNT);
    expect_the_rest_after_each(&backend, &to(&ROOMS), cursors, &told).await;
    node.finish().await;
}

fn forgetful(config: &mut Config) {
    let limits = HistoryLimits {
        events_max: 3,
        ..HistoryLimits::default()
    };
    config.bus.history = HistoryRules::new([], limits);
}

async fn what_the_history_has_dropped_is_told(encoding: Encoding) {
    let node = Node::with(encoding, forgetful).await;
    let backend = node.backend();
    backend.publish("r", "before", json!(0)).await;
    let reader = Reader::begin(&backend, to(&ROOMS)).await;
    let cursor = reader.cursor.clone();
    drop(reader);
    let mut head = None;
    for number in 0..5 {
        head = backend.publish("r", "e", json!(number)).await.position;
    }
    let mut again = Reader::resume(&backend, after(&cursor)).await;
    let resync = loop {
        let response = again.response().await;
        assert!(response.events.is_empty(), "{response:?}");
        // A room without events in the same partition of NATS may begin anew beside it.
        if let Some(resync) = response.resyncs.into_iter().find(|resync| resync.room == "r") {
            break resync;
        }
    };
    assert_eq!(resync.head, head);
    backend.publish("r", "after", json!(9)).await;
    let response = loop {
        let response = again.response().await;
        if !response.events.is_empty() {
            break response;
        }
    };
    assert_eq!(response.events[0].event_name, "after");
    node.finish().await;
}

#[tokio::test]
async fn a_cursor_is_good_on_another_node() {
    let server = NatsServer::start().await;
    let url = server.url();
    let node = Node::several(Encoding::Json, 2, move |config| {
        config.nats.as_mut().unwrap().servers = vec![url.clone()];
    })
    .await;
    let backends = [node.of_several(0).backend(), node.of_several(1).backend()];
    let mut reader = Reader::begin(&backends[0], to(&ROOMS)).await;
    for number in 0..20 {
        let other = &backends[number % 2];
        other.publish(ROOMS[number % 2], "e", json!(number)).await;
        // By turns on each node, always from the cursor.
        assert_eq!(
            reader.events(1).await[0].payload,
            Some(crate::support::payload(&json!(number)))
        );
        let cursor = reader.cursor.clone();
        reader = Reader::begin(other, after(&cursor)).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn a_restart_of_the_in_process_bus_is_told() {
    let mut node = Node::start(Encoding::Json).await;
    let reader = Reader::begin(&node.backend(), to(&ROOMS)).await;
    let cursor = reader.cursor.clone();
    drop(reader);
    node.restart().await;
    let mut again = Reader::resume(&node.backend(), after(&cursor)).await;
    let mut resyncs = Vec::new();
    while resyncs.len() < 2 {
        resyncs.extend(again.response().await.resyncs);
    }
    let rooms: Vec<&str> = resyncs.iter().map(|resync| &*resync.room).collect();
    assert_eq!(rooms, ROOMS);
    node.finish().await;
}
