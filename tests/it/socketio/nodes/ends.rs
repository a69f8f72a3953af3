//! Ends of connections, of requests, of nodes and of NATS.

use serde_json::json;

use super::{Caller, addresses, answer, events, over_with, several, unknown};
use crate::support::nats::NatsServer;
use crate::support::{Caller as Backend, Encoding, Gateway, GatewayOptions, Node, ROOT, eventually, user};

#[tokio::test]
async fn a_poll_given_up_at_another_node_ends_the_connection() {
    let server = NatsServer::start().await;
    let node = several(2, &server).await;
    let at = addresses(&node, 2);
    let client = Caller::member(&at, &user("ada")).await;
    let mut waiting = client.relayed(at[1], &server).await;
    waiting.end_own_side().await;
    node.until_connections(0).await;
    assert_eq!(client.get(at[1]).await, unknown());
    node.finish().await;
}

#[tokio::test]
async fn a_second_poll_at_another_node_ends_the_connection() {
    let server = NatsServer::start().await;
    let node = several(3, &server).await;
    let at = addresses(&node, 3);
    let client = Caller::member(&at, &user("ada")).await;
    let mut first = client.relayed(at[1], &server).await;
    assert_eq!(client.get(at[2]).await.0, 400);
    let (status, body, _) = answer(&mut first).await;
    assert_eq!((status, &*body), (200, "1"));
    assert_eq!(client.post(at[1], "6").await, unknown());
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn the_end_answers_a_poll_at_another_node() {
    let server = NatsServer::start().await;
    let node = several(3, &server).await;
    let at = addresses(&node, 3);
    let client = Caller::member(&at, &user("ada")).await;
    let mut waiting = client.relayed(at[1], &server).await;
    assert_eq!(client.post(at[2], "1").await, (200, "ok".to_owned()));
    let (status, body, _) = answer(&mut waiting).await;
    assert_eq!((status, &*body), (200, "6"));
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn a_node_that_drains_releases_the_polls_it_relays() {
    let server = NatsServer::start().await;
    let mut node = several(3, &server).await;
    let at = addresses(&node, 3);
    let client = Caller::member(&at, &user("ada")).await;
    let mut waiting = client.relayed(at[2], &server).await;
    let ((status, body, _), ()) = tokio::join!(answer(&mut waiting), node.shut_down_one(2));
    assert_eq!((status, &*body), (200, "6"));
    // The connection has lost nothing.
    node.of_several(1).backend().publish("r", "news", json!(1)).await;
    assert_eq!(events(&client, &at[1..2], 1).await, [json!(1)]);
    assert_eq!(client.post(at[1], "1").await.0, 200);
    node.finish().await;
}

#[tokio::test]
async fn a_node_that_drains_sends_clients_away_that_poll_elsewhere() {
    let server = NatsServer::start().await;
    let mut node = several(2, &server).await;
    let at = addresses(&node, 2);
    let client = Caller::member(&at, &user("ada")).await;
    let mut waiting = client.relayed(at[1], &server).await;
    let told = async {
        let (status, body, _) = answer(&mut waiting).await;
        assert!(
            status == 200 && body.starts_with("42[\"roomcast:reconnectAdvice\""),
            "{status} {body}"
        );
        client.get(at[1]).await
    };
    let (ended, ()) = tokio::join!(told, node.shut_down_one(0));
    // After both all clients come back by themselves. Which of them depends on when the poll arrives.
    assert!(ended == (503, String::new()) || ended == unknown(), "{ended:?}");
    assert_eq!(client.get(at[1]).await, unknown());
    let again = Caller::member(&at[1..], &user("ada")).await;
    assert_eq!(again.post(at[1], "1").await.0, 200);
    node.finish().await;
}

#[tokio::test]
async fn more_polls_than_may_wait_for_other_nodes_are_refused() {
    let server = NatsServer::start().await;
    let url = server.url();
    let node = Node::several(Encoding::Json, 2, move |config| {
        over_with(config, &url, |settings| settings.forwarded_max = 1);
    })
    .await;
    let at = addresses(&node, 2);
    let ada = Caller::member(&at, &user("ada")).await;
    let bob = Caller::member(&at, &user("bob")).await;
    let mut waiting = ada.relayed(at[1], &server).await;
    assert_eq!(bob.get(at[1]).await.0, 503);
    // Only that one ends: its client opens another connection.
    node.until_connections(1).await;
    assert_eq!(ada.post(at[0], "1").await.0, 200);
    assert_eq!(answer(&mut waiting).await.1, "6");
    node.finish().await;
}

/// A gateway as a process.
async fn process(name: &str, server: &NatsServer) -> Gateway {
    let config = format!(
        "[nats]\nservers = [\"{}\"]\npartitions = 3\n[socketio]\nping_interval = \"10m\"\n[presence]\nleave_grace = \"0s\"",
        server.url()
    );
    let options = GatewayOptions {
        name: name.to_owned(),
        config,
        ..GatewayOptions::default()
    };
    Gateway::start(options).await
}

#[tokio::test]
async fn a_killed_node_is_an_unknown_one_for_its_clients() {
    let server = NatsServer::start().await;
    let (owner, front) = (process("owner", &server).await, process("front", &server).await);
    let client = Caller::member(&[owner.clients(), front.clients()], &user("ada")).await;
    let mut waiting = client.relayed(front.clients(), &server).await;
    owner.kill();
    let (status, body, _) = answer(&mut waiting).await;
    assert_eq!((status, body), unknown());
    assert_eq!(client.get(front.clients()).await, unknown());
    // A new connection serves the client at once.
    let again = Caller::member(&[front.clients()], &user("ada")).await;
    assert_eq!(again.post(front.clients(), "1").await.0, 200);
}

#[tokio::test]
async fn a_connection_ends_whose_poll_went_through_a_killed_node() {
    let server = NatsServer::start().await;
    let (owner, front) = (process("owner", &server).await, process("front", &server).await);
    let client = Caller::member(&[owner.clients(), front.clients()], &user("ada")).await;
    let backend = Backend::new(owner.channel(), ROOT);
    assert_eq!(backend.stats("r").await.member_count, 1);
    let _waiting = client.relayed(front.clients(), &server).await;
    front.kill();
    eventually("the member to be gone", || async {
        (backend.stats("r").await.member_count == 0).then_some(())
    })
    .await;
    assert_eq!(client.get(owner.clients()).await, unknown());
}

#[tokio::test]
async fn without_nats_forwarded_polls_end_and_others_go_on() {
    let server = NatsServer::start().await;
    let node = several(2, &server).await;
    let at = addresses(&node, 2);
    let away = Caller::member(&at, &user("ada")).await;
    let here = Caller::member(&at[..1], &user("bob")).await;
    let mut waiting = away.relayed(at[1], &server).await;
    server.kill();
    let (status, ..) = answer(&mut waiting).await;
    assert_eq!(status, 503);
    assert_eq!(away.get(at[1]).await.0, 503);
    let ping = super::command_packet(3, "ping", &json!({}));
    assert_eq!(here.post(at[0], &ping).await.0, 200);
    eventually("the answer of a local request", || async {
        let (status, body) = here.get(at[0]).await;
        assert_eq!(status, 200);
        body.contains("433[{\"ok\":true").then_some(())
    })
    .await;
    server.restart().await;
    // The end of the connection was told once that was possible.
    node.until_connections(1).await;
    assert_eq!(away.get(at[1]).await, unknown());
    assert_eq!(here.post(at[1], "1").await.0, 200);
    node.finish().await;
}
