//! Asks of connections on other nodes.

use std::time::Duration;

use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::time::Instant;

use super::node::{Member, within};
use crate::cluster::{Asked, ClusterError, Delivered};
use crate::event::{EventName, Payload};
use crate::hub::{Ask, AskEnd};
use crate::identity::ConnectionId;
use crate::json::Json;
use crate::proto::node_v1::NodeOrder;
use crate::proto::node_v1::node_order::Order;
use crate::room::Tenant;
use crate::testing::nats::NatsServer;
use crate::testing::proxy::Proxy;

fn ask(connection: ConnectionId, method: &str) -> Ask {
    Ask {
        tenant: Tenant::default(),
        connection,
        method: EventName::parse(method).unwrap(),
        payload: payload(),
    }
}

fn payload() -> Payload {
    Payload::Json(Json::parse("{\"n\":1.0}").unwrap())
}

fn after(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Waits until a client of a node was asked so often.
async fn asked(node: &Member, times: usize) {
    within("the ask", async {
        while node.shard.told().len() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_asked_on_whichever_node_it_is() {
    let server = NatsServer::start().await;
    let (one, two) = tokio::join!(Member::start("one", &server), Member::start("two", &server));
    one.sees(1).await;
    two.sees(1).await;
    let here = one.shard.connect("ada");
    let there = two.shard.connect("ben");
    for connection in [here, there] {
        let answer = one.cluster.ask(ask(connection, "echo"), after(30)).await;
        assert_eq!(answer, Ok(Asked::Ended(AskEnd::Answered(payload()))));
    }
    let nobody = one.cluster.ask(ask(ConnectionId::random(), "echo"), after(30)).await;
    assert_eq!(nobody, Ok(Asked::NotFound));
    assert_eq!((one.shard.told().len(), two.shard.told().len()), (1, 1));
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_client_that_thinks_is_asked_once_and_its_answer_comes_back() {
    let server = NatsServer::start().await;
    let (one, two) = tokio::join!(Member::start("one", &server), Member::start("two", &server));
    one.sees(1).await;
    two.sees(1).await;
    let there = two.shard.connect("ben");
    let orders = two.nats.subjects().node(two.incarnation());
    let mut orders = one.nats.control().client().subscribe(orders).await.unwrap();
    let thinking = async {
        let is_follow_up = |order: NodeOrder| matches!(order.order, Some(Order::Follow(_)));
        let seen = async { while !is_follow_up(NodeOrder::decode(&*orders.next().await.unwrap().payload).unwrap()) {} };
        within("the question what has become of it", seen).await;
        two.shard.stop_thinking(AskEnd::Lost);
    };
    let (answer, ()) = tokio::join!(one.cluster.ask(ask(there, "think"), after(30)), thinking);
    assert_eq!(answer, Ok(Asked::Ended(AskEnd::Lost)));
    assert_eq!(two.shard.told(), ["ask think"]);
    let late = one
        .cluster
        .ask(ask(there, "think"), Instant::now() + Duration::from_millis(300))
        .await;
    assert_eq!(late, Ok(Asked::TimedOut(Delivered::Yes)));
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn messages_that_are_lost_ask_no_client_twice_and_lose_no_answer() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let (one, two) = tokio::join!(
        Member::start("one", &server),
        Member::with_lease("two", proxy.url(), Duration::from_secs(60))
    );
    one.sees(1).await;
    two.sees(1).await;
    let there = two.shard.connect("ben");
    let thinking = async {
        asked(&two, 1).await;
        // What the node says of the end is lost with its connection.
        proxy.reset();
        two.shard.stop_thinking(AskEnd::Answered(payload()));
    };
    let (answer, ()) = tokio::join!(one.cluster.ask(ask(there, "think"), after(30)), thinking);
    assert_eq!(answer, Ok(Asked::Ended(AskEnd::Answered(payload()))));
    assert_eq!(two.shard.told(), ["ask think"]);
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_connection_is_not_found_only_when_every_node_has_said_so() {
    let server = NatsServer::start().await;
    let (one, two) = tokio::join!(Member::start("one", &server), Member::start("two", &server));
    one.sees(1).await;
    two.sees(1).await;
    two.shard.stop_answering();
    let unknown = one.cluster.ask(ask(ConnectionId::random(), "echo"), after(30)).await;
    assert_eq!(unknown, Err(ClusterError::Silent(vec!["two".into()])));
    let late = one
        .cluster
        .ask(
            ask(ConnectionId::random(), "echo"),
            Instant::now() + Duration::from_millis(50),
        )
        .await;
    assert_eq!(late, Ok(Asked::TimedOut(Delivered::No)));
    two.shard.answer_again();
    one.end().await;
    two.end().await;
}
