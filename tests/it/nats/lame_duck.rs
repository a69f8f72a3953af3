//! A server that says it will end: nodes go elsewhere before it does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::load::{Load, ROOM, read};
use super::over;
use crate::support::nats::{NatsCluster, NatsServer};
use crate::support::{Encoding, Node, eventually, user};

/// How many connections of nodes a server has.
async fn connections(server: &NatsServer) -> Option<usize> {
    let all = server.monitor("/connz").await?;
    let of_node = |connection: &&Value| {
        let name = connection.get("name").and_then(Value::as_str).unwrap_or_default();
        name.starts_with("roomcast ")
    };
    Some(all.get("connections")?.as_array()?.iter().filter(of_node).count())
}

/// The server with most of the nodes' connections.
async fn busiest(cluster: &NatsCluster) -> usize {
    let mut counts = Vec::new();
    for server in cluster.servers() {
        counts.push(connections(server).await.unwrap_or_default());
    }
    (0..counts.len()).max_by_key(|number| counts[*number]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_leave_a_server_that_will_end_and_members_hardly_notice() {
    let cluster = NatsCluster::start().await;
    let over = over(&cluster.url());
    let node = Node::several(Encoding::Json, 2, move |config| {
        over(config);
        config.nats.as_mut().unwrap().replicas = 3;
    })
    .await;
    let mut ada = node.of_several(0).connect(user("ada")).await;
    let mut ben = node.of_several(1).connect(user("ben")).await;
    ada.join(ROOM).await;
    ben.join(ROOM).await;
    let story = async {
        let load = Load::start(&node, 2);
        sleep(Duration::from_millis(500)).await;
        let server = cluster.server(busiest(&cluster).await);
        let (before, began) = (connections(server).await.unwrap(), Instant::now());
        assert!(before > 0);
        server.lame_duck();
        let left = eventually("nobody to be left", || async {
            (!server.is_running() || connections(server).await == Some(0)).then(|| began.elapsed())
        })
        .await;
        server.ended().await;
        sleep(Duration::from_millis(500)).await;
        let told = load.stop().await;
        node.of_several(0).backend().publish(ROOM, "end", json!({})).await;
        (told, before, left)
    };
    let ((told, before, left), one, other) = tokio::join!(story, read(&mut ada), read(&mut ben));
    println!(
        "lame duck: {before} connections left after {left:?}; acknowledged {}, not stored {}, unknown {}, slowest {:?}; longest pauses {:?} and {:?}",
        told.acknowledged(),
        told.not_stored,
        told.unknown(),
        told.slowest,
        one.longest_pause,
        other.longest_pause,
    );
    for seen in [&one, &other] {
        told.assert_seen(seen);
    }
    assert_eq!(told.not_stored + told.unknown(), 0);
    ada.close().await;
    ben.close().await;
    node.finish().await;
}
