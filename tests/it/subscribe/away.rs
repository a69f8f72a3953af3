//! A node that is cut off from NATS while a backend is subscribed there.

use serde_json::json;

use super::{Reader, patient, to};
use crate::support::nats::NatsServer;
use crate::support::proxy::Proxy;
use crate::support::{Encoding, Node};

/// The second of two gateways reaches NATS through the proxy.
pub async fn half_behind(proxy: &Proxy, server: &NatsServer) -> Node {
    let (direct, behind) = (server.url(), proxy.url());
    Node::several(Encoding::Json, 2, move |config| {
        patient(config);
        let url = if config.node_id == "node-0" { &direct } else { &behind };
        config.nats.as_mut().unwrap().servers = vec![url.clone()];
    })
    .await
}

async fn cut_off_by(part: impl Fn(&Proxy)) {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let node = half_behind(&proxy, &server).await;
    let backend = node.of_several(0).backend();
    let mut reader = Reader::begin(&node.of_several(1).backend(), to(&["r", "s"])).await;
    let mut numbers = 0..;
    for _ in 0..3 {
        for number in numbers.by_ref().take(10) {
            backend.publish(["r", "s"][number % 2], "e", json!(number)).await;
        }
        part(&proxy);
        for number in numbers.by_ref().take(10) {
            backend.publish(["r", "s"][number % 2], "e", json!(number)).await;
        }
        proxy.mend();
    }
    let events = reader.events(60).await;
    for (room, parity) in [("r", 0), ("s", 1)] {
        let of_room = events.iter().filter(|event| event.room == room);
        let payloads: Vec<_> = of_room.map(|event| event.payload.clone().unwrap()).collect();
        let expected = (parity..60)
            .step_by(2)
            .map(|number| crate::support::payload(&json!(number)));
        assert_eq!(payloads, expected.collect::<Vec<_>>());
    }
    node.finish().await;
}

#[tokio::test]
async fn a_cut_link_to_nats_loses_nothing() {
    Box::pin(cut_off_by(Proxy::cut)).await;
}

#[tokio::test]
async fn reset_connections_to_nats_lose_nothing() {
    Box::pin(cut_off_by(Proxy::reset)).await;
}
