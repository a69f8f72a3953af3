//! Orders while a node is silent that may go on.

use std::time::Duration;

use super::node::{Member, permit, within};
use super::{all_of_ada, connection, greeting, room};
use crate::cluster::ClusterError;
use crate::error::CloseReason;
use crate::notice::Notice;
use crate::testing::nats::NatsServer;
use crate::testing::proxy::Proxy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_names_a_node_given_up_until_its_lease_ends() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let a = Member::start("a", &server).await;
    // Longer than the test, however slow the machine is.
    let b = Member::with_lease("b", proxy.url(), Duration::from_secs(120)).await;
    let c = Member::start("c", &server).await;
    a.sees(2).await;
    a.shard.connect("ada");
    let there = connection(b.shard.connect("ada"));
    let found = a.cluster.find(&there).await.unwrap().unwrap();
    c.end().await;
    proxy.freeze_both();
    within("both to be given up", async {
        while !a.lives_alone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Only of `b` it is to be feared that it goes on: `c` has said goodbye.
    let silent = || ClusterError::Silent(vec!["b".into()]);
    let (entry, room, no_notice, ada) = (permit(room("r")), room("r"), Notice::default(), all_of_ada());
    let (counted, lost, joined, left, closed, sent) = tokio::join!(
        a.cluster.connections(&ada),
        a.cluster.find(&there),
        a.cluster.join(&ada, &entry),
        a.cluster.leave(&ada, &room, &no_notice),
        a.cluster.disconnect(&there, CloseReason::Kicked, &no_notice),
        a.cluster.send(&there, found.place, greeting()),
    );
    assert_eq!((counted, lost.err()), (Err(silent()), Some(silent())));
    assert_eq!((joined, left), (Err(silent()), Err(silent())));
    assert_eq!((closed, sent), (Err(silent()), Err(silent())));
    // A connection that is found needs nobody else's answer.
    assert!(
        a.cluster
            .find(&connection(a.shard.connect("eve")))
            .await
            .unwrap()
            .is_some()
    );
    a.takes_lease_for_ended(&b);
    assert_eq!(a.cluster.connections(&ada).await, Ok(1));
    proxy.mend();
    within("the node that goes on", async {
        while a.cluster.connections(&ada).await != Ok(2) {}
    })
    .await;
}
