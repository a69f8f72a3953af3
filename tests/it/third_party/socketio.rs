//! Stock Socket.IO clients, unchanged, against the gateway.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use roomcast::gateway::Config;
use roomcast::transport::http::Origins;
use roomcast::transport::socketio;

use crate::dev::Dev;
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

#[test]
fn the_python_client_tells_its_story_on_every_transport() {
    tells_its_story(tools::python("tests/clients/socketio_python/client.py"));
}

#[tokio::test]
async fn a_page_of_another_origin_polls_and_upgrades_and_a_foreign_one_does_neither() {
    let mut browser = tools::node("tests/browser/socketio.mjs")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(browser.stdout.take().unwrap());
    let mut origin = String::new();
    said.read_line(&mut origin).unwrap();
    // Not the program for development, which every page may use.
    let node = Node::with(Encoding::Json, move |config: &mut Config| {
        config.protocols = socketio::register(&config.protocols, &config.sockets.socketio);
        config.client.origins = Origins::Listed(vec![origin.trim().to_owned()]);
    })
    .await;
    let gateway = format!("{} {}\n", node.client_address(), user("ada").token());
    browser.stdin.take().unwrap().write_all(gateway.as_bytes()).unwrap();
    let ended = tokio::task::spawn_blocking(|| browser.wait_with_output());
    let output = ended.await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", output.status);
    node.finish().await;
}

fn node(library: &str) {
    let mut client = tools::node("tests/clients/socketio_node/client.mjs");
    client.arg(library);
    tells_its_story(client);
}

fn tells_its_story(mut client: Command) {
    let dev = Dev::start_with(&SETTINGS);
    client.args([
        dev.said("/client_address"),
        dev.said("/tokens/ada"),
        dev.said("/tokens/bob"),
        dev.said("/grpc_address"),
        dev.said("/service_token"),
        dev.said("/tenant"),
    ]);
    tools::expect_success(&mut client);
}
