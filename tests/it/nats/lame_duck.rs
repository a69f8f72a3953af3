//! A server that says it will end: nodes go elsewhere before it does, and nobody misses anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::load::{Load, ROOM, read};
use super::over;
use super::whispers::Whispers;
use crate::support::nats::{NatsCluster, NatsServer};
use crate::support::{Encoding, Node, eventually, user};

/// The connections of one node.
const CONNECTIONS: usize = 2;

/// How many connections of nodes a server has.
async fn connections(server: &NatsServer) -> Option<usize> {
    let all = server.monitor("/connz").await?;
    let of_node = |connection: &&Value| {
        let name = connection.get("name").and_then(Value::as_str).unwrap_or_default();
        name.starts_with("roomcast ")
    };
    Some(all.get("connections")?.as_array()?.iter().filter(of_node).count())
}

/// How many connections of nodes all servers have that still run.
async fn all_connections(cluster: &NatsCluster) -> usize {
    let mut all = 0;
    for server in cluster.servers() {
        all += connections(server).await.unwrap_or_default();
    }
    all
}

/// Nodes that are told of one server each; they learn of the others there.
async fn nodes_on(cluster: &NatsCluster, servers: &[usize]) -> Node {
    let urls: Vec<String> = servers.iter().map(|number| cluster.server(*number).url()).collect();
    let (count, next) = (urls.len(), AtomicUsize::new(0));
    Node::several(Encoding::Json, count, move |config| {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        over(&urls[turn % urls.len()])(config);
        config.nats.as_mut().unwrap().replicas = 3;
    })
    .await
}

/// Two nodes, with both connections on these servers; the first server ends.
async fn a_server_ends_and_nobody_misses_anything(servers: [usize; 2]) {
    let cluster = NatsCluster::start().await;
    let node = nodes_on(&cluster, &servers).await;
    let mut ada = node.of_several(0).connect(user("ada")).await;
    let mut ben = node.of_several(1).connect(user("ben")).await;
    ada.join(ROOM).await;
    ben.join(ROOM).await;
    let story = async {
        let (load, whispers) = (Load::start(&node, 2), Whispers::start(&node, 2));
        sleep(Duration::from_millis(500)).await;
        let server = cluster.server(servers[0]);
        let (before, began) = (connections(server).await.unwrap(), Instant::now());
        let there = servers.iter().filter(|number| **number == servers[0]).count();
        assert_eq!(before, CONNECTIONS * there);
        server.lame_duck();
        let left = eventually("nobody to be left", || async {
            (!server.is_running() || connections(server).await == Some(0)).then(|| began.elapsed())
        })
        .await;
        server.ended().await;
        let ended = began.elapsed();
        sleep(Duration::from_millis(500)).await;
        let (told, whispered) = (load.stop().await, whispers.stop().await);
        // It comes after everything else, over the same ways.
        sleep(Duration::from_millis(500)).await;
        node.of_several(0).backend().publish(ROOM, "end", json!({})).await;
        (told, whispered, before, left, ended)
    };
    let ((told, whispered, before, left, ended), one, other) = tokio::join!(story, read(&mut ada), read(&mut ben));
    println!(
        "lame duck: {before} connections left after {left:?}, the server ended after {ended:?}; \
         acknowledged {}, not stored {}, unknown {}, slowest {:?}; longest pauses {:?} and {:?}; \
         {} ephemeral, {} refused, {} and {} came, longest silence {:?} and {:?}",
        told.acknowledged(),
        told.not_stored,
        told.unknown(),
        told.slowest,
        one.longest_pause,
        other.longest_pause,
        whispered.all(),
        whispered.refused,
        one.whispers.len(),
        other.whispers.len(),
        one.longest_silence,
        other.longest_silence,
    );
    for seen in [&one, &other] {
        told.assert_seen(seen);
        whispered.assert_heard(seen);
        assert!(seen.degraded.is_empty(), "{:?}", seen.degraded);
    }
    assert_eq!(told.not_stored + told.unknown() + whispered.refused, 0);
    eventually("each node to have its two connections", || async {
        (all_connections(&cluster).await == CONNECTIONS * servers.len()).then_some(())
    })
    .await;
    ada.close().await;
    ben.close().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_all_nodes_are_on_ends_and_nobody_misses_anything() {
    a_server_ends_and_nobody_misses_anything([0, 0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_one_node_is_on_ends_and_nobody_misses_anything() {
    a_server_ends_and_nobody_misses_anything([0, 1]).await;
}
