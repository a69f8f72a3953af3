//! Addresses at which no gateway answers as it should: one line, in the words of the person who typed them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::failure;
use crate::dev::Dev;

fn publish(url: &str) -> (i32, String) {
    failure(&[
        "publish",
        "--url",
        url,
        "--timeout",
        "2s",
        "--room",
        "r",
        "--event",
        "e",
    ])
}

fn tail(url: &str) -> (i32, String) {
    failure(&["tail", "r", "--url", url, "--token", "t"])
}

#[track_caller]
fn expect((code, said): (i32, String), expected_code: i32, expected: &[&str]) {
    assert_eq!(code, expected_code, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in expected {
        assert!(said.contains(part), "{part} in {said}");
    }
    // What libraries say to their developers.
    for jargon in ["transport error", "{", "Error(", "hyper", "h2", "kind:", "os error"] {
        assert!(!said.contains(jargon), "{jargon} in {said}");
    }
}

#[test]
fn a_port_without_a_listener_is_named() {
    // Port 1 is reserved (tcpmux) and has no listener.
    let refused = "(connection refused)";
    expect(
        publish("http://127.0.0.1:1"),
        3,
        &["http://127.0.0.1:1", refused, "grpc.listen"],
    );
    expect(
        tail("ws://127.0.0.1:1/v1/ws"),
        3,
        &["ws://127.0.0.1:1", refused, "client.listen"],
    );
}

#[test]
fn the_other_port_of_the_gateway_is_told_from_the_right_one() {
    let dev = Dev::start();
    let (client, grpc) = (dev.said("/client_address"), dev.said("/grpc_address"));
    expect(
        publish(&format!("http://{client}")),
        3,
        &["does not speak gRPC", "grpc.listen"],
    );
    expect(
        tail(&format!("ws://{grpc}/v1/ws")),
        1,
        &["does not speak WebSocket", "client.listen"],
    );
    expect(tail(&format!("ws://{client}/ws")), 1, &["answered 404", "/v1/ws"]);
}

#[test]
fn a_port_without_tls_is_told_from_one_with() {
    let dev = Dev::start();
    let (client, grpc) = (dev.said("/client_address"), dev.said("/grpc_address"));
    expect(
        publish(&format!("https://{grpc}")),
        3,
        &["does not speak TLS", "try http://"],
    );
    expect(
        tail(&format!("wss://{client}/v1/ws")),
        3,
        &["does not speak TLS", "try ws://"],
    );
}

#[test]
fn a_development_gateway_keeps_the_origins_that_are_set() {
    let answer = |arguments: &[&str]| {
        let dev = Dev::start_with(arguments);
        let mut stream = TcpStream::connect(dev.said("/client_address")).unwrap();
        let request = "GET /v1/events HTTP/1.1\r\nhost: x\r\norigin: https://evil.example\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8(status.to_vec()).unwrap()
    };
    assert_eq!(
        answer(&["--set", r#"client.origins=["https://app.example"]"#]),
        "HTTP/1.1 403"
    );
    assert_eq!(answer(&[]), "HTTP/1.1 200");
}

#[test]
fn a_gateway_that_is_silent_is_said_to_be() {
    // Connections wait there, and are not taken.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let said = publish(&format!("http://{address}"));
    expect(said, 3, &["did not answer within 2s", "--key"]);
}

#[test]
fn an_address_of_another_kind_is_refused_before_connecting() {
    expect(publish("127.0.0.1:50051"), 2, &["expected http://HOST:PORT"]);
    expect(publish("ws://127.0.0.1:8080/v1/ws"), 2, &["expected http://HOST:PORT"]);
    expect(tail("http://127.0.0.1:8080"), 2, &["expected ws://HOST:PORT"]);
}
