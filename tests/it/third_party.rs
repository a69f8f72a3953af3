//! Software that is not ours against the real program: WebSocket libraries, a browser, and the clients that the usual
//! tools of four languages generate from `proto/`.
//!
//! Each tells its story in its own language, under `tests/clients` and `tests/browser`; here it gets a gateway and has to
//! succeed.

mod python_backend;
mod socketio;

use std::process::Command;

use crate::dev::Dev;
use crate::tools;

#[test]
fn the_python_websockets_library_publishes_and_resumes() {
    speaks_the_native_protocol(tools::python("tests/clients/ws_python/client.py"));
}

#[test]
fn a_slow_reader_on_the_python_websockets_library_reads_why_it_was_closed() {
    speaks_the_native_protocol(tools::python("tests/clients/ws_python/slow.py"));
}

#[test]
fn the_node_ws_library_publishes_and_resumes() {
    speaks_the_native_protocol(tools::node("tests/clients/ws_node/client.mjs"));
}

#[test]
fn two_people_in_a_browser_see_each_other_and_miss_nothing() {
    let dev = Dev::start();
    let mut browser = tools::node("tests/browser/run.mjs");
    browser.args([dev.said("/pages/ada"), dev.said("/pages/bob")]);
    tools::expect_success(&mut browser);
}

#[test]
fn an_event_source_in_a_browser_survives_cuts_and_stops_where_it_is_sent_away() {
    let dev = Dev::start_with(&["--set", "client.token_in_query=true", "--set", "sse.retry=50ms"]);
    let mut browser = tools::node("tests/browser/events.mjs");
    browser.args([dev.said("/url"), dev.said("/tokens/ada")]);
    tools::expect_success(&mut browser);
}

#[test]
fn the_generated_python_client_calls_the_gateway() {
    calls_the_gateway("python", ".venv/bin/python");
}

#[test]
fn the_generated_node_client_calls_the_gateway() {
    calls_the_gateway("node", "dist/smoke.js");
}

#[test]
fn the_generated_go_client_calls_the_gateway() {
    calls_the_gateway("go", "smoke");
}

#[test]
fn the_generated_java_client_calls_the_gateway() {
    calls_the_gateway("java", "target/classes");
}

#[test]
fn the_generated_kotlin_client_compiles_and_publishes() {
    calls_the_gateway("kotlin", "target/classes");
}

fn speaks_the_native_protocol(mut client: Command) {
    let dev = Dev::start();
    client.args([dev.said("/url"), dev.said("/tokens/ada"), "third-party"]);
    tools::expect_success(&mut client);
}

/// `built` is what the client's `setup.sh` leaves in its folder.
fn calls_the_gateway(language: &str, built: &str) {
    let folder = format!("tests/clients/{language}");
    tools::installed(&format!("{folder}/{built}"));
    let dev = Dev::start();
    let mut client = tools::bash(&format!("{folder}/run.sh"));
    client
        .env("ROOMCAST_GRPC", dev.said("/grpc_address"))
        .env("ROOMCAST_TOKEN", dev.said("/service_token"))
        .env("ROOMCAST_TENANT", dev.said("/tenant"));
    tools::expect_success(&mut client);
}
