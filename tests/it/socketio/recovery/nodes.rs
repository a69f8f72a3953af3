//! Sessions are recovered on any node, also after the end of the one that had them.

use serde_json::json;

use super::stories::{goes_on_from_its_joins, is_cut_at_every_event, is_fenced_unseen, misses_nothing};
use super::{Person, numbers, said};
use crate::support::nats::NatsServer;
use crate::support::{Caller, Gateway, GatewayOptions, ROOT, over_nats, user};

// Connections go to two nodes by turns.

#[tokio::test]
async fn a_client_that_comes_back_to_another_node_has_missed_nothing() {
    over_nats(async {
        misses_nothing(&[(false, false)]).await;
        goes_on_from_its_joins().await;
    })
    .await;
}

#[tokio::test]
async fn an_open_transport_on_another_node_is_closed_and_presence_sees_nothing_of_it() {
    over_nats(is_fenced_unseen(&[false])).await;
}

#[tokio::test]
async fn cut_at_every_event_and_back_on_another_node_each_event_comes_once_and_in_order() {
    over_nats(is_cut_at_every_event(false)).await;
}

#[tokio::test]
async fn a_session_outlives_its_node() {
    let server = NatsServer::start().await;
    let mut gateways = Vec::new();
    for name in ["node-0", "node-1"] {
        let config = format!(
            "[nats]\nservers = [{:?}]\npartitions = 2\n[socketio]\nrecovery = \"2m\"\n",
            server.url()
        );
        let gateway = Gateway::start(GatewayOptions {
            name: name.to_owned(),
            config,
            ..GatewayOptions::default()
        });
        gateways.push(gateway.await);
    }
    let backend = Caller::new(gateways[1].channel(), ROOT);
    let mut ada = Person::begin_at(gateways[0].clients(), &user("ada")).await;
    for room in ["a", "b"] {
        ada.join(room).await;
    }
    let mut silent = Person::begin_at(gateways[0].clients(), &user("bob")).await;
    silent.join("b").await;
    backend.publish("a", "said", json!({"n": 1})).await;
    assert_eq!(ada.event().await, said(1));
    let (ada, _cut) = ada.vanish();
    let (silent, _also_cut) = silent.vanish();
    gateways[0].kill();
    for (n, room) in [(2, "b"), (3, "a")] {
        backend.publish(room, "said", json!({"n": n})).await;
    }
    let address = gateways[1].clients();
    // Never with another one's token.
    assert!(!Person::back_at(address, &user("eve"), &ada).await.recovered);
    let mut ada = Person::back_at(address, &user("ada"), &ada).await;
    assert_eq!((ada.recovered, numbers(&ada.missed)), (true, vec![3, 2]));
    let bob = Person::back_at(address, &user("bob"), &silent).await;
    assert_eq!((bob.recovered, numbers(&bob.missed)), (true, vec![2]));
    backend.publish("b", "said", json!({"n": 4})).await;
    assert_eq!(ada.event().await, said(4));
}
