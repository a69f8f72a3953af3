//! The program as a person runs it: what it prints, and with which exit code it ends.

mod addresses;
mod documents;
mod explaining;
mod following;
mod open_files;
mod reach;
mod serving;
mod signals;

use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

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
fn check_and_serve_print_a_line_for_each_problem_and_no_secret() {
    const SECRET: &str = "canary-4c77-0123456789";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    let path = path.to_str().unwrap();
    let wrong = format!(
        "[session]\nrooms_maxx = 1\njoin_rate = '{SECRET}'\n[socket]\nfragments_max = '{SECRET}'\n[bus]\nrooms_max = 0\n"
    );
    let keys = [
        "session.rooms_maxx",
        "session.join_rate",
        "socket.fragments_max",
        "bus.rooms_max",
    ];
    let unreadable = format!("[[grpc.services]]\ntoken = \"{SECRET}\n");
    for arguments in [&["check", path][..], &["serve", "--config", path]] {
        std::fs::write(path, &wrong).unwrap();
        let (code, said) = failure(arguments);
        assert_eq!(code, 1, "{said}");
        for key in keys {
            let lines = said.lines().filter(|line| line.contains(&format!("{key}: ")));
            assert_eq!(lines.count(), 1, "{key} in {said}");
        }
        assert!(!said.contains(SECRET), "{said}");

        std::fs::write(path, &unreadable).unwrap();
        let (code, said) = failure(arguments);
        assert_eq!((code, said.lines().count()), (1, 1), "{said}");
        assert!(said.contains("line 2") && !said.contains(SECRET), "{said}");
    }
    let (code, said) = failure(&["print", "--config", path]);
    assert!(code == 1 && !said.contains(SECRET), "{said}");
    for setting in [format!("={SECRET}"), SECRET.to_owned()] {
        let (code, said) = failure(&["print", "--set", &setting]);
        assert!(code == 2 && !said.contains(SECRET), "{said}");
    }
}

#[test]
fn a_reader_that_has_gone_away_ends_a_command_without_a_word() {
    for arguments in [&["schema"][..], &["print", "--defaults"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
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
        // A number beyond every type takes no other claim away.
        let claims = r#"{"sub":"ada","org":"a","n":1e400,"projects":["7"]}"#;
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
fn explain_knows_requests_with_and_without_a_room() {
    const REQUESTS: &str = r#"
        [[policy.rules]]
        name = "tasks"
        room = "project:{id}"
        allow = ["request"]
        methods = ["task:*"]

        [[policy.rules]]
        name = "time"
        allow = ["request"]
        methods = ["time"]
    "#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    std::fs::write(&path, format!("{GOOD}{REQUESTS}")).unwrap();
    let explain = |asked: &[&str]| {
        let subject = [
            "explain",
            "--config",
            path.to_str().unwrap(),
            "--claims",
            r#"{"sub":"ada"}"#,
        ];
        let output = roomcast(&[&subject[..], asked].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for (asked, code, said) in [
        (
            &["request", "project:7", "--method", "task:close"][..],
            0,
            "allowed by tasks:",
        ),
        (&["request", "project:7", "--method", "time"], 1, "denied by default:"),
        (&["request", "--method", "time"], 0, "allowed by time:"),
        (&["request", "--method", "task:close"], 1, "denied by default:"),
        // A method is asked for, and so is the room of everything else.
        (&["request"], 2, ""),
        (&["join"], 2, ""),
    ] {
        let answer = explain(asked);
        assert_eq!(answer.0, Some(code), "{asked:?}: {answer:?}");
        assert!(answer.1.starts_with(said), "{asked:?}: {answer:?}");
    }
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
