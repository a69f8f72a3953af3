//! NATS cannot be reached: what clients, backends and probes are told, and what comes afterwards.

use std::time::{Duration, Instant};

use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join};
use roomcast::proto::v1;
use serde_json::json;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::over;
use crate::support::nats::NatsServer;
use crate::support::proxy::{Proxy, Way};
use crate::support::{Client, Encoding, InRoom as _, Node, TENANT, draft, eventually, to_room, user};

/// What probes may take to be told, on a machine with other worries. Without them it is minutes.
const TOLD_MAX: Duration = Duration::from_secs(20);

async fn is_serving(node: &Node, gateway: usize) -> bool {
    let mut health = HealthClient::new(node.of_several(gateway).channel());
    let status = health
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner()
        .status();
    status == ServingStatus::Serving
}

pub(super) async fn until_serving(node: &Node, gateway: usize, expected: bool) {
    eventually(format!("gateway {gateway} to say {expected}"), || async {
        (is_serving(node, gateway).await == expected).then_some(())
    })
    .await;
}

async fn expect_degraded(client: &mut Client, active: bool) {
    match client.push().await {
        Said::Degraded(degraded) if degraded.active == active => {}
        other => panic!("{client} is to be told of degraded {active} and gets {other:?}"),
    }
}

/// A publish fails in time and says that nothing was stored; a join is refused as what it is.
async fn nothing_works(node: &Node, gateway: usize, client: &mut Client) {
    let mut request = Request::new(v1::PublishRequest {
        tenant: TENANT.to_owned(),
        targets: vec![to_room("r")],
        ..draft("unheard", json!({}))
    });
    // It is answered before that: nothing was handed over.
    request.set_timeout(Duration::from_secs(20));
    let began = Instant::now();
    let refused = node
        .of_several(gateway)
        .backend()
        .publishing
        .publish(request)
        .await
        .unwrap_err();
    println!(
        "a publish while nats is away: {:?} after {:?}",
        refused.code(),
        began.elapsed()
    );
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let refused = client.try_join(Join::in_room("elsewhere")).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unavailable, "{refused:?}");
}

#[tokio::test]
async fn a_server_that_is_gone_and_comes_back() {
    let server = NatsServer::start().await;
    let node = Node::several(Encoding::Json, 2, over(&server.url())).await;
    let mut clients = [
        node.of_several(0).connect(user("ada")).await,
        node.of_several(1).connect(user("ben")).await,
    ];
    for client in &mut clients {
        client.join("r").await;
    }
    node.of_several(0).backend().publish("r", "before", json!({})).await;
    server.kill();
    let began = Instant::now();
    for (gateway, client) in clients.iter_mut().enumerate() {
        client.expect_event("r", "before").await;
        expect_degraded(client, true).await;
        until_serving(&node, gateway, false).await;
    }
    println!("degraded after {:?}", began.elapsed());
    for (gateway, client) in clients.iter_mut().enumerate() {
        nothing_works(&node, gateway, client).await;
        // Whoever comes now is told, too.
        let mut late = node.of_several(gateway).connect(user("late")).await;
        expect_degraded(&mut late, true).await;
        late.close().await;
    }
    server.restart().await;
    let began = Instant::now();
    for (gateway, client) in clients.iter_mut().enumerate() {
        expect_degraded(client, false).await;
        until_serving(&node, gateway, true).await;
    }
    println!("well again {:?} after the restart", began.elapsed());
    node.of_several(1).backend().publish("r", "after", json!({})).await;
    for client in &mut clients {
        client.expect_nothing_before("after").await;
        client.join("elsewhere").await;
    }
    for client in clients {
        client.close().await;
    }
    node.finish().await;
}

/// Two gateways, the second behind a proxy; a member at each.
async fn half_behind(proxy: &Proxy, server: &NatsServer) -> (Node, Client, Client) {
    let (direct, behind) = (server.url(), proxy.url());
    let node = Node::several(Encoding::Json, 2, move |config| {
        let url = if config.node_id == "node-0" { &direct } else { &behind };
        config.nats.as_mut().unwrap().servers = vec![url.clone()];
    })
    .await;
    let mut ada = node.of_several(0).connect(user("ada")).await;
    let mut ben = node.of_several(1).connect(user("ben")).await;
    ada.join("r").await;
    ben.join("r").await;
    (node, ada, ben)
}

/// The second gateway is parted from NATS by `part`, and finds out in time; what others publish meanwhile comes afterwards.
async fn parted(part: impl FnOnce(&Proxy)) {
    // The story is long; boxed, it is not copied about.
    Box::pin(parted_story(part)).await;
}

async fn parted_story(part: impl FnOnce(&Proxy)) {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let (node, mut ada, mut ben) = half_behind(&proxy, &server).await;
    part(&proxy);
    let began = Instant::now();
    expect_degraded(&mut ben, true).await;
    until_serving(&node, 1, false).await;
    println!("found out after {:?}", began.elapsed());
    assert!(began.elapsed() < TOLD_MAX, "{:?}", began.elapsed());
    assert!(is_serving(&node, 0).await);
    for number in 0..20 {
        let event = format!("meanwhile {number}");
        node.of_several(0).backend().publish("r", &event, json!({})).await;
        ada.expect_event("r", &event).await;
    }
    nothing_works(&node, 1, &mut ben).await;
    proxy.mend();
    let began = Instant::now();
    let mut missed = 0;
    loop {
        match ben.push().await {
            Said::Event(event) => {
                assert_eq!(event.event_name, format!("meanwhile {missed}"));
                missed += 1;
            }
            Said::Degraded(degraded) => {
                assert!(!degraded.active);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("well again after {:?}, with {missed} of 20 events", began.elapsed());
    for number in missed..20 {
        ben.expect_event("r", &format!("meanwhile {number}")).await;
    }
    until_serving(&node, 1, true).await;
    node.of_several(1).backend().publish("r", "after", json!({})).await;
    ada.expect_nothing_before("after").await;
    ben.expect_nothing_before("after").await;
    ada.close().await;
    ben.close().await;
    node.finish().await;
}

#[tokio::test]
async fn connections_that_are_cut() {
    parted(Proxy::cut).await;
}

#[tokio::test]
async fn connections_that_are_frozen() {
    parted(Proxy::freeze_both).await;
}

#[tokio::test]
async fn connections_that_bring_nothing_any_more() {
    parted(|proxy| proxy.freeze(Way::ToClient)).await;
}

#[tokio::test]
async fn connections_that_take_nothing_any_more() {
    parted(|proxy| proxy.freeze(Way::ToServer)).await;
}
