//! Events that NATS never takes, because its servers' `max_payload` is smaller than ours: told as too large at every door.

use roomcast::proto::client_v1::{ErrorCode, Publish, Retention};
use roomcast::proto::v1;
use roomcast::proto::v1::publish_batch_result::Outcome as InBatch;
use roomcast::proto::v1::publish_stream_response::Outcome as InStream;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use super::over;
use crate::support::nats::{NatsOptions, NatsServer};
use crate::support::{Caller, Encoding, Node, ROOT, TENANT, ToRoom as _, draft, reason, to_room, user, within};

/// Allowed by our own bounds, and more than the server takes.
const BYTES: usize = 50_000;

async fn with_small_messages(encoding: Encoding) -> (NatsServer, Node) {
    let options = NatsOptions {
        config: "max_payload: 40000".to_owned(),
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).await;
    let node = Node::several(encoding, 2, over(&server.url())).await;
    (server, node)
}

fn large(retention: v1::Retention) -> v1::PublishRequest {
    v1::PublishRequest {
        tenant: TENANT.to_owned(),
        targets: vec![to_room("r")],
        retention: retention.into(),
        ..draft("large", json!("x".repeat(BYTES)))
    }
}

/// The bound that was told.
#[track_caller]
fn bound(code: Code, reason: &str, message: &str) -> usize {
    assert_eq!(
        (code, reason),
        (Code::InvalidArgument, "PAYLOAD_TOO_LARGE"),
        "{message}"
    );
    let number = message.split("at most ").nth(1).and_then(|rest| rest.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .expect("the bound is told")
}

#[track_caller]
fn bound_of(status: &Status) -> usize {
    bound(status.code(), &reason(status), status.message())
}

async fn in_a_batch(backend: &Caller) {
    let requests = vec![large(v1::Retention::Reliable)];
    let batch = v1::PublishBatchRequest { requests };
    let results = backend.publishing.clone().publish_batch(batch).await.unwrap();
    match results.into_inner().results.remove(0).outcome.unwrap() {
        InBatch::Error(error) => assert_eq!(error.code, i32::from(Code::InvalidArgument), "{error:?}"),
        InBatch::Response(_) => panic!("it cannot be stored"),
    }
}

async fn in_a_stream(backend: &Caller) {
    let request = v1::PublishStreamRequest {
        sequence: 1,
        request: Some(large(v1::Retention::Reliable)),
    };
    let mut publishing = backend.publishing.clone();
    let answers = publishing.publish_stream(tokio_stream::iter([request]));
    let answer = answers.await.unwrap().into_inner().message().await.unwrap().unwrap();
    match answer.outcome.unwrap() {
        InStream::Error(error) => assert_eq!(error.code, i32::from(Code::InvalidArgument), "{error:?}"),
        InStream::Response(_) => panic!("it cannot be stored"),
    }
}

async fn over_http(node: &Node) {
    let body = json!({
        "tenant": TENANT, "targets": [{"room": "r"}], "eventName": "large", "payload": "x".repeat(BYTES),
    });
    let body = body.to_string();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ROOT}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(node.grpc_address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("PAYLOAD_TOO_LARGE") && answer.contains("at most "),
        "{answer}"
    );
}

#[tokio::test]
async fn a_backend_is_told_that_an_event_is_too_large_for_nats() {
    let (_server, node) = with_small_messages(Encoding::Json).await;
    let backend = node.of_several(1).backend();
    let mut bounds = Vec::new();
    for retention in [
        v1::Retention::Reliable,
        v1::Retention::LastValue,
        v1::Retention::Ephemeral,
    ] {
        bounds.push(bound_of(&backend.send(large(retention)).await.unwrap_err()));
    }
    in_a_batch(&backend).await;
    in_a_stream(&backend).await;
    over_http(&node).await;
    // What was told is what is taken: two bytes of a text are its quotes.
    for (retention, bound) in [v1::Retention::Reliable, v1::Retention::LastValue]
        .into_iter()
        .zip(bounds)
    {
        for (bytes, fits) in [(bound, true), (bound + 1, false)] {
            let request = v1::PublishRequest {
                retention: retention.into(),
                ..large(retention)
            };
            let request = v1::PublishRequest {
                payload: Some(crate::support::payload(&json!("x".repeat(bytes - 2)))),
                ..request
            };
            let sent = backend.send(request).await;
            assert_eq!(sent.is_ok(), fits, "{bytes} bytes, {retention:?}: {:?}", sent.err());
        }
    }
    node.finish().await;
}

async fn a_client_is_told(encoding: Encoding) {
    let (_server, node) = with_small_messages(encoding).await;
    let mut ada = node.of_several(0).connect(user("ada")).await;
    ada.join("r").await;
    for retention in [Retention::Reliable, Retention::LastValue, Retention::Ephemeral] {
        let publish = Publish {
            retention: retention.into(),
            ..Publish::to("r", "large", json!("x".repeat(BYTES)))
        };
        let refused = ada.try_publish(publish).await.unwrap_err();
        assert_eq!(
            (refused.code(), &*refused.reason),
            (ErrorCode::Invalid, "payload_too_large")
        );
        assert!(refused.message.contains("at most "), "{refused:?}");
    }
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_client_is_told_that_an_event_is_too_large_for_nats_in_json() {
    a_client_is_told(Encoding::Json).await;
}

#[tokio::test]
async fn a_client_is_told_that_an_event_is_too_large_for_nats_in_protobuf() {
    a_client_is_told(Encoding::Protobuf).await;
}
