//! The harness's `nats-server`, before anything relies on it.

use std::fs;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::nats::{NatsCluster, NatsOptions, NatsServer, Release};
use crate::support::proxy::{Proxy, Way};
use crate::support::{eventually, within};
use crate::tools;

/// As much of the protocol as these tests need.
struct Wire(BufReader<TcpStream>);

impl Wire {
    async fn connect(server: &NatsServer) -> Self {
        Self::dial(server.address()).await
    }

    async fn dial(address: SocketAddr) -> Self {
        let mut wire = Self(BufReader::new(TcpStream::connect(address).await.unwrap()));
        assert!(wire.line().await.starts_with("INFO "));
        wire.say("CONNECT {\"verbose\":false,\"protocol\":1}\r\nSUB inbox.* 1\r\n")
            .await;
        wire
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = within("a line of nats-server", self.0.read_line(&mut line)).await;
        assert_ne!(read.unwrap(), 0, "the server hung up");
        line
    }

    /// Passes over lines until one has this in it.
    async fn line_with(&mut self, part: &str) {
        while !self.line().await.contains(part) {}
    }

    /// The answer to a request; other lines are passed over.
    async fn request(&mut self, subject: &str, body: &str) -> serde_json::Value {
        self.say(&format!("PUB {subject} inbox.1 {}\r\n{body}\r\n", body.len()))
            .await;
        loop {
            let line = self.line().await;
            if line.starts_with("MSG ") {
                return serde_json::from_str(&self.line().await).unwrap();
            }
        }
    }

    async fn make_stream(&mut self, replicas: usize) {
        let config = format!(r#"{{"name":"EVENTS","subjects":["events.>"],"num_replicas":{replicas}}}"#);
        let made = self.request("$JS.API.STREAM.CREATE.EVENTS", &config).await;
        assert!(made.get("error").is_none(), "{made}");
    }

    async fn messages(&mut self) -> Option<u64> {
        let info = self.request("$JS.API.STREAM.INFO.EVENTS", "").await;
        info.pointer("/state/messages")?.as_u64()
    }
}

fn floor() -> NatsOptions {
    NatsOptions {
        release: Release::Floor,
        ..NatsOptions::default()
    }
}

#[tokio::test]
async fn both_releases_are_what_they_are_said_to_be() {
    for (options, version) in [(NatsOptions::default(), "2.15."), (floor(), "2.11.")] {
        let server = NatsServer::start_with(options).await;
        let says = server.monitor("/varz").await.unwrap();
        assert!(
            says["version"].as_str().unwrap().starts_with(version),
            "{}",
            says["version"]
        );
        assert!(says["jetstream"]["config"].is_object());
    }
}

#[tokio::test]
async fn a_killed_server_comes_back_at_the_same_place_with_its_store() {
    let server = NatsServer::start().await;
    let mut wire = Wire::connect(&server).await;
    wire.make_stream(1).await;
    wire.request("events.1", "hello").await;
    let url = server.url();
    server.kill();
    assert!(!server.is_running());
    server.restart().await;
    assert_eq!(server.url(), url);
    assert_eq!(Wire::connect(&server).await.messages().await, Some(1));
    server.stop().await;
    server.restart().await;
    assert_eq!(Wire::connect(&server).await.messages().await, Some(1));
}

#[tokio::test]
async fn a_paused_server_takes_bytes_and_answers_after_it_goes_on() {
    let server = NatsServer::start().await;
    let mut wire = Wire::connect(&server).await;
    wire.say("PING\r\n").await;
    wire.line_with("PONG").await;
    server.pause().await;
    assert!(server.is_paused());
    wire.say("PING\r\n").await;
    let nothing = wire.0.get_ref().try_read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    server.resume();
    wire.line_with("PONG").await;
    assert!(!server.is_paused());
}

#[tokio::test]
async fn a_lame_duck_tells_its_clients_and_ends() {
    let server = NatsServer::start().await;
    let mut wire = Wire::connect(&server).await;
    // It has said nothing yet to a client that it does not know.
    wire.say("PING\r\n").await;
    wire.line_with("PONG").await;
    server.lame_duck();
    wire.line_with("\"ldm\":true").await;
    server.ended().await;
}

#[tokio::test]
async fn a_client_behind_the_proxy_notices_nothing_but_what_the_proxy_does() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    assert_eq!(proxy.url(), format!("nats://{}", proxy.address()));
    let mut wire = Wire::dial(proxy.address()).await;
    wire.make_stream(1).await;
    proxy.freeze(Way::ToClient);
    wire.say("PUB events.1 inbox.1 2\r\nhi\r\n").await;
    let mut direct = Wire::connect(&server).await;
    while direct.messages().await != Some(1) {}
    proxy.mend();
    assert!(wire.line().await.starts_with("MSG inbox.1"));
}

#[tokio::test]
async fn more_configuration_is_taken() {
    let options = NatsOptions {
        config: "authorization { user: ada, password: secret }".to_owned(),
        jetstream: "max_file_store: 1MB".to_owned(),
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).await;
    let mut wire = Wire::connect(&server).await;
    wire.line_with("Authorization Violation").await;
    let says = server.monitor("/varz").await.unwrap();
    assert_eq!(says["jetstream"]["config"]["max_storage"], 1_048_576);
}

#[tokio::test]
#[should_panic(expected = "unknown field \"nonsense\"")]
async fn a_server_that_does_not_start_says_why() {
    let config = "nonsense: 1".to_owned();
    NatsServer::start_with(NatsOptions {
        config,
        ..NatsOptions::default()
    })
    .await;
}

#[tokio::test]
async fn a_killed_leader_of_three_is_replaced_and_comes_back() {
    let cluster = NatsCluster::start().await;
    let mut wire = Wire::connect(cluster.server(0)).await;
    wire.make_stream(3).await;
    wire.request("events.1", "hello").await;
    cluster.stream_whole("EVENTS").await;
    let leader = cluster.stream_leader("EVENTS").await;
    cluster.server(leader).kill();
    let next = cluster.stream_leader("EVENTS").await;
    assert_ne!(next, leader);
    assert_ne!(cluster.meta_leader().await, leader);
    assert_eq!(Wire::connect(cluster.server(next)).await.messages().await, Some(1));
    cluster.server(leader).restart().await;
    cluster.ready().await;
    cluster.stream_whole("EVENTS").await;
}

#[tokio::test]
async fn three_of_the_oldest_release_form_a_cluster() {
    let cluster = NatsCluster::start_with(floor()).await;
    assert_eq!(cluster.addresses().len(), 3);
    assert_eq!(cluster.url().split(',').count(), 3);
    assert!(cluster.meta_leader().await < 3);
    assert!(cluster.servers().iter().all(NatsServer::is_running));
}

/// What a test program that is killed leaves behind.
#[tokio::test]
async fn nothing_is_left_when_the_pipe_to_the_guard_closes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("store");
    fs::create_dir(&folder).unwrap();
    let mut guard = Command::new("sh")
        .arg(tools::root().join("tests/it/support/nats/guard.sh"))
        .arg(&folder)
        .args(["sleep", "1000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    std::io::BufReader::new(guard.stdout.take().unwrap())
        .read_line(&mut id)
        .unwrap();
    let id = id.trim();
    assert!(Path::new("/proc").join(id).exists());
    drop(guard.stdin.take());
    eventually("the end", || {
        let ended = guard.try_wait().unwrap();
        async move { ended }
    })
    .await;
    assert!(!Path::new("/proc").join(id).exists());
    assert!(!folder.exists());
}
