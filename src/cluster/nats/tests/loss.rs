//! The control log is lost under nodes that live: what they know comes back, and nothing else does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::node::{Member, within};
use super::{TTL, revoke};
use crate::cluster::Revoke;
use crate::room::Tenant;
use crate::testing::nats::NatsServer;
use crate::testing::proxy::Proxy;

/// Two nodes. Access to `r` is withdrawn, that to `s` was and is given back.
async fn pair(server: &NatsServer) -> [Member; 2] {
    prepared([Member::start("a", server).await, Member::start("b", server).await]).await
}

async fn prepared([a, b]: [Member; 2]) -> [Member; 2] {
    a.sees(1).await;
    b.sees(1).await;
    a.cluster.revoke(revoke("r")).await.unwrap();
    let given_back = b.cluster.revoke(revoke("s")).await.unwrap();
    a.cluster.restore(Tenant::default(), given_back.id).await.unwrap();
    [a, b]
}

fn stream(node: &Member) -> String {
    node.nats.subjects().stream_of('c')
}

/// It knows what is withdrawn, and what is not any more.
fn assert_knows(node: &Member) {
    assert!(node.shuts_out("r"), "the revocation is lost");
    assert!(!node.shuts_out("s"), "what was taken back is in force again");
}

/// A node that starts when all others have gone knows it, too: it stands in the log.
async fn assert_written_back(nodes: [Member; 2], late: Member, server: &NatsServer) {
    for node in nodes.iter().chain([&late]) {
        assert_knows(node);
        node.end().await;
    }
    assert_knows(&Member::start("last", server).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_log_is_written_back() {
    let server = NatsServer::start().await;
    let nodes = pair(&server).await;
    let jetstream = nodes[0].nats.jetstream();
    jetstream.delete_stream(stream(&nodes[0])).await.unwrap();
    let late = Member::late("late", &server, 2).await;
    assert_written_back(nodes, late, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_log_is_written_back() {
    let server = NatsServer::start().await;
    let nodes = pair(&server).await;
    let log = nodes[0].nats.jetstream().get_stream(stream(&nodes[0])).await.unwrap();
    log.purge().await.unwrap();
    let late = Member::late("late", &server, 2).await;
    assert_written_back(nodes, late, &server).await;
}

/// The leases went with it, and the node that revokes has read none of them: who lives is named all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_purge_a_revocation_through_a_new_node_names_every_node() {
    let server = NatsServer::start().await;
    let nodes = pair(&server).await;
    let log = nodes[0].nats.jetstream().get_stream(stream(&nodes[0])).await.unwrap();
    log.purge().await.unwrap();
    let late = Member::late("late", &server, 2).await;
    let carried = late.cluster.revoke(revoke("t")).await.unwrap().carried;
    let mut named: Vec<String> = carried.confirmed.into_iter().chain(carried.unconfirmed).collect();
    named.sort();
    assert_eq!(named, ["a", "b", "late"]);
}

/// The leases stay, so neither the first nor the last sequence tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_its_revocations_is_written_back() {
    let server = NatsServer::start().await;
    let nodes = pair(&server).await;
    let log = nodes[0].nats.jetstream().get_stream(stream(&nodes[0])).await.unwrap();
    for kind in ["r.>", "u.>"] {
        log.purge()
            .filter(nodes[0].nats.subjects().command(kind))
            .await
            .unwrap();
    }
    let late = Member::late("late", &server, 2).await;
    assert_written_back(nodes, late, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_memory_is_written_back_when_its_server_is_restarted() {
    let server = NatsServer::start().await;
    let nodes = [
        Member::in_memory("a", &server, 0).await,
        Member::in_memory("b", &server, 0).await,
    ];
    let nodes = prepared(nodes).await;
    server.kill();
    server.restart().await;
    let late = Member::in_memory("late", &server, 2).await;
    for node in nodes.iter().chain([&late]) {
        assert_knows(node);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_log_brings_nothing_back_and_loses_nothing() {
    let server = NatsServer::start().await;
    let (a, b) = tokio::join!(Member::start("a", &server), Member::start("b", &server));
    a.sees(1).await;
    b.sees(1).await;
    let short = Revoke {
        ttl: Duration::from_secs(1),
        ..revoke("ended")
    };
    a.cluster.revoke(short).await.unwrap();
    let given_back = b.cluster.revoke(revoke("s")).await.unwrap();
    within("the end of a revocation", async {
        while a.shuts_out("ended") || b.shuts_out("ended") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // As a backup is taken: between two lives of the server.
    let copy = tempfile::tempdir().unwrap();
    server.stop().await;
    copy_tree(&server.store(), copy.path());
    server.restart().await;
    within("the leases", async { tokio::join!(a.lease.held(), b.lease.held()) }).await;
    a.cluster.restore(Tenant::default(), given_back.id).await.unwrap();
    a.cluster.revoke(revoke("r")).await.unwrap();
    let told = [&a, &b].map(|node| node.shard.told().len());
    server.stop().await;
    fs::remove_dir_all(server.store()).unwrap();
    copy_tree(copy.path(), &server.store());
    server.restart().await;
    let late = Member::late("late", &server, 2).await;
    for node in [&a, &b, &late] {
        assert!(!node.shuts_out("ended"));
    }
    let nodes = [a, b];
    assert_eq!(
        told,
        [0, 1].map(|number| nodes[number].shard.told().len()),
        "carried out again"
    );
    assert_written_back(nodes, late, &server).await;
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The lease of a node that is cut off was in the lost log only, and the node that revokes has never read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_loss_a_revocation_waits_for_leases_that_nobody_can_know() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let a = Member::start("a", &server).await;
    let b = Member::with_lease("b", proxy.url(), Duration::from_secs(12)).await;
    a.sees(1).await;
    proxy.freeze_both();
    a.nats.jetstream().delete_stream(stream(&a)).await.unwrap();
    let late = Member::late("late", &server, 1).await;
    let is_early = b.lease.holds();
    late.cluster.revoke(revoke("r")).await.unwrap();
    assert!(!b.lease.holds(), "it would have served what was revoked");
    assert!(is_early, "the lease had ended before: nothing was shown");
    assert_eq!(TTL, revoke("r").ttl);
    proxy.mend();
}
