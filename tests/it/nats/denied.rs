//! NATS takes no events any more, though it can be reached: a permission is withdrawn, or the account loses JetStream. What
//! backends, clients and probes are told, and what comes afterwards.

use std::time::Duration;

use roomcast::nats::Credentials;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::v1;
use serde_json::json;
use tokio::time::sleep;
use tonic::Code;

use super::away::until_serving;
use super::permissions::documented;
use super::{member, over};
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::{Caller, Client, Encoding, Node, TENANT, draft, reason, to_room, within};

/// Two gateways with the documented permissions, and a member at the first.
async fn two(server: &NatsServer) -> (Node, Client) {
    let over = over(&server.url());
    let node = Node::several(Encoding::Json, 2, move |config| {
        over(config);
        let nats = config.nats.as_mut().unwrap();
        nats.credentials = Credentials::Password {
            user: "gateway".to_owned(),
            password: "change me".to_owned(),
        };
        (nats.partitions, nats.lease) = (3, Duration::from_secs(4));
    })
    .await;
    let ada = member(&node, 0).await;
    (node, ada)
}

/// What became of the events that were published, by their names.
#[derive(Default)]
struct Published {
    stored: Vec<String>,
    refused: Vec<String>,
    count: usize,
}

impl Published {
    /// Publishes an event; the reason of a refusal.
    async fn next(&mut self, backend: &Caller) -> Result<(), String> {
        // So that the history is a page, however long the server takes for its new configuration.
        sleep(Duration::from_millis(20)).await;
        self.count += 1;
        let name = self.count.to_string();
        let request = v1::PublishRequest {
            targets: vec![to_room("r")],
            ..draft(&name, json!({}))
        };
        let Err(refused) = backend.send(request).await else {
            self.stored.push(name);
            return Ok(());
        };
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        let reason = reason(&refused);
        if reason == "NOT_STORED" {
            self.refused.push(name);
        }
        Err(reason)
    }
}

/// Waits until the client is told that, and collects the names of the events before.
async fn until_degraded(client: &mut Client, active: bool, events: &mut Vec<String>) {
    loop {
        match client.push().await {
            Said::Degraded(degraded) if degraded.active == active => return,
            Said::Degraded(_) => {}
            Said::Event(event) => events.push(event.event_name),
            other => panic!("{other:?}"),
        }
    }
}

/// The names of the room's events.
async fn history(backend: &Caller) -> Vec<String> {
    let request = v1::ListHistoryRequest {
        tenant: TENANT.to_owned(),
        room: "r".to_owned(),
        page_size: 300,
        ..Default::default()
    };
    let history = backend.rooms.clone().list_history(request).await.unwrap().into_inner();
    history.events.into_iter().map(|event| event.event_name).collect()
}

/// Publishes while `config` is in force instead of the documented one are refused as not stored, and so said; with the
/// documented one again all goes on, and what was refused never comes.
async fn refuses_and_heals(config: &str) {
    let server = NatsServer::start_with(NatsOptions {
        config: documented(),
        ..NatsOptions::default()
    })
    .await;
    let (node, mut ada) = two(&server).await;
    let backend = node.of_several(1).backend();
    server.reload(config);
    let (mut published, mut seen) = (Published::default(), vec!["before".to_owned()]);
    // A node finds out by its first publish that is refused.
    for gateway in [0, 1] {
        let backend = node.of_several(gateway).backend();
        let refused = async { while published.next(&backend).await != Err("NOT_STORED".to_owned()) {} };
        within("a publish to be refused as not stored", refused).await;
    }
    until_degraded(&mut ada, true, &mut seen).await;
    for gateway in [0, 1] {
        until_serving(&node, gateway, false).await;
    }
    server.reload(&documented());
    for gateway in [0, 1] {
        until_serving(&node, gateway, true).await;
    }
    until_degraded(&mut ada, false, &mut seen).await;
    let stored = async { while published.next(&backend).await.is_err() {} };
    within("a publish to be stored", stored).await;
    let last = published.stored.last().expect("it was stored").clone();
    while seen.last() != Some(&last) {
        seen.push(ada.event().await.event_name);
    }
    let history = history(&backend).await;
    assert_eq!(seen, history, "the member got what is stored");
    let is_kept = |name: &String| history.contains(name);
    assert!(published.stored.iter().all(is_kept), "{history:?}");
    assert!(!published.refused.iter().any(is_kept), "{history:?}");
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_withdrawn_permission_to_publish_refuses_events_and_heals() {
    let without = documented().replacen("\"roomcast.h.>\", ", "", 1);
    Box::pin(refuses_and_heals(&without)).await;
}

#[tokio::test]
async fn an_account_without_jetstream_refuses_events_and_heals() {
    let without = documented().replacen("jetstream: enabled", "jetstream: disabled", 1);
    Box::pin(refuses_and_heals(&without)).await;
}
