//! The commands of the documents work against `roomcast dev` as they stand, and reach a member.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::following::Tail;
use super::success;
use crate::dev::Dev;
use crate::tools::{expect_success, installed, root};

/// The fenced block of this language that holds this text.
fn block(page: &str, language: &str, text: &str) -> String {
    let page = std::fs::read_to_string(root().join(page)).unwrap();
    let fence = format!("```{language}\n");
    let blocks = page.split(&*fence).skip(1);
    let mut blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
    blocks.find(|block| block.contains(text)).unwrap().to_owned()
}

/// The variables that `dev` has its user export, with a command to run.
fn exported(dev: &Dev, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("ROOMCAST_URL", dev.said("/url"))
        .env("ROOMCAST_TOKEN", dev.said("/tokens/ada"))
        .env("ROOMCAST_GRPC_URL", dev.said("/grpc_url"))
        .env("ROOMCAST_SERVICE_TOKEN", dev.said("/service_token"));
    command
}

fn shell(dev: &Dev, script: &str) -> String {
    let output = expect_success(exported(dev, "bash").args(["-euo", "pipefail", "-c", script]));
    String::from_utf8(output.stdout).unwrap()
}

/// What names a tenant in a document, up to the name.
const TENANT_KEYS: [&str; 5] = [
    "tenant=\"",
    "\"tenant\": \"",
    "tenants = [\"",
    "\"tenants\": [\"",
    "--tenant ",
];

#[test]
fn every_page_has_the_tenant_of_dev() {
    let docs = root().join("docs");
    let pages = std::fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    let mut named = 0;
    for page in pages.filter(|page| page.is_file()).chain([root().join("README.md")]) {
        let text = std::fs::read_to_string(&page).unwrap();
        for key in TENANT_KEYS {
            for (_, rest) in text.match_indices(key).map(|(at, key)| text.split_at(at + key.len())) {
                let tenant = rest.split(['"', ' ', '\n', '`']).next().unwrap();
                assert!(["default", "*"].contains(&tenant), "{}: {key}{tenant}", page.display());
                named += 1;
            }
        }
    }
    assert!(named >= 3, "{named}");
}

/// No event was published to a tenant without connections.
fn expect_no_warning(dev: Dev) {
    let log = dev.into_log();
    assert!(!log.contains("publish to a tenant without connections"), "{log}");
}

#[test]
fn the_readme_follows_a_room_and_publishes_to_it() {
    let dev = Dev::start();
    let commands =
        block("README.md", "sh", "roomcast tail").replace("target/release/roomcast", env!("CARGO_BIN_EXE_roomcast"));
    let command = |verb: &str| commands.lines().find(|line| line.contains(verb)).unwrap();
    let mut follower = exported(&dev, "bash");
    follower.args([
        "-c",
        &format!("exec {}", command(" tail ").replace(" tail ", " tail --json ")),
    ]);
    let tail = Tail::of(follower);
    tail.expect("joined");
    assert!(shell(&dev, command(" publish ")).contains("reached 1"));
    assert_eq!(tail.expect("event")["room"], "lobby");
    drop(tail);
    expect_no_warning(dev);
}

#[test]
fn the_curl_of_the_grpc_page_reaches_a_member() {
    let dev = Dev::start();
    let tail = Tail::start(&dev, &["project:7"]);
    tail.expect("joined");
    let answer = shell(
        &dev,
        &block("docs/grpc.md", "sh", "curl").replace("curl ", "curl --fail --silent "),
    );
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["results"][0]["reached"], 1, "{answer}");
    tail.expect("event");
    drop(tail);
    expect_no_warning(dev);
}

#[test]
fn the_python_of_the_readme_reaches_a_member() {
    let dev = Dev::start();
    let tail = Tail::start(&dev, &["project:7"]);
    tail.expect("joined");
    let program =
        block("README.md", "python", "PublishServiceStub").replace("127.0.0.1:50051", dev.said("/grpc_address"));
    let python = installed("tests/clients/python/.venv/bin/python");
    let mut command = exported(&dev, python.to_str().unwrap());
    command
        .args(["-c", &program])
        .env("PYTHONPATH", root().join("tests/clients/python/gen"));
    let output = expect_success(&mut command);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.trim_end().ends_with(" 1"), "it reached one: {said}");
    tail.expect("event");
    drop(tail);
    expect_no_warning(dev);
}

#[tokio::test]
async fn the_commands_of_the_readme_connect_a_client_and_join() {
    let dev = Dev::start();
    let commands = block("README.md", "json", "\"connect\"").replace("<jwt>", dev.said("/tokens/ada"));
    let (mut socket, _) = connect_async(dev.said("/url")).await.unwrap();
    for (command, reply) in commands.lines().zip(["connected", "joined"]) {
        socket.send(Message::text(command)).await.unwrap();
        let said = loop {
            let frame = socket.next().await.unwrap().unwrap().into_text().unwrap();
            let frame: Value = serde_json::from_str(&frame).unwrap();
            if frame["id"].is_number() {
                break frame;
            }
        };
        assert!(said[reply].is_object(), "{command}: {said}");
    }
}

#[test]
fn a_publish_to_an_absent_tenant_is_warned_of_once() {
    let dev = Dev::start_with(&["--nodes", "2"]);
    let tail = Tail::start_at(&dev, "/nodes/1/url", &["lobby"]);
    tail.expect("joined");
    let to = ["--url", dev.said("/grpc_url"), "--token", dev.said("/service_token")];
    for tenant in ["default", "acme", "acme"] {
        let what = ["publish", "--room", "lobby", "--event", "e", "--tenant", tenant];
        success(&[&what[..], &to].concat());
    }
    drop(tail);
    let log = dev.into_log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("publish to a tenant without connections"))
        .collect();
    assert!(warnings.len() == 1 && warnings[0].contains("acme"), "{log}");
}

/// `dev` as a person starts it.
struct Terminal {
    process: Child,
    said: String,
}

impl Terminal {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .args(["dev", "--port", "0", "--grpc-port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut said = String::new();
        while !said.contains("Ctrl-C ends it") {
            said.push_str(&lines.next().expect("it says how it is used"));
            said.push('\n');
        }
        Self { process, said }
    }

    /// The indented lines behind this one.
    fn lines(&self, title: &str) -> String {
        let behind = self.said.lines().skip_while(|line| !line.starts_with(title)).skip(1);
        behind
            .take_while(|line| line.starts_with(' '))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn lines_printed_by_dev_can_be_pasted() {
    let dev = Terminal::start();
    let shell = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]);
        command
    };
    let follow = dev.lines("Follow the room").trim().to_owned();
    let tail = Tail::of(shell(&format!("exec {follow} --json")));
    tail.expect("joined");
    let published = expect_success(&mut shell(&dev.lines("Publish to it")));
    assert!(String::from_utf8(published.stdout).unwrap().contains("reached 1"));
    tail.expect("event");

    let exports = dev.lines("For the commands in the documentation");
    let program = env!("CARGO_BIN_EXE_roomcast");
    let published = expect_success(&mut shell(&format!(
        "{exports}\n{program} publish --room lobby --event e"
    )));
    assert!(String::from_utf8(published.stdout).unwrap().contains("reached 1"));
    tail.expect("event");
}
