//! Subscriptions to all rooms that match a pattern.

use roomcast::gateway::Config;
use roomcast::proto::v1;
use serde_json::json;

use super::away::half_behind;
use super::{Hashes, Reader, expect_the_rest_after_each, patient, publish_to_all};
use crate::support::nats::NatsServer;
use crate::support::proxy::Proxy;
use crate::support::{Encoding, Node, TENANT, over_encodings, payload, user};

over_encodings! {
    a_pattern_brings_what_clients_see_of_all_rooms,
    every_cursor_of_a_pattern_goes_on_exactly,
    other_tenants_and_rooms_are_left_out,
}

/// A request for all rooms of the tests' tenant that match.
fn matching(pattern: &str) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        tenant: TENANT.to_owned(),
        pattern: pattern.to_owned(),
        ..Default::default()
    }
}

fn after(cursor: &str) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        cursor: cursor.to_owned(),
        ..matching("doc:{id}")
    }
}

const ROOMS: [&str; 4] = ["doc:1", "doc:2", "doc:\u{e9}\u{20}=", "doc:a.b>*"];

async fn a_pattern_brings_what_clients_see_of_all_rooms(encoding: Encoding) {
    const EACH: usize = 30;
    let node = Node::with(encoding, patient).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    let mut reader = Reader::begin(&backend, matching("doc:{id}")).await;
    for room in ROOMS {
        ada.join(room).await;
    }
    let backends = [backend.clone()];
    let count = ROOMS.len() * EACH;
    let ((), seen, told) = tokio::join!(
        publish_to_all(&backends, &ROOMS, EACH),
        ada.events(count),
        reader.events(count)
    );
    assert_eq!(Hashes::of_client(&seen), Hashes::of_subscriber(&told));
    ada.close().await;
    node.finish().await;
}

async fn every_cursor_of_a_pattern_goes_on_exactly(encoding: Encoding) {
    const COUNT: usize = 24;
    let node = Node::with(encoding, patient).await;
    let backend = node.backend();
    let mut reader = Reader::begin(&backend, matching("doc:{id}")).await;
    let (mut told, mut cursors) = (Vec::new(), vec![(reader.cursor.clone(), 0)]);
    for number in 0..COUNT {
        backend.publish(ROOMS[number % 3], "e", json!(number)).await;
        backend.publish("other", "e", json!(number)).await;
        told.extend(reader.events(1).await);
        cursors.push((reader.cursor.clone(), told.len()));
    }
    assert_eq!(told.len(), COUNT);
    expect_the_rest_after_each(&backend, &matching("doc:{id}"), cursors, &told).await;
    node.finish().await;
}

async fn other_tenants_and_rooms_are_left_out(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut reader = Reader::begin(&backend, matching("doc:{id}")).await;
    backend.clone().of("other").publish("doc:1", "foreign", json!(1)).await;
    backend.publish("doc:1:x", "other", json!(2)).await;
    backend.publish("doc:1", "own", json!(3)).await;
    assert_eq!(reader.events(1).await[0].event_name, "own");
    node.finish().await;
}

#[tokio::test]
async fn two_nodes_bring_the_same_by_pattern() {
    const EACH: usize = 50;
    let server = NatsServer::start().await;
    let url = server.url();
    let node = Node::several(Encoding::Json, 2, move |config: &mut Config| {
        patient(config);
        config.nats.as_mut().unwrap().servers = vec![url.clone()];
    })
    .await;
    let backends = [node.of_several(0).backend(), node.of_several(1).backend()];
    let mut first = Reader::begin(&backends[0], matching("doc:{id}")).await;
    let mut second = Reader::begin(&backends[1], matching("{room*}")).await;
    let mut ada = node.of_several(1).connect(user("ada")).await;
    for room in ROOMS {
        ada.join(room).await;
    }
    let count = ROOMS.len() * EACH;
    let ((), seen, one, other) = tokio::join!(
        publish_to_all(&backends, &ROOMS, EACH),
        ada.events(count),
        first.events(count),
        second.events(count)
    );
    let expected = Hashes::of_client(&seen);
    assert_eq!(Hashes::of_subscriber(&one), expected);
    assert_eq!(Hashes::of_subscriber(&other), expected);
    // What one node told, the other goes on from.
    let cursor = first.cursor.clone();
    drop(first);
    backends[0].publish(ROOMS[0], "next", json!(1)).await;
    let mut again = Reader::resume(&backends[1], after(&cursor)).await;
    assert_eq!(again.events(1).await[0].event_name, "next");
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_cut_link_to_nats_loses_nothing_by_pattern() {
    Box::pin(cut_off()).await;
}

async fn cut_off() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let node = half_behind(&proxy, &server).await;
    let backend = node.of_several(0).backend();
    let mut reader = Reader::begin(&node.of_several(1).backend(), matching("doc:{id}")).await;
    let mut number = 0;
    for part in [Proxy::cut, Proxy::reset, Proxy::cut] {
        for is_parted in [false, true] {
            if is_parted {
                part(&proxy);
            }
            for _ in 0..10 {
                backend.publish(ROOMS[number % 2], "e", json!(number)).await;
                number += 1;
            }
        }
        proxy.mend();
    }
    let events = reader.events(number).await;
    for (parity, room) in ROOMS.iter().take(2).enumerate() {
        let of_room = events.iter().filter(|event| event.room == *room);
        let payloads: Vec<_> = of_room.map(|event| event.payload.clone().unwrap()).collect();
        let expected = (parity..number).step_by(2).map(|number| payload(&json!(number)));
        assert_eq!(payloads, expected.collect::<Vec<_>>());
    }
    node.finish().await;
}
