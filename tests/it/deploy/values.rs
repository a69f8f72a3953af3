//! Values that the chart refuses, and its documents.

use super::{CHART, read, template};
use crate::tools::{expect_success, installed, root};

const GOOD: &str = "ci/default-values.yaml";

/// The error of `helm template` with one more value.
fn refusal(value: &str) -> String {
    let mut command = template();
    command
        .arg("--values")
        .arg(root().join(CHART).join(GOOD))
        .arg("--set-json")
        .arg(value);
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{value} is accepted");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn values_that_cannot_be_meant_are_refused_by_the_schema() {
    for (value, place) in [
        ("replicas=2", "additional properties 'replicas'"),
        ("image.digest=\"latest\"", "'/image/digest'"),
        ("ports.client=80", "'/ports/client'"),
        ("service.type=\"LoadBalancer\"", "additional properties 'service'"),
        ("services.client.type=\"Loadbalancer\"", "'/services/client/type'"),
        ("drain.windowSeconds=\"30s\"", "'/drain/windowSeconds'"),
        ("drain.preStopSeconds=-1", "'/drain/preStopSeconds'"),
        ("nats.bundled.replicas=2", "'/nats/bundled/replicas'"),
        ("nats.servers=[\"nats-0:4222\"]", "'/nats/servers/0'"),
        ("nats.servers=[\"nats://user:secret@nats:4222\"]", "'/nats/servers/0'"),
        (
            "backends=[{\"name\":\"app\",\"scopes\":[\"publish\"]}]",
            "'existingSecret'",
        ),
        (
            "backends=[{\"name\":\"app\",\"scopes\":[\"write\"],\"existingSecret\":{\"name\":\"a\",\"key\":\"b\"}}]",
            "'/backends/0/scopes/0'",
        ),
        (
            "backends=[{\"name\":\"../app\",\"scopes\":[\"read\"],\"existingSecret\":{\"name\":\"a\",\"key\":\"b\"}}]",
            "'/backends/0/name'",
        ),
        ("config.history.event_max=300", "additional properties 'event_max'"),
        ("config.history.events_max=\"many\"", "'/config/history/events_max'"),
        ("config.client.listen=\"0.0.0.0:80\"", "additional properties 'listen'"),
        (
            "config.node.drain_window=\"1m\"",
            "additional properties 'drain_window'",
        ),
        ("config.nats.servers=[]", "additional properties 'servers'"),
        ("config.historical={}", "additional properties 'historical'"),
        ("ingress.hosts=[\"https://rt.example.com\"]", "'/ingress/hosts/0'"),
        (
            "podDisruptionBudget.maxUnavailable=0",
            "'/podDisruptionBudget/maxUnavailable'",
        ),
        (
            "commonLabels={\"app.kubernetes.io/name\":\"other\"}",
            "invalid propertyName 'app.kubernetes.io/name'",
        ),
    ] {
        let said = refusal(value);
        assert!(said.contains("values don't meet the specifications"), "{value}: {said}");
        assert!(said.contains(place), "{value}: {said}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused_with_the_reason() {
    for (value, reason) in [
        ("replicaCount=2", "several nodes need NATS"),
        ("autoscaling.enabled=true", "several nodes need NATS"),
        ("backends=[]", "give at least one backend service"),
        ("nats.auth={\"tokenKey\":\"a\"}", "nats.auth.existingSecret: required"),
        ("nats.auth={\"existingSecret\":\"a\"}", "give exactly one of"),
        (
            "nats.auth={\"existingSecret\":\"a\",\"tokenKey\":\"a\",\"nkeyKey\":\"b\"}",
            "give exactly one of",
        ),
        ("nats.tls={\"certificateKey\":\"a\"}", "belong together"),
        (
            "nats={\"servers\":[\"nats://a:4222\"],\"bundled\":{\"enabled\":true}}",
            "give one of both",
        ),
        ("grpcTls.clientCertificates=true", "needs grpcTls.existingSecret"),
        ("ingress.enabled=true", "ingress.hosts: required"),
        ("httpRoute.enabled=true", "httpRoute.parentRefs: required"),
        ("grpcRoute.enabled=true", "grpcRoute.parentRefs: required"),
        ("drain.terminationGracePeriodSeconds=45", "clients would be cut off"),
    ] {
        let said = refusal(value);
        assert!(said.contains(reason), "{value}: {said}");
    }
}

#[test]
fn the_table_of_values_is_made_from_their_comments() {
    let mut python = std::process::Command::new(installed(".tools/deploy/venv/bin/python"));
    expect_success(python.current_dir(root()).args(["scripts/chart-readme.py", "--check"]));
}

#[test]
fn chart_and_crate_have_one_version() {
    let chart = read("helm/roomcast/Chart.yaml");
    assert!(
        chart.contains(&format!("appVersion: \"{}\"\n", env!("CARGO_PKG_VERSION"))),
        "{chart}"
    );
}
