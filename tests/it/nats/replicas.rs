//! The number of replicas changes from node to node, on three servers, while backends publish.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use roomcast::proto::v1;
use serde_json::json;
use tokio::time::sleep;

use crate::support::nats::NatsCluster;
use crate::support::{Caller, Gateway, GatewayOptions, ROOT, TENANT, draft, eventually, revocation_of, to_room, user};

/// Every stream of a deployment with two partitions.
const STREAMS: [&str; 5] = ["h-0", "h-1", "v", "m", "c"];

/// The room that everything is published to.
const ROOM: &str = "r";

/// How long a publisher waits before the next event, or before it repeats one.
const PACE: Duration = Duration::from_millis(50);

fn options(cluster: &NatsCluster, number: usize, replicas: usize) -> GatewayOptions {
    let servers: Vec<_> = cluster.url().split(',').map(|url| format!("{url:?}")).collect();
    let servers = servers.join(", ");
    GatewayOptions {
        name: format!("node-{number}"),
        config: format!(
            "[history]\nevents_max = 5000\n[nats]\nservers = [{servers}]\npartitions = 2\nstream_bytes_max = \"16 MiB\"\nreplicas = {replicas}\n"
        ),
        ..GatewayOptions::default()
    }
}

/// How many servers hold each stream.
async fn replicas(cluster: &NatsCluster) -> Option<BTreeSet<usize>> {
    let context = jetstream::new(
        async_nats::connect(cluster.url().split(',').collect::<Vec<_>>())
            .await
            .ok()?,
    );
    let mut found = BTreeSet::new();
    for name in STREAMS {
        let stream = context.get_stream(format!("roomcast-{name}")).await.ok()?;
        found.insert(stream.cached_info().config.num_replicas);
    }
    Some(found)
}

/// Publishes event after event, each at whichever gateway takes it, until told to stop; how many were stored.
async fn publish(backends: &[Caller; 2], stop: &AtomicBool) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let turn = AtomicBool::new(number % 2 == 0);
        eventually("an event to be stored", || async {
            let backend = &backends[usize::from(turn.fetch_not(Ordering::Relaxed))];
            let request = v1::PublishRequest {
                targets: vec![to_room(ROOM)],
                idempotency_key: format!("n-{number}"),
                ..draft("n", json!(number))
            };
            let stored = backend.send(request).await;
            sleep(PACE).await;
            stored.ok()
        })
        .await;
        number += 1;
    }
    number
}

/// All that the room has, page by page. Each page is asked for until it comes: a stream whose leader was killed cannot
/// be read until it has another.
async fn history(backend: &Caller) -> Vec<v1::Event> {
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListHistoryRequest {
            tenant: TENANT.to_owned(),
            room: ROOM.to_owned(),
            page_token,
            ..Default::default()
        };
        let page = eventually("a page of the history", || async {
            let page = backend.rooms.clone().list_history(request.clone()).await;
            page.map(tonic::Response::into_inner).ok()
        })
        .await;
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return events;
        }
    }
}

/// Restarts one gateway after the other with another number of replicas. Every stream follows, nothing that was
/// acknowledged meanwhile is lost, doubled or in another order, and what was revoked stays so.
async fn rolls(from: usize, to: usize) {
    let cluster = NatsCluster::start().await;
    let gateways = [
        Gateway::start(options(&cluster, 0, from)).await,
        Gateway::start(options(&cluster, 1, from)).await,
    ];
    let backends = [0, 1].map(|number: usize| Caller::new(gateways[number].channel(), ROOT));
    assert_eq!(replicas(&cluster).await, Some([from].into()));
    let first = backends[0].publish(ROOM, "before", json!({})).await;
    let revoke = revocation_of("eve", v1::revoke_request::Scope::Everything(v1::EverythingScope {}));
    backends[0].access.clone().revoke(revoke).await.unwrap();

    let stop = AtomicBool::new(false);
    let change = async {
        let (from_line, to_line) = (format!("replicas = {from}\n"), format!("replicas = {to}\n"));
        for gateway in &gateways {
            gateway.configure(&from_line, &to_line);
            gateway.stop().await;
            gateway.restart().await;
        }
        eventually("every stream to follow", || async {
            (replicas(&cluster).await == Some([to].into())).then_some(())
        })
        .await;
        if to > 1 {
            for stream in STREAMS {
                cluster.stream_whole(&format!("roomcast-{stream}")).await;
            }
            // What they are there for: any server may go.
            cluster.server(cluster.stream_leader("roomcast-h-0").await).kill();
        }
        for backend in &backends {
            eventually("both gateways to store", || async {
                let request = v1::PublishRequest {
                    targets: vec![to_room("other")],
                    ..draft("still", json!({}))
                };
                backend.send(request).await.ok()
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (stored, ()) = tokio::join!(publish(&backends, &stop), change);

    let events = history(&backends[1]).await;
    let numbers: Vec<_> = events.iter().skip(1).map(number).collect();
    let expected: Vec<_> = (0..stored).collect();
    assert_eq!(numbers, expected, "what was stored, once and in order");
    let epochs: BTreeSet<_> = events
        .iter()
        .map(|event| event.position.clone().unwrap().epoch)
        .collect();
    assert_eq!(epochs, [first.position.unwrap().epoch].into());
    for gateway in &gateways {
        let mut eve = gateway.connect(user("eve")).await;
        let join = roomcast::proto::client_v1::Join {
            room: ROOM.to_owned(),
            ..Default::default()
        };
        assert_eq!(eve.try_join(join).await.unwrap_err().reason, "forbidden");
    }
}

fn number(event: &v1::Event) -> u64 {
    use v1::payload::Content;
    match event.payload.clone().and_then(|payload| payload.content) {
        Some(Content::Json(text)) => text.parse().unwrap(),
        other => panic!("no number: {other:?}"),
    }
}

#[tokio::test]
async fn replicas_are_raised_from_one_to_three_node_by_node() {
    rolls(1, 3).await;
}

#[tokio::test]
async fn replicas_are_lowered_from_three_to_one_node_by_node() {
    rolls(3, 1).await;
}
