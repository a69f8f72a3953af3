//! Stock Socket.IO clients, unchanged, against the gateway.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use roomcast::gateway::Config;
use roomcast::transport::http::Origins;
use roomcast::transport::socketio;

use crate::dev::{Dev, SECRET};
use crate::support::round_robin::RoundRobin;
use crate::support::{Encoding, Node, user};
use crate::tools;

/// The settings of the clients' stories: a second namespace, and rates for a client that does in seconds what others do in hours.
const SETTINGS: [&str; 6] = [
    "--set",
    r#"socketio.namespaces=["/","/chat"]"#,
    "--set",
    "session.publish_rate={burst=10000,per_second=10000}",
    "--set",
    "session.join_rate={burst=10000,per_second=10000}",
];

#[test]
fn the_node_client_of_today_tells_its_story_on_every_transport() {
    node("socket.io-client");
}

#[test]
fn the_first_node_client_of_version_4_tells_its_story_on_every_transport() {
    node("socket.io-client-4.0");
}

#[test]
fn the_last_node_client_of_version_3_tells_its_story_on_every_transport() {
    node("socket.io-client-3");
}

#[tokio::test]
async fn the_node_client_of_today_reaches_another_node_with_each_request() {
    by_turns(3, node_client("socket.io-client")).await;
}

#[tokio::test]
async fn the_first_node_client_of_version_4_reaches_another_node_with_each_request() {
    by_turns(2, node_client("socket.io-client-4.0")).await;
}

#[tokio::test]
async fn the_last_node_client_of_version_3_reaches_another_node_with_each_request() {
    by_turns(3, node_client("socket.io-client-3")).await;
}

#[tokio::test]
async fn the_python_client_reaches_another_node_with_each_request() {
    by_turns(2, tools::python("tests/clients/socketio_python/client.py")).await;
}

#[test]
fn the_node_client_of_today_comes_back_to_its_session_on_every_transport() {
    let mut client = tools::node("tests/clients/socketio_node/recovery.mjs");
    client.arg("socket.io-client");
    let settings = [&SETTINGS[..], &["--set", "socketio.recovery=\"2m\""]].concat();
    tells_its_story_with(client, &settings);
}

#[test]
fn node_clients_of_a_gateway_that_drains_come_back_to_another_one() {
    for library in ["socket.io-client", "socket.io-client-4.0", "socket.io-client-3"] {
        let (first, second) = (Dev::start(), Dev::start());
        let mut clients = tools::node("tests/clients/socketio_node/drain.mjs");
        clients.args([library, first.said("/tokens/ada")]);
        clients.args([first.said("/client_address"), second.said("/client_address")]);
        let (mut clients, connected) = talks(clients);
        assert_eq!(connected, "connected");
        assert!(first.terminate().success());
        drop(clients.stdin.take());
        succeeds(clients);
    }
}

#[test]
fn the_python_client_tells_its_story_on_every_transport() {
    tells_its_story(tools::python("tests/clients/socketio_python/client.py"));
}

#[tokio::test]
async fn a_page_of_another_origin_polls_and_upgrades_and_a_foreign_one_does_neither() {
    let (mut browser, origin) = talks(tools::node("tests/browser/socketio.mjs"));
    // Not the program for development, which every page may use.
    let node = Node::with(Encoding::Json, move |config: &mut Config| {
        config.protocols = socketio::register(&config.protocols, &config.sockets.socketio);
        config.client.origins = Origins::Listed(vec![origin.clone()]);
    })
    .await;
    let gateway = format!("{} {}\n", node.client_address(), user("ada").token());
    browser.stdin.take().unwrap().write_all(gateway.as_bytes()).unwrap();
    tokio::task::spawn_blocking(|| succeeds(browser)).await.unwrap();
    node.finish().await;
}

#[test]
fn a_page_loads_the_client_from_the_gateway_as_a_script_and_as_a_module() {
    let files = crate::tools::root().join("tests/node_modules/socket.io-client/dist");
    let setting = format!("socketio.client_bundle={}", files.display());
    let dev = Dev::start_with(&["--set", &setting]);
    let mut browser = tools::node("tests/browser/bundle.mjs");
    browser.args([dev.said("/client_address"), dev.said("/tokens/ada")]);
    tools::expect_success(&mut browser);
}

fn node(library: &str) {
    tells_its_story(node_client(library));
}

fn node_client(library: &str) -> Command {
    let mut client = tools::node("tests/clients/socketio_node/client.mjs");
    client.arg(library);
    client
}

/// The story by way of a proxy that leads each request to another of several nodes.
async fn by_turns(nodes: usize, mut client: Command) {
    let count = nodes.to_string();
    let dev = Dev::start_with(&[&SETTINGS[..], &["--nodes", &count]].concat());
    let addresses = (0..nodes).map(|node| dev.said(&format!("/nodes/{node}/client_address")).parse().unwrap());
    let proxy = RoundRobin::before(addresses.collect()).await;
    client.env("ROOMCAST_BY_TURNS", "");
    let address = proxy.address().to_string();
    tokio::task::spawn_blocking(move || finishes_its_story(client, &dev, &address))
        .await
        .unwrap();
}

/// Starts a program that is talked with, and reads its first line.
fn talks(mut program: Command) -> (Child, String) {
    let mut running = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(running.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    // Nothing is read behind it, and the pipe stays open.
    running.stdout = Some(stdout.into_inner());
    (running, line.trim().to_owned())
}

#[track_caller]
fn succeeds(program: Child) {
    let output = program.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", output.status);
}

fn tells_its_story(client: Command) {
    tells_its_story_with(client, &SETTINGS);
}

fn tells_its_story_with(client: Command, settings: &[&str]) {
    let dev = Dev::start_with(settings);
    finishes_its_story(client, &dev, dev.said("/client_address"));
}

fn finishes_its_story(mut client: Command, dev: &Dev, address: &str) {
    client.env("ROOMCAST_DEV_SECRET", SECRET);
    client.args([
        address,
        dev.said("/tokens/ada"),
        dev.said("/tokens/bob"),
        dev.said("/grpc_address"),
        dev.said("/service_token"),
        dev.said("/tenant"),
    ]);
    tools::expect_success(&mut client);
}
