//! Hands on the streams under two running gateways: sessions, joins, publishes and health afterwards, without a restart.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use roomcast::gateway::Config;
use roomcast::nats::Subjects;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::history_query::Anchor;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{HistoryQuery, Position};
use roomcast::room::{Room, Tenant};
use serde_json::json;
use tokio::time::timeout;

use super::away::until_serving;
use super::{member, over};
use crate::support::nats::NatsServer;
use crate::support::{
    Carries, Client, Encoding, Gateway, GatewayOptions, Node, TENANT, draft, eventually, home_rooms, reason, to_room,
    user,
};

const PARTITIONS: u16 = 3;

/// The events of a room that is erased, and how many of them are left.
const EVENTS: usize = 12;
const KEPT: usize = 4;

/// How long a member waits for an event.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done to a stream.
#[derive(Debug, Clone, Copy)]
enum Hand {
    Deleted,
    Emptied,
    Sealed,
}

/// The stream that has the room `r`.
fn histories() -> String {
    let room = Room::parse(&Tenant::parse(TENANT).unwrap(), "r").unwrap();
    let subjects = Subjects::new("roomcast").unwrap();
    subjects.stream_of_partition(Subjects::partition(&room, PARTITIONS))
}

async fn lay(hand: Hand, server: &NatsServer, stream: &str) {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    match hand {
        Hand::Deleted => drop(context.delete_stream(stream).await.unwrap()),
        Hand::Emptied => drop(context.get_stream(stream).await.unwrap().purge().await.unwrap()),
        Hand::Sealed => {
            let there = context.get_stream(stream).await.unwrap();
            let config = jetstream::stream::Config {
                sealed: true,
                ..there.cached_info().config.clone()
            };
            context.update_stream(config).await.unwrap();
        }
    }
}

/// Two gateways that put every session into rooms of its own, and a member.
async fn two(server: &NatsServer) -> (Node, Client) {
    let over = over(&server.url());
    let node = Node::several(Encoding::Json, 2, move |config| {
        over(config);
        home_rooms(config);
        let nats = config.nats.as_mut().unwrap();
        (nats.partitions, nats.lease) = (PARTITIONS, Duration::from_secs(4));
    })
    .await;
    let ada = member(&node, 0).await;
    (node, ada)
}

/// A session that needs rooms nobody has in memory opens at each gateway; an event that is acknowledged comes to the member.
async fn all_works(node: &Node, ada: &mut Client, round: &str) {
    for gateway in [0, 1] {
        until_serving(node, gateway, true).await;
        let name = format!("{round}-{gateway}");
        let session = eventually("a session with rooms of its own", || async {
            let mut client = node.of_several(gateway).opening().open().await.ok()?;
            let connected = client.authenticate(&user(&name), Vec::new()).await;
            if connected.is_err() {
                client.crash();
                return None;
            }
            Some(client)
        });
        session.await.close().await;
    }
    let deadline = Instant::now() + PATIENCE;
    // A room whose history began anew goes on from where that stood: what came just before is not shown.
    while Instant::now() < deadline {
        let request = roomcast::proto::v1::PublishRequest {
            targets: vec![to_room("r")],
            ..draft(round, json!({}))
        };
        let stored = node.of_several(1).backend().send(request).await.is_ok();
        while let Ok(said) = timeout(Duration::from_millis(300), ada.push()).await {
            match said {
                Said::Event(event) if event.event_name == round && stored => return,
                Said::Event(_) | Said::Resync(_) | Said::Degraded(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("nothing comes to the member");
}

async fn heals(hand: Hand, stream: &str) {
    let server = NatsServer::start().await;
    let (node, mut ada) = two(&server).await;
    lay(hand, &server, stream).await;
    all_works(&node, &mut ada, "after").await;
    ada.close().await;
    node.finish().await;
}

macro_rules! heals {
    ($($name:ident: $hand:ident, $stream:expr;)+) => {
        $(#[tokio::test]
        async fn $name() {
            Box::pin(heals(Hand::$hand, $stream)).await;
        })+
    };
}

heals! {
    gateways_go_on_when_histories_are_deleted: Deleted, &histories();
    gateways_go_on_when_histories_are_emptied: Emptied, &histories();
    gateways_go_on_when_last_values_are_deleted: Deleted, "roomcast-v";
    gateways_go_on_when_last_values_are_emptied: Emptied, "roomcast-v";
    gateways_go_on_when_records_are_deleted: Deleted, "roomcast-m";
    gateways_go_on_when_records_are_emptied: Emptied, "roomcast-m";
    gateways_go_on_when_the_control_log_is_deleted: Deleted, "roomcast-c";
    gateways_go_on_when_the_control_log_is_emptied: Emptied, "roomcast-c";
}

/// What nodes cannot mend they say: health, clients, one line in the log. Once the stream is deleted all goes on.
async fn is_told(stream: &str) {
    let server = NatsServer::start().await;
    let (node, mut ada) = two(&server).await;
    lay(Hand::Sealed, &server, stream).await;
    for gateway in [0, 1] {
        until_serving(&node, gateway, false).await;
    }
    loop {
        match ada.push().await {
            Said::Degraded(degraded) if degraded.active => break,
            Said::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }
    lay(Hand::Deleted, &server, stream).await;
    all_works(&node, &mut ada, "after").await;
    ada.close().await;
    node.finish().await;
}

/// One room is erased but for its newest events, as docs/nats.md describes it. Whatever is said to be recovered, complete or
/// listed afterwards lacks nothing, at the gateways that run and at those that start later.
async fn nothing_erased_is_recovered(encoding: Encoding) {
    let server = NatsServer::start().await;
    let settings = |age: &'static str| {
        let servers = vec![server.url()];
        move |config: &mut Config| {
            config.node_id = format!("{age}-{}", config.node_id);
            let nats = config.nats.as_mut().unwrap();
            (nats.servers, nats.partitions) = (servers.clone(), PARTITIONS);
        }
    };
    let running = Node::several(encoding, 2, settings("early")).await;
    let mut published = Vec::new();
    for n in 0..EVENTS {
        published.push(running.backend().publish("r", "n", json!(n)).await.position.unwrap());
    }
    // One of the gateways has the room in memory.
    let mut member = running.of_several(0).connect(user("ada")).await;
    member.join("r").await;

    let room = Room::parse(&Tenant::parse(TENANT).unwrap(), "r").unwrap();
    let subjects = Subjects::new("roomcast").unwrap();
    let subject = subjects.history(Subjects::partition(&room, PARTITIONS), &room);
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream(histories()).await.unwrap();
    stream.purge().filter(subject).keep(KEPT as u64).await.unwrap();

    let late = Node::several(encoding, 2, settings("late")).await;
    for node in [&running, &late] {
        for gateway in [0, 1] {
            let gateway = node.of_several(gateway);
            let backend = gateway.backend();
            eventually("the erasure to be noticed", || async {
                backend.history_after("r", &published[0]).await.is_err().then_some(())
            })
            .await;
            for (index, at) in published.iter().enumerate() {
                let missed = EVENTS - 1 - index;
                // The one before the oldest that is left may be either.
                let (is_left, may_be) = (missed < KEPT, missed <= KEPT);
                let since = Position {
                    epoch: at.epoch.clone(),
                    offset: at.offset,
                };
                let mut bob = gateway.connect(user("bob")).await;
                let joined = bob.join_since("r", &since).await;
                assert!(if joined.recovered { may_be } else { !is_left }, "{index}: {joined:?}");
                if joined.recovered {
                    assert_eq!(joined.replayed as usize, missed, "since {index}");
                    let events = bob.events(missed).await;
                    assert!(
                        events
                            .iter()
                            .map(Carries::json)
                            .eq((index + 1..EVENTS).map(|n| json!(n)))
                    );
                }
                let query = HistoryQuery {
                    room: "r".to_owned(),
                    anchor: Some(Anchor::After(since)),
                    ..HistoryQuery::default()
                };
                let Ok(Said::History(page)) = bob.ask(Command::HistoryQuery(query)).await else {
                    panic!("no page after {index}");
                };
                assert!(if page.complete { may_be } else { !is_left }, "{index}: {page:?}");
                assert!(!page.complete || page.events.len() == missed);
                match backend.history_after("r", at).await {
                    Ok(page) => assert!(may_be && page.events.len() == missed, "{index}: {page:?}"),
                    Err(status) => {
                        assert!(!is_left, "{index}: {status:?}");
                        assert_eq!(reason(&status), "POSITION_NOT_RETAINED");
                    }
                }
                bob.crash();
            }
        }
    }
    running.backend().publish("r", "after", json!({})).await;
    member.expect_event("r", "after").await;
    member.close().await;
    late.finish().await;
    running.finish().await;
}

#[tokio::test]
async fn nothing_erased_is_recovered_in_json() {
    Box::pin(nothing_erased_is_recovered(Encoding::Json)).await;
}

#[tokio::test]
async fn nothing_erased_is_recovered_in_protobuf() {
    Box::pin(nothing_erased_is_recovered(Encoding::Protobuf)).await;
}

#[tokio::test]
async fn sealed_histories_end_service() {
    Box::pin(is_told(&histories())).await;
}

#[tokio::test]
async fn sealed_last_values_end_service() {
    Box::pin(is_told("roomcast-v")).await;
}

#[tokio::test]
async fn sealed_records_end_service() {
    Box::pin(is_told("roomcast-m")).await;
}

#[tokio::test]
async fn a_sealed_control_log_ends_service() {
    Box::pin(is_told("roomcast-c")).await;
}

/// The line of the catalogue, in the log of a gateway as operators run it.
#[tokio::test]
async fn lost_last_values_are_logged() {
    let server = NatsServer::start().await;
    let gateway = Gateway::start(GatewayOptions {
        name: "alone".to_owned(),
        config: format!("[nats]\nservers = [{:?}]\npartitions = {PARTITIONS}", server.url()),
        ..GatewayOptions::default()
    })
    .await;
    assert!(!gateway.log().contains("stream lost, recreated"), "{}", gateway.log());
    lay(Hand::Deleted, &server, "roomcast-v").await;
    eventually("it to be logged", async || {
        let log = gateway.log();
        let found = log.lines().find(|line| line.contains("stream lost, recreated"));
        found.map(|line| assert!(line.contains("WARN") && line.contains("roomcast-v"), "{line}"))
    })
    .await;
}
