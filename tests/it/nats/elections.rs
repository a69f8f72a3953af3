//! Three servers, of which one fails.

use std::time::{Duration, Instant};

use roomcast::nats::Subjects;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::room::{Room, Tenant};
use serde_json::json;
use tokio::time::sleep;

use super::load::{Load, ROOM, read};
use super::over;
use crate::support::nats::NatsCluster;
use crate::support::{Encoding, Node, TENANT, user};

const PARTITIONS: u16 = 3;

/// How long it goes on before and after a fault.
const WHILE: Duration = Duration::from_millis(500);

async fn start(cluster: &NatsCluster) -> Node {
    let over = over(&cluster.url());
    Node::several(Encoding::Json, 2, move |config| {
        over(config);
        let nats = config.nats.as_mut().unwrap();
        (nats.replicas, nats.partitions) = (3, PARTITIONS);
    })
    .await
}

/// The stream that has the room.
fn stream() -> String {
    let room = Room::parse(&Tenant::parse(TENANT).unwrap(), ROOM).unwrap();
    let subjects = Subjects::new("roomcast").unwrap();
    subjects.stream_of_partition(Subjects::partition(&room, PARTITIONS))
}

/// Publishes at both gateways to members at both while `fault` happens and is over.
async fn through(cluster: &NatsCluster, what: &str, fault: impl AsyncFnOnce()) {
    let node = start(cluster).await;
    let mut ada = node.of_several(0).connect(user("ada")).await;
    let mut ben = node.of_several(1).connect(user("ben")).await;
    ada.join(ROOM).await;
    ben.join(ROOM).await;
    let story = async {
        let load = Load::start(&node, 2);
        sleep(WHILE).await;
        let began = Instant::now();
        fault().await;
        // What works again is shown by what is stored again.
        let backend = node.of_several(1).backend();
        crate::support::eventually("a publish to be stored", || async {
            let request = roomcast::proto::v1::PublishRequest {
                targets: vec![crate::support::to_room("another room")],
                ..crate::support::draft("n", json!({}))
            };
            backend.send(request).await.ok()
        })
        .await;
        cluster.stream_leader(&stream()).await;
        let over = began.elapsed();
        sleep(WHILE).await;
        let told = load.stop().await;
        crate::support::eventually("the last event to be stored", || async {
            let request = roomcast::proto::v1::PublishRequest {
                targets: vec![crate::support::to_room(ROOM)],
                idempotency_key: "end".to_owned(),
                ..crate::support::draft("end", json!({}))
            };
            backend.send(request).await.ok()
        })
        .await;
        (told, over)
    };
    let ((told, over), one, other) = tokio::join!(story, read(&mut ada), read(&mut ben));
    for seen in [&one, &other] {
        told.assert_seen(seen);
        assert!(
            seen.degraded.iter().step_by(2).all(|active| *active),
            "{:?}",
            seen.degraded
        );
    }
    println!(
        "{what}: over after {over:?}; acknowledged {}, not stored {}, unknown {}, slowest {:?}; longest pauses {:?} and {:?}; degraded {:?} and {:?}",
        told.acknowledged(),
        told.not_stored,
        told.unknown(),
        told.slowest,
        one.longest_pause,
        other.longest_pause,
        one.degraded,
        other.degraded,
    );
    for (client, seen) in [(&mut ada, one), (&mut ben, other)] {
        if seen.degraded.last() == Some(&true) {
            match client.push().await {
                Said::Degraded(degraded) if !degraded.active => {}
                other => panic!("{client} waits for all to be well and gets {other:?}"),
            }
        }
    }
    ada.close().await;
    ben.close().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_leader_steps_down_loses_nothing() {
    let cluster = NatsCluster::start().await;
    through(&cluster, "stepdown", async || {
        let client = async_nats::connect(cluster.url().split(',').collect::<Vec<_>>())
            .await
            .unwrap();
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", stream());
        client.request(subject, "".into()).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_leader_is_killed_loses_nothing() {
    let cluster = NatsCluster::start().await;
    let mut killed = None;
    through(&cluster, "kill", async || {
        let leader = cluster.stream_leader(&stream()).await;
        cluster.server(leader).kill();
        killed = Some(leader);
    })
    .await;
    cluster.server(killed.unwrap()).restart().await;
    cluster.stream_whole(&stream()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_leader_is_stopped_for_a_while_loses_nothing() {
    let cluster = NatsCluster::start().await;
    through(&cluster, "pause", async || {
        let leader = cluster.stream_leader(&stream()).await;
        cluster.server(leader).pause().await;
        sleep(Duration::from_secs(6)).await;
        cluster.server(leader).resume();
    })
    .await;
}
