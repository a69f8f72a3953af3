//! The program as a person runs it: what it prints, and with which exit code it ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::dev::Dev;

/// How long a line may take, on a machine with other worries.
const PATIENCE: Duration = Duration::from_secs(30);

fn roomcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The exit code and all that was said on standard error.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = roomcast(arguments);
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn success(arguments: &[&str]) -> String {
    let output = roomcast(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn claims(token: &str) -> Value {
    let payload = token.trim().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn a_command_line_that_cannot_be_read_ends_with_2() {
    for arguments in [
        &[][..],
        &["sevre"],
        &["token", "--user", "ada"],
        &["publish", "--room", "r"],
        &["publish", "--room", "r", "--event", "e", "--data", "{"],
        &["tail", "a", "b", "--token", "t", "--since", "e/1"],
        &["tail", "a", "--token", "t", "--since", "1"],
        &["print", "--set", "no value"],
    ] {
        assert_eq!(failure(arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn help_tells_the_exit_codes() {
    assert!(success(&["--help"]).contains("Exit codes:"));
}

#[test]
fn a_gateway_that_does_not_answer_ends_with_3_in_one_line() {
    // Port 1 is reserved (tcpmux) and nobody listens there.
    let publish = ["publish", "--url", "http://127.0.0.1:1", "--room", "r", "--event", "e"];
    let tail = ["tail", "r", "--url", "ws://127.0.0.1:1/v1/ws", "--token", "t"];
    for arguments in [&publish[..], &tail] {
        let (code, said) = failure(arguments);
        assert_eq!(code, 3, "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.to_lowercase().contains("connection refused"), "{said}");
    }
}

#[test]
fn a_minted_token_carries_what_was_asked_for() {
    let token = success(&[
        "token",
        "--secret",
        "0123456789abcdef0123456789abcdef",
        "--user",
        "ada",
        "--tenant",
        "acme",
        "--ttl",
        "5m",
        "--claim",
        "projects=[7]",
        "--claim",
        "sub=mallory",
    ]);
    let claims = claims(&token);
    assert_eq!(claims["sub"], "ada");
    assert_eq!(claims["tenant_id"], "acme");
    assert_eq!(claims["projects"], json!([7]));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
}

/// The least that is served: somebody who may call, and somebody who may connect.
const GOOD: &str = r#"
    [[grpc.services]]
    name = "app"
    token = "0123456789abcdef0123456789abcdef"
    scopes = ["publish"]

    [[auth.issuers]]
    issuer = "https://id.example.com"
    audiences = ["app"]
    keys = [{ algorithm = "HS256", secret = "0123456789abcdef0123456789abcdef" }]
    claims.tenant = "org"

    [[policy.rules]]
    name = "projects"
    room = "project:{id}"
    allow = ["join"]
    when = "room.id in claims.projects"
"#;

#[test]
fn a_good_configuration_checks_with_0_and_a_wrong_one_with_1_and_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    let path = path.to_str().unwrap();

    std::fs::write(path, GOOD).unwrap();
    assert!(success(&["check", path]).contains("good"));

    std::fs::write(path, "[connections]\nper_usr_max = 5\n").unwrap();
    let (code, said) = failure(&["check", path]);
    assert_eq!(code, 1);
    assert!(said.contains("did you mean `connections.per_user_max`?"), "{said}");

    let (code, said) = failure(&["check", "/does/not/exist.toml"]);
    assert_eq!(code, 3, "{said}");
}

#[test]
fn the_configuration_in_effect_is_printed_with_what_flags_set() {
    let printed = success(&["print", "--set", "connections.per_user_max=7"]);
    assert!(printed.contains("per_user_max = 7"), "{printed}");
    assert!(success(&["print", "--defaults"]).contains("per_user_max = 20"));
}

#[test]
fn the_schema_is_json_and_forbids_unknown_keys() {
    let schema: Value = serde_json::from_str(&success(&["schema"])).unwrap();
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn explain_names_the_rule_and_its_exit_code_is_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    std::fs::write(&path, GOOD).unwrap();
    let explain = |room: &str| {
        let claims = r#"{"sub":"ada","org":"a","projects":["7"]}"#;
        roomcast(&[
            "explain",
            "--config",
            path.to_str().unwrap(),
            "--claims",
            claims,
            "join",
            room,
        ])
    };
    let (allowed, denied) = (explain("project:7"), explain("project:8"));
    assert_eq!((allowed.status.code(), denied.status.code()), (Some(0), Some(1)));
    let said = |output: Output| String::from_utf8(output.stdout).unwrap();
    assert!(said(allowed).starts_with("allowed by projects:"));
    assert!(said(denied).starts_with("denied by "));
}

#[test]
fn a_gateway_without_credentials_for_backends_does_not_start() {
    let listens = ["--set", "client.listen=127.0.0.1:0", "--set", "grpc.listen=127.0.0.1:0"];
    let (code, said) = failure(&[&["serve", "--set", "telemetry.log=error"], &listens[..]].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no authentication"), "{said}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = failure(&[
        "dev",
        "--port",
        &port,
        "--grpc-port",
        "0",
        "--set",
        "telemetry.log=error",
    ]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("client.listen"), "{said}");
}

/// `roomcast tail --json`, line by line; ends with this value.
struct Tail {
    process: Child,
    lines: Receiver<Value>,
}

impl Tail {
    fn start(dev: &Dev, arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .args([
                "tail",
                "--json",
                "--url",
                dev.said("/url"),
                "--token",
                dev.said("/tokens/ada"),
            ])
            .args(arguments)
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
    fn expect(&self, kind: &str) -> Value {
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
    assert_eq!((&seen["event"], &seen["payload"]), (&json!("message"), &json!(1)));
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
