//! The port for operators: probes, and metrics that tell what has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::{Connect, ErrorCode};
use serde_json::{Value, json};

use crate::support::nats::NatsServer;
use crate::support::raw::Raw;
use crate::support::{Encoding, Node, eventually, over_encodings, over_nats_in_protobuf, user};
use crate::tools::root;

over_encodings! {
    what_clients_do_is_read_from_the_metrics,
}

over_nats_in_protobuf! {
    what_clients_do_is_read_from_the_metrics,
}

/// The answer to a request: status, head and body.
async fn ask(raw: &mut Raw, request: &str) -> (u16, String, String) {
    raw.send(request.as_bytes()).await;
    let (status, head) = raw.head().await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().unwrap());
    let body = raw.text(length).await;
    (status, head, body)
}

/// The only request of a connection.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// A request after which the connection stays.
fn get_next(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// All series of all of the node's gateways, summed.
async fn scrape(node: &Node) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    for number in 0..node.ids().len() {
        let mut raw = node.of_several(number).raw_admin().await;
        let (status, head, body) = ask(&mut raw, &get("/metrics")).await;
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            *series.entry(name.to_owned()).or_default() += value.parse::<f64>().unwrap();
        }
    }
    series
}

async fn what_clients_do_is_read_from_the_metrics(encoding: Encoding) {
    const CLIENTS: u32 = 30;
    const EVENTS: u32 = 7;
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = node.connect(user(&format!("u-{number}"))).await;
        client.join("r").await;
        clients.push(client);
    }
    for _ in 0..5 {
        let mut stranger = node.open().await;
        let connect = Connect {
            token: "no token".to_owned(),
            ..Connect::default()
        };
        let refused = stranger.ask(Command::Connect(connect)).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Unauthenticated);
        stranger.expect_close(4501).await;
    }
    for number in 0..EVENTS {
        backend.publish("r", "n", json!(number)).await;
    }
    for client in &mut clients {
        client.events(EVENTS as usize).await;
    }
    for number in 0..10 {
        let was = clients.remove(0);
        let since = was.position("r");
        was.crash();
        let mut again = node.connect(user(&format!("u-{number}"))).await;
        assert!(again.join_since("r", &since).await.recovered);
        clients.push(again);
    }
    node.until_connections(CLIENTS as usize).await;
    let protocol = match encoding {
        Encoding::Json => "roomcast.v1.json",
        Encoding::Protobuf => "roomcast.v1.protobuf",
    };
    let active = format!("roomcast_connections_active{{protocol=\"{protocol}\"}}");
    let expected = [
        (active.as_str(), CLIENTS),
        ("roomcast_connections_admitted", CLIENTS),
        ("roomcast_connections_accepted_total", CLIENTS + 5 + 10),
        ("roomcast_sessions_opened_total", CLIENTS + 10),
        ("roomcast_sessions_refused_total{reason=\"unauthenticated\"}", 5),
        ("roomcast_sessions_closed_total{reason=\"client_left\"}", 10),
        ("roomcast_reconnections_total", 10),
        ("roomcast_recoveries_total{outcome=\"recovered\"}", 10),
        ("roomcast_publishes_total{outcome=\"accepted\"}", EVENTS),
        ("roomcast_deliveries_total", CLIENTS * EVENTS),
        ("roomcast_fanout_members_sum", CLIENTS * EVENTS),
    ];
    // A fan-out counts once the last shard has let go of the event, a moment after its members have it.
    eventually("the metrics to tell it", || async {
        let series = scrape(&node).await;
        let is_told = |(name, value): &(&str, u32)| series.get(*name) == Some(&f64::from(*value));
        expected.iter().all(is_told).then_some(())
    })
    .await;
    let series = scrape(&node).await;
    let nodes: u32 = node.ids().len().try_into().unwrap();
    let same = |one: f64, other: f64| (one - other).abs() < f64::EPSILON;
    assert!(same(series["roomcast_node_ready"], nodes.into()), "{series:?}");
    let (observed, delivered) = (
        series["roomcast_delivery_latency_seconds_count"],
        series["roomcast_events_delivered_total"],
    );
    assert!(same(observed, delivered), "{series:?}");
    assert!(series["roomcast_events_delivered_total"] >= f64::from(EVENTS));
    assert!(series["process_resident_memory_bytes"] > 0.0 || cfg!(not(target_os = "linux")));
    for client in clients {
        client.close().await;
    }
    node.finish().await;
}

/// The answer of a probe: its status, and the reasons.
async fn readiness(node: &Node) -> (u16, Vec<Value>) {
    let (status, _, body) = ask(&mut node.of_several(0).raw_admin().await, &get("/readyz")).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ready"], status == 200, "{body}");
    (status, body["reasons"].as_array().unwrap().clone())
}

async fn live(node: &Node) -> u16 {
    ask(&mut node.of_several(0).raw_admin().await, &get("/livez")).await.0
}

#[tokio::test]
async fn a_node_without_nats_is_live_and_not_ready() {
    let server = NatsServer::start().await;
    let url = server.url();
    let node = Node::several(Encoding::Json, 2, move |config| {
        config.nats.as_mut().unwrap().servers = vec![url.clone()];
    })
    .await;
    assert_eq!(readiness(&node).await, (200, vec![]));
    server.kill();
    eventually("the probe to name the reason", || async {
        let (status, reasons) = readiness(&node).await;
        (status == 503 && reasons.contains(&json!("nats_unreachable"))).then_some(())
    })
    .await;
    assert_eq!(live(&node).await, 200);
    server.restart().await;
    eventually("the node to be ready again", || async {
        (readiness(&node).await == (200, vec![])).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn a_node_that_drains_is_live_and_not_ready() {
    let mut node = Node::with(Encoding::Json, |config| config.drain_window = Duration::from_secs(3600)).await;
    let ada = node.connect(user("ada")).await;
    let mut raw = node.of_several(0).raw_admin().await;
    let told = async {
        loop {
            let (status, _, body) = ask(&mut raw, &get_next("/readyz")).await;
            if status == 503 {
                assert_eq!(body, r#"{"ready":false,"reasons":["draining"]}"#);
                break;
            }
        }
        assert_eq!(ask(&mut raw, &get_next("/livez")).await.0, 200);
        // The last client: with it the drain ends.
        ada.close().await;
    };
    tokio::join!(node.shut_down(), told);
    assert!(raw.until_closed().await.is_empty());
}

#[tokio::test]
async fn requests_that_the_port_does_not_serve_are_refused() {
    let node = Node::start(Encoding::Json).await;
    for (request, expected) in [
        (get("/"), 404),
        (get("/v1/ws"), 404),
        (get("/livez/"), 404),
        (get("/livez").replacen("GET", "POST", 1), 405),
        (get("/metrics").replacen("GET", "DELETE", 1), 405),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let mut raw = node.of_several(0).raw_admin().await;
        raw.send(request.as_bytes()).await;
        assert_eq!(raw.head().await.0, expected, "{request}");
    }
    let mut raw = node.of_several(0).raw_admin().await;
    for _ in 0..3 {
        let (status, head, body) = ask(&mut raw, &get_next("/livez")).await;
        assert!(status == 200 && head.contains("cache-control: no-store"), "{head}");
        assert_eq!(body, "ok\n");
    }
    node.finish().await;
}

#[tokio::test]
async fn a_connection_more_than_there_may_be_is_closed_and_the_others_stay() {
    const CONNECTIONS_MAX: usize = 64;
    let node = Node::start(Encoding::Json).await;
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut raw = node.of_several(0).raw_admin().await;
        assert_eq!(ask(&mut raw, &get_next("/livez")).await.0, 200);
        all.push(raw);
    }
    assert!(node.of_several(0).raw_admin().await.until_closed().await.is_empty());
    for mut raw in all {
        assert_eq!(ask(&mut raw, &get_next("/livez")).await.0, 200);
    }
    node.finish().await;
}

/// The names in the first column of the table of metrics, as Prometheus has them.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/telemetry.md")).unwrap();
    let (_, metrics) = page.split_once("\n## Metrics\n").unwrap();
    let (metrics, _) = metrics.split_once("\n## ").unwrap();
    let rows = metrics.lines().filter(|line| line.starts_with("| `"));
    let names = rows.map(|row| row.split('`').nth(1).unwrap().to_owned());
    names.collect()
}

#[tokio::test]
async fn every_metric_is_documented() {
    let node = Node::start(Encoding::Json).await;
    // A histogram is there from its first observation on.
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    node.backend().publish("r", "n", json!({})).await;
    ada.expect_event("r", "n").await;
    let names = eventually("an observation", || async {
        let mut raw = node.of_several(0).raw_admin().await;
        let (_, _, body) = ask(&mut raw, &get("/metrics")).await;
        let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: BTreeSet<_> = types.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        names.contains("roomcast_fanout_members").then_some(names)
    })
    .await;
    assert_eq!(documented(), names, "docs/telemetry.md, \"Metrics\"");
    ada.close().await;
    node.finish().await;
}
