//! The log of the real program: it never holds up the gateway, never says what was confided to it, and says what it lost.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::net::unix::pipe::Sender;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::dev::Dev;

const PATIENCE: Duration = Duration::from_secs(60);

/// A pipe that is full, because it is not read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let filler = Sender::from_owned_fd(writer.try_clone().unwrap().into()).unwrap();
    while filler.try_write(&[b'\n'; 512]).is_ok() {}
    // For all who share it.
    filler.into_blocking_fd().unwrap();
    (reader, writer)
}

/// All that was logged, line by line.
fn lines(log: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

/// A client of the native JSON protocol.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn connect(url: &str, token: &str) -> Self {
        let mut client = Self(connect_async(url).await.unwrap().0);
        client.ask(json!({"id": 1, "connect": {"token": token}})).await;
        client
    }

    /// Sends the commands at once, and waits for the replies of all.
    async fn ask_all(&mut self, commands: Vec<Value>) -> Vec<Value> {
        let mut missing = commands.len();
        for command in commands {
            self.0.feed(Message::text(command.to_string())).await.unwrap();
        }
        self.0.flush().await.unwrap();
        let mut replies = Vec::new();
        while missing > 0 {
            let message = timeout(PATIENCE, self.0.next()).await.expect("a reply comes");
            if let Message::Text(text) = message.unwrap().unwrap() {
                let reply: Value = serde_json::from_str(&text).unwrap();
                missing -= usize::from(!reply["id"].is_null());
                replies.push(reply);
            }
        }
        replies
    }

    async fn ask(&mut self, command: Value) -> Value {
        self.ask_all(vec![command]).await.pop().unwrap()
    }
}

/// Publishes as a backend would, by the program's own command.
async fn publish(dev: &Dev, data: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.args(["publish", "--room", "lobby", "--event", "message", "--data", data]);
    command.args(["--url", dev.said("/grpc_url"), "--token", dev.said("/service_token")]);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Has far more logged than a pipe and the queue hold, and sees that everything is answered meanwhile.
async fn use_it(dev: &Dev) {
    let mut client = Client::connect(dev.said("/url"), dev.said("/tokens/ada")).await;
    client.ask(json!({"id": 2, "join": {"room": "lobby"}})).await;
    for _ in 0..100 {
        // Each refusal is a line.
        let refused = (0..60).map(|id| json!({"id": 100 + id, "join": {"room": "private:plans"}}));
        client.ask_all(refused.collect()).await;
    }
    publish(dev, "\"from a backend\"").await;
    let pong = client.ask(json!({"id": 3, "ping": {}})).await;
    assert!(pong["pong"].is_object(), "{pong}");
}

const TALKATIVE: [&str; 4] = [
    "--set",
    "telemetry.log=trace",
    "--set",
    "session.join_rate={per_second=1000000,burst=1000000}",
];

#[tokio::test]
async fn a_stuck_log_reader_holds_up_nothing_and_sees_the_loss() {
    let (mut reader, writer) = full_pipe();
    let dev = Dev::start_logging_to(writer, &TALKATIVE);
    use_it(&dev).await;

    let log = thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).map(|_| log)
    });
    publish(&dev, "1").await;
    assert_eq!(dev.terminate().code(), Some(0));
    let log = lines(&log.join().unwrap().unwrap());
    let denied = log.iter().filter(|line| line["message"] == "join denied").count();
    let dropped: u64 = log.iter().filter_map(|line| line["dropped"].as_u64()).sum();
    assert!(denied > 100 && dropped > 100, "{denied} lines, {dropped} dropped");
    assert_eq!(log.last().unwrap()["message"], "gateway stopped");
}

#[tokio::test]
async fn an_unread_log_does_not_delay_the_end() {
    let (reader, writer) = full_pipe();
    let dev = Dev::start_logging_to(writer, &TALKATIVE);
    publish(&dev, "1").await;
    assert_eq!(dev.terminate().code(), Some(0));
    drop(reader);
}

#[tokio::test]
async fn a_failed_start_ends_with_its_error_unread() {
    let (_reader, writer) = full_pipe();
    let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args([
            "serve",
            "--set",
            "client.listen=127.0.0.1:0",
            "--set",
            "grpc.listen=127.0.0.1:0",
        ])
        .stderr(writer)
        .spawn()
        .unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn dev_serves_with_its_output_unread() {
    let (_reader, writer) = full_pipe();
    let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["dev", "--port", "0", "--grpc-port", "0"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let started = log.find(|line| line.contains("gateway started")).unwrap();
    let started: Value = serde_json::from_str(&started).unwrap();
    let mut page = std::net::TcpStream::connect(started["client_address"].as_str().unwrap()).unwrap();
    page.set_read_timeout(Some(PATIENCE)).unwrap();
    page.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    let read = page.read_to_string(&mut answer);
    process.kill().unwrap();
    process.wait().unwrap();
    read.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_log_without_a_reader_does_no_harm() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let dev = Dev::start_logging_to(writer, &TALKATIVE);
    use_it(&dev).await;
    assert_eq!(dev.terminate().code(), Some(0));
}

/// Stands for what clients and backends confide.
const CANARY: &str = "canary-5f1d";

#[tokio::test]
async fn the_most_talkative_log_holds_no_payload_state_or_token_on_one_node() {
    let dev = Dev::start_with(&TALKATIVE);
    confide(&dev, ["/url", "/url"]).await;
    expect_discreet(dev);
}

#[tokio::test]
async fn the_most_talkative_log_holds_no_payload_state_or_token_over_nats() {
    let dev = Dev::start_with(&[&["--nodes", "2"], &TALKATIVE[..]].concat());
    confide(&dev, ["/nodes/0/url", "/nodes/1/url"]).await;
    expect_discreet(dev);
}

/// Sends everything that is confidential through the gateway, from one client to another.
async fn confide(dev: &Dev, urls: [&str; 2]) {
    let mut ada = Client::connect(dev.said(urls[0]), dev.said("/tokens/ada")).await;
    let mut bob = Client::connect(dev.said(urls[1]), dev.said("/tokens/bob")).await;
    for client in [&mut ada, &mut bob] {
        client.ask(json!({"id": 2, "join": {"room": "lobby"}})).await;
    }
    let state = json!({"room": "lobby", "state": {"mood": CANARY}});
    ada.ask(json!({"id": 3, "presenceUpdate": state})).await;
    let event = json!({"room": "lobby", "eventName": "said", "payload": CANARY, "retention": "last_value"});
    ada.ask(json!({"id": 4, "publish": event})).await;
    publish(dev, &format!("\"{CANARY}\"")).await;
    let history = bob.ask(json!({"id": 3, "historyQuery": {"room": "lobby"}})).await;
    assert!(history.to_string().contains(CANARY), "{history}");
    let mut late = Client::connect(dev.said(urls[1]), dev.said("/tokens/bob")).await;
    late.ask(json!({"id": 2, "join": {"room": "lobby", "rewind": 10}}))
        .await;
    // A token that is refused, with something in it that is legible.
    let mut refused = Client::connect(dev.said(urls[0]), CANARY).await;
    refused.0.close(None).await.ok();
}

/// Ends it and looks at its log.
#[track_caller]
fn expect_discreet(dev: Dev) {
    let tokens = ["/tokens/ada", "/tokens/bob", "/service_token"].map(|pointer| dev.said(pointer).to_owned());
    let log = dev.into_log();
    for secret in tokens.iter().map(String::as_str).chain([CANARY]) {
        let told = log.lines().find(|line| line.contains(secret));
        assert_eq!(told, None);
    }
    let mut own = 0;
    for line in lines(&log) {
        let is_own = line["target"].as_str().unwrap().starts_with("roomcast");
        let is_fine = line["level"] == "DEBUG" || line["level"] == "TRACE";
        assert!(is_own || !is_fine, "another crate's own business: {line}");
        own += usize::from(is_own && is_fine);
    }
    assert!(own > 0, "it is the most talkative log");
}
