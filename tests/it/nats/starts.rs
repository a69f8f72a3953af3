//! A gateway that starts before NATS is ready, or where it never will be.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::nats::{NatsCluster, NatsOptions, NatsServer};
use crate::support::{Caller, Gateway, GatewayOptions, ROOT, draft, eventually, to_room};

fn over(urls: &str, more: &str) -> GatewayOptions {
    let servers: Vec<_> = urls.split(',').map(|url| format!("{url:?}")).collect();
    let servers = servers.join(", ");
    GatewayOptions {
        name: "early".to_owned(),
        config: format!("[nats]\nservers = [{servers}]\npartitions = 4\n{more}"),
        ..GatewayOptions::default()
    }
}

/// Probes are answered while it waits, and backends are told to come back.
async fn waits(gateway: &Gateway) {
    let status = eventually("health to be told", || async {
        let mut health = HealthClient::new(gateway.channel());
        let answer = health.check(HealthCheckRequest::default()).await.ok()?;
        Some(answer.into_inner().status())
    });
    assert_eq!(status.await, ServingStatus::NotServing);
    let request = roomcast::proto::v1::PublishRequest {
        targets: vec![to_room("r")],
        ..draft("early", serde_json::json!({}))
    };
    let refused = Caller::new(gateway.channel(), ROOT).send(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    eventually("it to be logged", || async {
        gateway.log().contains("nats not ready, waiting").then_some(())
    })
    .await;
}

async fn serves(gateway: &Gateway) {
    gateway.ready(0).await;
    let mut health = HealthClient::new(gateway.channel());
    eventually("health to say that it serves", || async {
        let answer = health.clone().check(HealthCheckRequest::default()).await.ok()?;
        (answer.into_inner().status() == ServingStatus::Serving).then_some(())
    })
    .await;
    let _ = &mut health;
    Caller::new(gateway.channel(), ROOT)
        .publish("r", "now", serde_json::json!({}))
        .await;
}

#[tokio::test]
async fn a_gateway_waits_for_a_server() {
    let server = NatsServer::start().await;
    server.kill();
    let gateway = Gateway::launch(over(&server.url(), ""));
    waits(&gateway).await;
    server.restart().await;
    serves(&gateway).await;
}

#[tokio::test]
async fn a_gateway_waits_for_three_servers_that_start_with_it() {
    let cluster = NatsCluster::start().await;
    cluster.servers().iter().for_each(NatsServer::kill);
    let gateway = Gateway::launch(over(&cluster.url(), "replicas = 3"));
    waits(&gateway).await;
    join_all(cluster.servers().iter().map(NatsServer::restart)).await;
    serves(&gateway).await;
}

/// Waits until it has ended; what it said.
async fn ends(gateway: &Gateway, within: Duration) -> String {
    let began = Instant::now();
    eventually("the gateway to end", || async { (!gateway.is_running()).then_some(()) }).await;
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
    gateway.log()
}

#[tokio::test]
async fn a_gateway_says_for_how_long_it_has_waited() {
    let server = NatsServer::start().await;
    server.kill();
    let gateway = Gateway::launch(over(&server.url(), "start_timeout = \"2s\""));
    let log = ends(&gateway, Duration::from_secs(15)).await;
    assert!(log.contains("not ready within nats.start_timeout (2s)"), "{log}");
}

#[tokio::test]
async fn what_does_not_heal_is_not_waited_for() {
    let config = "authorization { user: gateway, password: right }".to_owned();
    let options = NatsOptions {
        config,
        ..NatsOptions::default()
    };
    let guarded = NatsServer::start_with(options).await;
    let small = NatsOptions {
        jetstream: "max_file_store: 100MB".to_owned(),
        ..NatsOptions::default()
    };
    let small = NatsServer::start_with(small).await;
    let alone = NatsServer::start().await;
    for (url, more, expected) in [
        (guarded.url(), "", "authorization violation"),
        (
            small.url(),
            "",
            "lower one of them, or give JetStream more (max_file or max_mem of the server",
        ),
        (
            alone.url(),
            "replicas = 3",
            "nats.replicas = 3 needs a cluster of NATS servers",
        ),
    ] {
        let gateway = Gateway::launch(over(&url, more));
        let log = ends(&gateway, Duration::from_secs(15)).await;
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

/// The lines of a start of several gateways: those that matter.
#[tokio::test]
async fn a_healthy_start_logs_only_what_matters() {
    let server = NatsServer::start().await;
    let first = Gateway::start(over(&server.url(), "")).await;
    let second = Gateway::start(GatewayOptions {
        name: "second".to_owned(),
        ..over(&server.url(), "")
    })
    .await;
    for gateway in [&first, &second] {
        let log = gateway.log();
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with('{')).collect();
        assert!(lines.len() <= 8, "{lines:#?}");
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["level"], "INFO", "{line}");
            assert!(line["target"].as_str().unwrap().starts_with("roomcast"), "{line}");
        }
        assert!(!log.contains("lease"), "{log}");
    }
}
