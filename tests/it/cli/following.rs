//! `publish` and `tail` against a running gateway, as a developer uses the two.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use roomcast::proto::v1::DisconnectRequest;
use roomcast::proto::v1::connection_service_client::ConnectionServiceClient;
use roomcast::proto::v1::disconnect_request::Session;
use serde_json::{Value, json};

use super::{failure, roomcast, success};
use crate::dev::Dev;

/// How long a line may take, on a machine with other worries.
const PATIENCE: Duration = Duration::from_secs(30);

/// `roomcast tail --json`, line by line; ends with this value.
pub(super) struct Tail {
    process: Child,
    lines: Receiver<Value>,
}

impl Tail {
    pub(super) fn start(dev: &Dev, arguments: &[&str]) -> Self {
        Self::start_at(dev, "/url", arguments)
    }

    /// At one of several nodes, by where its address stands in what `dev` said.
    pub(super) fn start_at(dev: &Dev, url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        let to = ["--url", dev.said(url), "--token", dev.said("/tokens/ada")];
        command.args(["tail", "--json"]).args(to).args(arguments);
        Self::of(command)
    }

    /// As this command starts it.
    pub(super) fn of(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, lines) = sync_channel(64);
        std::thread::spawn(move || {
            said.map_while(Result::ok)
                .filter_map(|line| serde_json::from_str(&line).ok())
                .try_for_each(|line: Value| sender.send(line))
        });
        Self { process, lines }
    }

    /// The next line of this kind.
    pub(super) fn expect(&self, kind: &str) -> Value {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no line of kind {kind} came"));
            if line["kind"] == kind {
                return line;
            }
        }
    }

    /// Waits for its end; every line it still said.
    fn finish(mut self) -> (Option<i32>, Vec<Value>) {
        let rest = self.lines.iter().collect();
        (self.process.wait().unwrap().code(), rest)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // One that has ended by itself cannot be ended again.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn publish(dev: &Dev, data: &str) -> Value {
    let to = [
        "--url",
        dev.said("/grpc_url"),
        "--token",
        dev.said("/service_token"),
        "--room",
        "lobby",
    ];
    let what = ["publish", "--event", "message", "--data", data, "--json"];
    serde_json::from_str(&success(&[&what[..], &to].concat())).unwrap()
}

#[test]
fn what_is_published_is_followed_and_what_was_missed_comes_back_exactly() {
    let dev = Dev::start();
    let tail = Tail::start(&dev, &["lobby", "--count", "1"]);
    assert_eq!(tail.expect("joined")["replayed"], 0);

    assert_eq!(publish(&dev, "1")["results"][0]["reached"], 1);
    let seen = tail.expect("event");
    assert_eq!((&seen["eventName"], &seen["payload"]), (&json!("message"), &json!(1)));
    assert_eq!(tail.finish().0, Some(0));

    // Nobody is there now.
    publish(&dev, "2");
    publish(&dev, "3");
    let at = &seen["position"];
    let since = format!("{}/{}", at["epoch"].as_str().unwrap(), at["offset"]);
    let back = Tail::start(&dev, &["lobby", "--since", &since, "--count", "2"]);
    let joined = back.expect("joined");
    assert_eq!((&joined["recovered"], &joined["replayed"]), (&json!(true), &json!(2)));
    assert_eq!(back.expect("event")["payload"], 2);
    assert_eq!(back.expect("event")["payload"], 3);
    assert!(back.finish().1.iter().all(|line| line["kind"] != "gap"));
}

#[test]
fn what_is_published_on_one_of_three_nodes_is_followed_on_another() {
    let dev = Dev::start_with(&["--nodes", "3"]);
    let tail = Tail::start_at(&dev, "/nodes/2/url", &["lobby", "--count", "1"]);
    tail.expect("joined");
    publish(&dev, "1");
    let seen = tail.expect("event");
    assert_eq!(seen["payload"], 1);
    assert_eq!(tail.finish().0, Some(0));
    publish(&dev, "2");
    let at = &seen["position"];
    let since = format!("{}/{}", at["epoch"].as_str().unwrap(), at["offset"]);
    let back = Tail::start_at(&dev, "/nodes/1/url", &["lobby", "--since", &since, "--count", "1"]);
    assert_eq!(back.expect("joined")["recovered"], true);
    assert_eq!(back.expect("event")["payload"], 2);
    back.finish();
    assert_eq!(dev.terminate().code(), Some(0));
}

#[test]
fn a_gateway_asked_to_end_sends_its_clients_away_and_ends_with_0() {
    let dev = Dev::start();
    let tail = Tail::start(&dev, &["lobby"]);
    tail.expect("joined");
    assert_eq!(dev.terminate().code(), Some(0));
    let reason = tail.expect("lost")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("4000"), "{reason}");
}

#[test]
fn a_refused_join_ends_with_1_and_its_reason() {
    let dev = Dev::start();
    let (url, token) = (dev.said("/url"), dev.said("/tokens/ada"));
    let output = roomcast(&["tail", "private:plans", "--url", url, "--token", token]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("joining private:plans was refused: forbidden"), "{said}");
}

#[test]
fn a_version_that_has_moved_on_is_refused_with_1_and_its_reason() {
    let dev = Dev::start();
    publish(&dev, "1");
    let to = ["--url", dev.said("/grpc_url"), "--token", dev.said("/service_token")];
    let what = ["publish", "--room", "lobby", "--event", "e", "--expect", "0"];
    let (code, said) = failure(&[&what[..], &to].concat());
    assert_eq!(code, 1);
    assert!(said.contains("VERSION_CONFLICT") && said.contains("/1"), "{said}");
}

/// Has a backend close every connection of the user, who may come back.
fn disconnect_ada(dev: &Dev) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = ConnectionServiceClient::connect(dev.said("/grpc_url").to_owned())
            .await
            .unwrap();
        let mut request = tonic::Request::new(DisconnectRequest {
            tenant: dev.said("/tenant").to_owned(),
            session: Some(Session::UserId("ada".to_owned())),
            message: "for a test".to_owned(),
            may_reconnect: true,
            ..DisconnectRequest::default()
        });
        request.set_timeout(PATIENCE);
        let bearer = format!("Bearer {}", dev.said("/service_token"));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        client.disconnect(request).await.unwrap();
    });
}

#[test]
fn tail_comes_back_by_itself_and_says_that_nothing_was_missed() {
    let dev = Dev::start();
    let tail = Tail::start(&dev, &["lobby", "--count", "2"]);
    tail.expect("joined");
    publish(&dev, "1");
    assert_eq!(tail.expect("event")["payload"], 1);

    disconnect_ada(&dev);
    tail.expect("lost");
    publish(&dev, "2");
    let joined = tail.expect("joined");
    assert_eq!((&joined["resumed"], &joined["recovered"]), (&json!(true), &json!(true)));
    assert_eq!(tail.expect("event")["payload"], 2);
    let (code, rest) = tail.finish();
    assert_eq!((code, rest.as_slice()), (Some(0), &[][..]));
}
