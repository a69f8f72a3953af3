//! Who lives, over a real nats-server.

use std::sync::Arc;
use std::time::Instant;

use roomcast::nats::nodes::{Node, NodeChange, Nodes};
use roomcast::nats::{Config, Nats};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::nats::NatsServer;
use crate::support::proxy::Proxy;
use crate::support::within;

/// One node, as far as the others are concerned.
struct Peer {
    nodes: Arc<Nodes>,
    changes: broadcast::Receiver<NodeChange>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Peer {
    async fn join(url: String, id: &str) -> Self {
        let config = Config {
            servers: vec![url],
            ..Config::default()
        };
        let nodes = Nodes::new(Nats::connect(&config).await.unwrap(), id);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let changes = nodes.changes();
        let listening = nodes.listen().await.unwrap();
        tasks.spawn(Arc::clone(&nodes).run(listening, stop.clone()));
        Self {
            nodes,
            changes,
            stop,
            tasks,
        }
    }

    fn own(&self) -> Node {
        self.nodes.own().clone()
    }

    async fn expect(&mut self, change: NodeChange) {
        let next = within(format!("{change:?}"), self.changes.recv()).await;
        assert_eq!(next.unwrap(), change);
    }

    async fn until_hearing(&self, expected: bool) {
        let mut hearing = self.nodes.hearing();
        let changed = hearing.wait_for(|hearing| *hearing == expected);
        within(format!("hearing to be {expected}"), changed).await.unwrap();
    }

    async fn leave(self) {
        self.stop.cancel();
        self.tasks.close();
        within("the node to say goodbye", self.tasks.wait()).await;
    }
}

#[tokio::test]
async fn nodes_see_each_other_come_and_say_goodbye() {
    let server = NatsServer::start().await;
    let mut first = Peer::join(server.url(), "first").await;
    let mut second = Peer::join(server.url(), "second").await;
    first.expect(NodeChange::Came(second.own())).await;
    second.expect(NodeChange::Came(first.own())).await;
    assert_eq!(first.nodes.live(), [second.own()]);
    let gone = second.own();
    second.leave().await;
    first.expect(NodeChange::Went(gone)).await;
    assert!(first.nodes.live().is_empty());
    first.leave().await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_given_up_and_comes_back() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let mut first = Peer::join(server.url(), "first").await;
    let mut second = Peer::join(proxy.url(), "second").await;
    first.expect(NodeChange::Came(second.own())).await;
    second.expect(NodeChange::Came(first.own())).await;
    let began = Instant::now();
    proxy.freeze_both();
    first.expect(NodeChange::Went(second.own())).await;
    second.until_hearing(false).await;
    println!("both knew of the half-open connection after {:?}", began.elapsed());
    assert!(
        second.changes.is_empty(),
        "a node that hears nothing knows nothing of the others"
    );
    proxy.mend();
    second.until_hearing(true).await;
    first.expect(NodeChange::Came(second.own())).await;
    assert_eq!(second.nodes.live(), [first.own()]);
    first.leave().await;
    second.leave().await;
}

#[tokio::test]
async fn a_restart_of_the_server_makes_nobody_go() {
    let server = NatsServer::start().await;
    let mut first = Peer::join(server.url(), "first").await;
    let mut second = Peer::join(server.url(), "second").await;
    first.expect(NodeChange::Came(second.own())).await;
    second.expect(NodeChange::Came(first.own())).await;
    server.kill();
    // Nobody hears anybody, and nobody is given up.
    first.until_hearing(false).await;
    second.until_hearing(false).await;
    server.restart().await;
    first.until_hearing(true).await;
    second.until_hearing(true).await;
    let third = Peer::join(server.url(), "third").await;
    // What comes next is the newcomer: nobody went in between.
    first.expect(NodeChange::Came(third.own())).await;
    second.expect(NodeChange::Came(third.own())).await;
    for peer in [first, second, third] {
        peer.leave().await;
    }
}
