//! `roomcast-bench`, small: that it finds nothing wrong with a gateway that is well, and says what it promises to say.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Few and quick: what is tested is the tool.
const SMALL: [&str; 7] = ["--members", "20", "--events", "20", "--rooms", "2", "--json"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomcast-bench"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn report(arguments: &[&str]) -> Value {
    json(&[&SMALL, arguments].concat())
}

fn json(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(report: &Value, pointer: &str) -> f64 {
    let found = report.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("{pointer} is no number in {report}"))
}

fn assert_everything_came_once_and_in_order(report: &Value) {
    for (key, expected) in [
        ("members", 20),
        ("rooms", 2),
        ("events", 20),
        ("published", 40),
        ("refused", 0),
        ("deliveries_expected", 400),
        ("deliveries", 400),
        ("lost", 0),
        ("doubled", 0),
        ("reordered", 0),
        ("strayed", 0),
        ("resyncs", 0),
        ("disconnected", 0),
    ] {
        assert_eq!(report[key], expected, "{key} in {report}");
    }
    let latency = ["p50", "p99", "p99_9", "max"].map(|key| number(report, &format!("/latency_ms/{key}")));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{report}");
}

#[test]
fn every_member_of_an_own_gateway_gets_every_event_once_and_in_order() {
    for arguments in [
        &["--rate", "100"][..],
        &[
            "--rate",
            "100",
            "--burst",
            "5",
            "--wire",
            "protobuf",
            "--retention",
            "ephemeral",
        ],
        &["--rate", "100", "--publish-with", "unary", "--payload-bytes", "64"],
        &["--saturate", "4", "--burst", "2", "--other-rooms", "3"],
        &["--rate", "100", "--wire", "socketio", "--other-rooms", "1"],
        &["--rate", "100", "--burst", "5", "--wire", "socketio-polling"],
        &["--rate", "100", "--wire", "sse", "--other-rooms", "1"],
    ] {
        let report = report(arguments);
        assert_everything_came_once_and_in_order(&report);
        for pointer in [
            "/connect_seconds",
            "/connects_per_second",
            "/published_per_second",
            "/deliveries_per_second",
            "/generator/late_max_ms",
        ] {
            assert!(number(&report, pointer) > 0.0, "{pointer} in {report}");
        }
        let is_polled = arguments.contains(&"socketio-polling");
        assert_eq!(number(&report, "/polls") > 0.0, is_polled, "{report}");
        if cfg!(target_os = "linux") {
            assert!(number(&report, "/gateway/resident_bytes_before") > 0.0, "{report}");
            assert!(number(&report, "/gateway/cpu_us_per_delivery") >= 0.0, "{report}");
        }
    }
}

/// A gateway that runs already; it ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_gateway_that_runs_already_is_measured_as_well() {
    const SECRET: &str = "the secret of a gateway in a test";
    // Built by `cargo test --workspace` into the same folder.
    let program = Path::new(env!("CARGO_BIN_EXE_roomcast-bench")).with_file_name("roomcast");
    let mut command = Command::new(program);
    command
        .args(["dev", "--port", "0", "--grpc-port", "0", "--json"])
        .env("ROOMCAST_DEV_SECRET", SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut gateway = Running(command.spawn().unwrap());
    let mut stdout = BufReader::new(gateway.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let welcome: Value = serde_json::from_str(&line).unwrap();
    let said = |key: &str| welcome[key].as_str().unwrap();
    let pid = gateway.0.id().to_string();
    let running = ["--url", said("url"), "--grpc", said("grpc_url"), "--pid", &pid];
    let keys = ["--token", said("service_token"), "--user-token-secret", SECRET];
    let report = report(&[&running[..], &keys].concat());
    assert_everything_came_once_and_in_order(&report);
}

#[test]
fn the_scenarios_are_told_apart() {
    let output = bench(&["--help"]);
    assert!(output.status.success(), "{output:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    let scenarios = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let about = |line: &str| line.trim().split_once(' ').map(|(_, about)| about.trim().to_owned());
    let told: Vec<_> = scenarios.map_while(about).collect();
    let distinct: std::collections::BTreeSet<_> = told.iter().collect();
    assert!(told.len() >= 7 && distinct.len() == told.len(), "{help}");
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_started() {
    for arguments in [
        &["--members", "0"][..],
        &["--members", "100001"],
        &["--members", "2", "--rooms", "3"],
        &["--payload-bytes", "63"],
        &["--events", "36000", "--rate", "10"],
        &["--saturate", "8", "--rate", "10"],
        &["--wire", "plain"],
        &["--peer", "none", "--wire", "json"],
        &["--peer", "none", "--wire", "sse"],
        &["--peer", "none", "--set", "node.shards=1"],
        &["--url", "ws://127.0.0.1:1/v1/ws"],
        &["--grpc", "http://127.0.0.1:1"],
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_run_whose_events_do_not_arrive_ends_with_1() {
    let small = ["--rate", "100", "--warmup", "0", "--patience", "100ms"];
    let output = bench(&[&SMALL[..], &small, &["--set", "grpc.payload_bytes_max=100 B"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["refused"], &report["lost"]),
        (&40.into(), &400.into()),
        "{report}"
    );
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("40 events were refused")
    );
}

#[test]
fn connections_at_rest_are_measured_step_by_step() {
    let heartbeat = ["--set", "session.heartbeat_interval=1s"];
    let report = json(
        &[
            &["idle", "--members", "20,40", "--hold", "2s", "--alone", "1s", "--json"],
            &heartbeat[..],
        ]
        .concat(),
    );
    assert_eq!(
        (&report["steps"][1]["members"], &report["disconnected"]),
        (&40.into(), &0.into())
    );
    assert!(number(&report, "/pings_answered") >= 40.0, "{report}");
    assert!(number(&report, "/steps/1/connects_per_second") > 0.0, "{report}");
    if cfg!(target_os = "linux") {
        assert!(number(&report, "/memory_after_leave/private_bytes") > 0.0, "{report}");
        assert!(number(&report, "/slope_bytes_per_connection").is_finite(), "{report}");
    }
}

#[test]
fn publishing_is_measured_method_by_method() {
    let report = json(&[
        "publish",
        "--duration",
        "200ms",
        "--calls",
        "2",
        "--connections",
        "2",
        "--json",
    ]);
    for (index, method) in ["unary", "batch", "stream"].into_iter().enumerate() {
        assert_eq!(report["methods"][index]["publish_with"], method);
        assert!(
            number(&report, &format!("/methods/{index}/published_per_second")) > 0.0,
            "{report}"
        );
    }
    assert_eq!(
        (&report["lost"], &report["doubled"]),
        (&0.into(), &0.into()),
        "{report}"
    );
}

#[test]
fn members_that_come_and_go_miss_nothing() {
    let joins = json(&[
        "joins",
        "--members",
        "5",
        "--rooms",
        "3",
        "--duration",
        "200ms",
        "--json",
    ]);
    assert!(number(&joins, "/joins_and_leaves_per_second") > 0.0, "{joins}");
    for wire in ["json", "protobuf", "socketio", "socketio-polling"] {
        let resumes = json(&["resumes", "--members", "20", "--rounds", "3", "--wire", wire, "--json"]);
        assert!(number(&resumes, "/rounds/2/resumes_per_second") > 0.0, "{resumes}");
    }
}

#[test]
fn latency_is_told_with_and_without_what_disturbs_it() {
    let neighbour = json(&["neighbour", "--members", "20", "--duration", "300ms", "--json"]);
    for latency in ["alone_ms", "beside_ms", "large_ms"] {
        assert!(number(&neighbour, &format!("/{latency}/p99")) > 0.0, "{neighbour}");
    }
    let stalled = json(&["stalled", "--members", "20", "--duration", "1s", "--json"]);
    for part in ["with", "without"] {
        assert!(number(&stalled, &format!("/{part}/latency_ms/p99")) > 0.0, "{stalled}");
    }
}
