//! Followers by pattern that read the streams.

use std::sync::Arc;

use super::servers::NatsServer;
use super::{Node, keeping, settings, until};
use crate::bus::Bus;
use crate::bus::conformance::parts::Reader;
use crate::bus::conformance::{event, room, store};
use crate::bus::history::HistoryLimits;
use crate::bus::parts::Place;
use crate::nats;
use crate::room::Room;

/// A node whose rooms share one partition and keep three events.
async fn node() -> (NatsServer, Node) {
    let server = NatsServer::start().await;
    let settings = nats::Config {
        partitions: 1,
        ..settings(&server)
    };
    let limits = HistoryLimits {
        events_max: 3,
        ..HistoryLimits::default()
    };
    let node = Node::start(&settings, keeping(limits)).await;
    (server, node)
}

fn named(reader: &Reader) -> Vec<&Room> {
    reader.restarts.iter().map(|(room, _)| room).collect()
}

#[tokio::test]
async fn room_that_shows_after_many_pages_is_named_if_it_lost_events() {
    let (_server, node) = node().await;
    let bus = Arc::clone(&node.bus) as Arc<dyn Bus>;
    let (cut, quiet) = (room("f:cut"), room("f:quiet"));
    for room in [&cut, &quiet] {
        store(&*bus, room, 1).await;
    }
    let reader = Reader::begin(&bus, 50_000, "f:{id}", None).await;
    let since = reader.places.clone();
    drop(reader);
    // The first one is removed by the later ones, which lie beyond the first page.
    store(&*bus, &cut, 1).await;
    for number in 0..600 {
        store(&*bus, &room(&format!("f:{number}")), 1).await;
    }
    store(&*bus, &cut, 4).await;
    store(&*bus, &quiet, 1).await;
    let reader = Reader::begin(&bus, 50_001, "f:{id}", Some(since)).await;
    assert!(named(&reader).contains(&&cut));
    assert!(!named(&reader).contains(&&quiet), "its first event is still there");
    assert!(!reader.partial);
    // A cursor from before the room showed knows that something is absent.
    let cursor = reader.cursors[300].clone();
    assert!(cursor[0].is_some_and(|place: Place| place.gapped));
    let again = Reader::begin(&bus, 50_002, "f:{id}", Some(cursor)).await;
    assert!(named(&again).contains(&&cut));
    let last = reader.cursors.last().unwrap().clone();
    let after = Reader::begin(&bus, 50_003, "f:{id}", Some(last)).await;
    assert!(after.restarts.is_empty() && after.events.is_empty());
}

#[tokio::test]
async fn stream_that_lost_its_oldest_messages_is_partial() {
    let (server, node) = node().await;
    let bus = Arc::clone(&node.bus) as Arc<dyn Bus>;
    store(&*bus, &room("f:1"), 1).await;
    let reader = Reader::begin(&bus, 50_010, "f:{id}", None).await;
    let since = reader.places.clone();
    drop(reader);
    store(&*bus, &room("f:gone"), 2).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = context
        .get_stream(&node.bus.shared.partitions.at(0).stream)
        .await
        .unwrap();
    stream.purge().await.unwrap();
    store(&*bus, &room("f:1"), 1).await;
    let mut reader = Reader::begin(&bus, 50_011, "f:{id}", Some(since)).await;
    assert!(reader.partial);
    event(&room("f:gone"), "after").stored(&*bus).await;
    let count = reader.events.len();
    reader.wait_for(count + 1).await;
}

#[tokio::test]
async fn recreated_stream_is_partial_and_goes_on() {
    let (server, node) = node().await;
    let bus = Arc::clone(&node.bus) as Arc<dyn Bus>;
    let mut reader = Reader::begin(&bus, 50_020, "f:{id}", None).await;
    store(&*bus, &room("f:1"), 3).await;
    reader.wait_for(3).await;
    let epoch = node.bus.shared.partitions.at(0).epoch();
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = &node.bus.shared.partitions.at(0).stream;
    context.delete_stream(stream).await.unwrap();
    until("the stream is another one", async || {
        node.bus.shared.partitions.at(0).epoch() != epoch
    })
    .await;
    until("the follower was told", async || {
        reader.turn().await;
        reader.partial
    })
    .await;
    let count = reader.events.len();
    until("an event is stored", async || {
        event(&room("f:1"), "after").send(&*bus).await.is_ok()
    })
    .await;
    reader.wait_for(count + 1).await;
}

#[tokio::test]
async fn tap_is_open_only_while_there_is_a_follower() {
    let (_server, node) = node().await;
    let bus = Arc::clone(&node.bus) as Arc<dyn Bus>;
    let is_open = || node.bus.shared.tap.is_open();
    assert!(!is_open());
    let readers = [
        Reader::begin(&bus, 50_030, "f:{id}", None).await,
        Reader::begin(&bus, 50_031, "{room*}", None).await,
    ];
    assert!(is_open());
    drop(readers);
    until("the tap is closed", async || !is_open()).await;
    let mut again = Reader::begin(&bus, 50_032, "f:{id}", None).await;
    store(&*bus, &room("f:1"), 2).await;
    again.wait_for(2).await;
}
