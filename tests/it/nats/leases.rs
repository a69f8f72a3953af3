//! Nodes with leases of different lengths, one of them cut off from NATS.

use std::time::{Duration, Instant};

use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::{ErrorCode, HistoryQuery, Join, PresenceQuery};
use roomcast::proto::v1;

use super::member;
use crate::support::nats::NatsServer;
use crate::support::proxy::Proxy;
use crate::support::{Client, Encoding, InRoom as _, Node, revocation_of};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(8);

/// Two gateways, the second one with other leases and behind a proxy; a member of a room at it.
async fn pair(server: &NatsServer, proxy: &Proxy, leases: [Duration; 2]) -> (Node, Client) {
    let urls = [server.url(), proxy.url()];
    let node = Node::several(Encoding::Json, 2, move |config| {
        let second = usize::from(config.node_id == "node-1");
        let nats = config.nats.as_mut().unwrap();
        nats.servers = vec![urls[second].clone()];
        nats.lease = leases[second];
    })
    .await;
    let ada = member(&node, 1).await;
    (node, ada)
}

fn revocation() -> v1::RevokeRequest {
    revocation_of("ada", v1::revoke_request::Scope::Room("r".to_owned()))
}

async fn revoke(node: &Node) -> v1::RevokeResponse {
    let mut access = node.of_several(0).backend().access;
    access.revoke(revocation()).await.unwrap().into_inner()
}

/// Nothing that asks for the room is served.
async fn expect_nothing_served(client: &mut Client) {
    let room = || "r".to_owned();
    let history = HistoryQuery {
        room: room(),
        ..Default::default()
    };
    let commands = [
        Command::Join(Join::in_room("r")),
        Command::HistoryQuery(history),
        Command::PresenceQuery(PresenceQuery { room: room() }),
    ];
    for command in commands {
        let refusal = client.ask(command.clone()).await.unwrap_err();
        let is_refused = matches!(refusal.code(), ErrorCode::Unavailable | ErrorCode::Forbidden);
        assert!(is_refused, "{command:?}: {refusal:?}");
    }
}

#[tokio::test]
async fn revoke_waits_for_the_longer_lease_of_a_node_cut_off() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let (node, mut ada) = pair(&server, &proxy, [SHORT, LONG]).await;
    proxy.freeze_both();
    let began = Instant::now();
    let revoked = revoke(&node).await;
    assert_eq!(revoked.unconfirmed_node_ids, ["node-1"]);
    println!("returned after {:?}", began.elapsed());
    expect_nothing_served(&mut ada).await;
    proxy.mend();
    ada.crash();
    node.finish().await;
}

#[tokio::test]
async fn revoke_waits_no_longer_than_the_lease_of_the_node_cut_off() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let (node, mut ada) = pair(&server, &proxy, [Duration::from_secs(60), SHORT]).await;
    proxy.freeze_both();
    let began = Instant::now();
    let revoked = revoke(&node).await;
    assert_eq!(revoked.unconfirmed_node_ids, ["node-1"]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    expect_nothing_served(&mut ada).await;
    proxy.mend();
    ada.crash();
    node.finish().await;
}
