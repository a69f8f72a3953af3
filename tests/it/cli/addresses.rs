//! No address that was given to the program takes a password to its output.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::{GOOD, roomcast};

/// How long a log line may take, on a machine with other worries.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stands for a password or a key.
const SECRET: &str = "canary-7e02";

/// Every setting whose value is an address, as a file sets it.
const SETTINGS: [(&str, &str); 9] = [
    ("backend", "[backend]\nurl = 'ADDRESS'\n"),
    ("authorizer", "[policy.authorizer]\nurl = 'ADDRESS'\n"),
    (
        "auth.issuers.1",
        "[[auth.issuers]]\nissuer = 'https://other.example'\naudiences = ['app']\njwks = { url = 'ADDRESS' }\n",
    ),
    (
        "grpc.jwt",
        "[[grpc.jwt.issuers]]\nissuer = 'https://other.example'\naudiences = ['app']\njwks = { url = 'ADDRESS' }\n",
    ),
    (
        "nats.servers.0",
        "[nats]\nservers = ['ADDRESS']\nstart_timeout = '100ms'\n",
    ),
    ("client.origins.0", "[client]\norigins = ['ADDRESS']\n"),
    ("client.trusted_proxies.0", "[client]\ntrusted_proxies = ['ADDRESS']\n"),
    ("grpc.web_origins.0", "[grpc]\nweb_origins = ['ADDRESS']\n"),
    ("telemetry.otlp_endpoint", "[telemetry]\notlp_endpoint = 'ADDRESS'\n"),
];

/// The places in an address where a secret may stand. Nothing listens on port 1.
const ADDRESSES: [&str; 9] = [
    "https://ada:SECRET@127.0.0.1:1",
    "https://SECRET@127.0.0.1:1",
    "nats://ada:SECRET@127.0.0.1:1",
    "ada:SECRET@127.0.0.1:1",
    "https://ada:SECRET@127.0.0.1:99999",
    "https://ada:?SECRET@127.0.0.1:1",
    "https://ada:/#SECRET@127.0.0.1:1",
    "https://127.0.0.1:1/keys?key=SECRET",
    "nats://127.0.0.1:1#SECRET",
];

const LISTENS: [&str; 6] = [
    "--set",
    "client.listen=127.0.0.1:0",
    "--set",
    "grpc.listen=127.0.0.1:0",
    "--set",
    "telemetry.log=trace",
];

#[track_caller]
fn expect_discreet(output: &Output, what: &str) -> String {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let told = said.lines().find(|line| line.contains(SECRET));
    assert_eq!(told, None, "{what}");
    said
}

#[test]
fn no_setting_takes_the_password_of_its_address_to_an_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    let path = path.to_str().unwrap();
    for (key, setting) in SETTINGS {
        for address in ADDRESSES {
            let what = format!("{key} = {address}");
            let address = address.replace("SECRET", SECRET);
            std::fs::write(path, format!("{GOOD}\n{}", setting.replace("ADDRESS", &address))).unwrap();
            expect_discreet(&roomcast(&["print", "--config", path]), &what);
            let checked = roomcast(&["check", path]);
            let said = expect_discreet(&checked, &what);
            // Behind a question mark or a hash it is no user and password, whatever was meant.
            if address.contains('@') && !address.contains(['?', '#']) {
                assert_eq!(checked.status.code(), Some(1), "{what}: {said}");
                assert!(said.contains(&format!("{key}: ")), "{what}: {said}");
            }
            // One that is good otherwise is served until it is asked to end, but for NATS that does not answer.
            if !checked.status.success() || key == "nats.servers.0" {
                let serve = [&["serve", "--config", path][..], &LISTENS].concat();
                expect_discreet(&roomcast(&serve), &what);
            }
        }
    }
}

#[test]
fn the_log_of_a_gateway_holds_no_key_of_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    let jwks = format!("jwks = {{ url = 'https://127.0.0.1:1/keys?key={SECRET}' }}");
    let issuer = format!("issuer = 'https://other.example'\naudiences = ['app']\n{jwks}\n");
    let telemetry = format!("[telemetry]\notlp_endpoint = 'http://127.0.0.1:1/?key={SECRET}'\n");
    let settings = format!("{GOOD}\n[[auth.issuers]]\n{issuer}[[grpc.jwt.issuers]]\n{issuer}{telemetry}");
    std::fs::write(&path, settings).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(["serve", "--set", "node.drain_window=0s"])
        .args(LISTENS)
        .arg("--config")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(process.stderr.take().unwrap());
    let (sender, lines) = std::sync::mpsc::sync_channel(64);
    std::thread::spawn(move || {
        stderr
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    let mut log = String::new();
    while log.matches("key fetch failed").count() < 2 || !log.contains("gateway started") {
        let line = lines.recv_timeout(PATIENCE);
        log += &line.unwrap_or_else(|error| panic!("{error} after: {log}"));
        log.push('\n');
    }
    super::signals::signal(&process, "TERM");
    log.extend(lines.iter().map(|line| line + "\n"));
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{log}");
    expect_discreet(&output, "stdout");
    assert_eq!(log.lines().find(|line| line.contains(SECRET)), None);
}

#[test]
fn no_command_repeats_the_password_of_an_address() {
    let publish = |url: &str| roomcast(&["publish", "--url", url, "--room", "r", "--event", "e"]);
    let tail = |url: &str| roomcast(&["tail", "r", "--url", url, "--token", "t"]);
    let dev = |url: &str| roomcast(&["dev", "--nodes", "1", "--port", "0", "--grpc-port", "0", "--nats", url]);
    for scheme in ["http", "https", "ws", "wss", "ftp", "nats"] {
        for rest in [
            "ada:SECRET@127.0.0.1:1",
            "127.0.0.1:1/v1/ws?key=SECRET",
            "ada:SECRET@no such host",
        ] {
            let url = format!("{scheme}://{rest}").replace("SECRET", SECRET);
            let outputs = [publish(&url), tail(&url)];
            for output in &outputs {
                assert!(!output.status.success());
                expect_discreet(output, &url);
            }
        }
    }
    let refused = dev(&format!("nats://ada:{SECRET}@127.0.0.1:1"));
    assert!(!refused.status.success());
    expect_discreet(&refused, "dev");
}
