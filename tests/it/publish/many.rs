//! Batches and streams.

use roomcast::proto::v1;
use roomcast::proto::v1::publish_batch_result::Outcome as BatchOutcome;
use roomcast::proto::v1::publish_stream_response::Outcome as StreamOutcome;
use serde_json::json;
use tonic::Code;

use crate::support::{Carries as _, Encoding, Node, draft, to_room, user};

#[tokio::test]
async fn a_batch_keeps_its_order_and_one_failure_stops_nothing() {
    let node = Node::start(Encoding::Json).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let one = |event: &str| {
        backend.stamped(v1::PublishRequest {
            targets: vec![to_room("r")],
            ..draft(event, json!({}))
        })
    };
    let requests = vec![one("one"), one("a\u{7}b"), one("two")];
    let request = v1::PublishBatchRequest { requests };
    let results = backend
        .publishing
        .clone()
        .publish_batch(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let outcomes: Vec<_> = results.into_iter().map(|result| result.outcome.unwrap()).collect();
    assert!(matches!(&outcomes[0], BatchOutcome::Response(_)));
    let BatchOutcome::Error(error) = &outcomes[1] else {
        panic!("a control character in a name is refused")
    };
    assert_eq!(error.code, i32::from(Code::InvalidArgument));
    assert!(matches!(&outcomes[2], BatchOutcome::Response(_)));
    ada.expect_event("r", "one").await;
    ada.expect_event("r", "two").await;
    node.finish().await;
}

#[tokio::test]
async fn a_stream_answers_each_event_in_the_order_sent_and_ends_when_all_are_answered() {
    const COUNT: u64 = 500;
    let node = Node::start(Encoding::Protobuf).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let requests: Vec<_> = (0..COUNT)
        .map(|n| {
            let event = if n == 7 { "error" } else { "n" };
            v1::PublishStreamRequest {
                sequence: n * 3,
                request: Some(backend.stamped(v1::PublishRequest {
                    targets: vec![to_room("r")],
                    ..draft(event, json!(n))
                })),
            }
        })
        .collect();
    let stream = tokio_stream::iter(requests);
    let mut answers = backend
        .publishing
        .clone()
        .publish_stream(stream)
        .await
        .unwrap()
        .into_inner();
    let mut offset = 0;
    for n in 0..COUNT {
        let answer = answers.message().await.unwrap().expect("one answer for each event");
        assert_eq!(answer.sequence, n * 3);
        match answer.outcome.unwrap() {
            StreamOutcome::Response(response) => {
                let now = response.results[0].position.as_ref().unwrap().offset;
                assert!(now > offset);
                offset = now;
            }
            StreamOutcome::Error(error) => {
                assert_eq!(
                    (n, error.code),
                    (7, i32::from(Code::InvalidArgument)),
                    "{}",
                    error.message
                );
            }
        }
    }
    assert_eq!(answers.message().await.unwrap(), None);
    for n in (0..COUNT).filter(|n| *n != 7) {
        assert_eq!(ada.expect_event("r", "n").await.json(), json!(n));
    }
    node.finish().await;
}
