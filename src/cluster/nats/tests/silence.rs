//! Orders while a node is silent that may go on.

use std::time::Duration;

use futures_util::future::join_all;

use super::node::{Member, permit, within};
use super::{all_of_ada, connection, greeting, order, room};
use crate::cluster::ClusterError;
use crate::error::CloseReason;
use crate::hub::Verb;
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
    a.is_left_alone().await;
    // Only of `b` it is to be feared that it goes on: `c` has said goodbye.
    let silent = || ClusterError::Silent(vec!["b".into()]);
    let greet = there.clone().order(Verb::Send(greeting()));
    let verbs = [
        (all_of_ada(), Verb::Count),
        (all_of_ada(), Verb::Join(permit(room("r")))),
        (all_of_ada(), Verb::Leave(room("r"), Notice::default())),
        (there.clone(), Verb::Disconnect(CloseReason::Kicked, Notice::default())),
    ];
    let ordering = verbs.map(|(audience, verb)| order(&a, audience, verb));
    let (ordered, sent, lost) = tokio::join!(
        join_all(ordering),
        a.cluster.order_at(found.place, greet),
        a.cluster.find(&there),
    );
    assert_eq!(ordered, [(); 4].map(|()| Err(silent())));
    assert_eq!((sent.err(), lost.err()), (Some(silent()), Some(silent())));
    // A connection that is found needs nobody else's answer.
    assert!(
        a.cluster
            .find(&connection(a.shard.connect("eve")))
            .await
            .unwrap()
            .is_some()
    );
    a.takes_lease_for_ended(&b);
    assert_eq!(order(&a, all_of_ada(), Verb::Count).await, Ok(1));
    proxy.mend();
    within("the node that goes on", async {
        while order(&a, all_of_ada(), Verb::Count).await != Ok(2) {}
    })
    .await;
}
