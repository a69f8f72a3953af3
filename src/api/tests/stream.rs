//! Batches and streams: each event has its own result.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::{Api, Caller, Setup, event, refusal, to_room, token};
use crate::api::{Config, Credentials, Scope};
use crate::bus::memory;
use crate::proto::v1;
use crate::proto::v1::publish_batch_result::Outcome as BatchOutcome;
use crate::proto::v1::publish_stream_response::Outcome;

/// Code, reason and field of a refused item.
pub(super) fn item(error: &v1::ItemStatus) -> (Code, String, String) {
    use prost::Message as _;
    let status = tonic_types::Status {
        code: error.code,
        message: error.message.clone(),
        details: error.details.clone(),
    };
    let details = status.encode_to_vec().into();
    refusal(&tonic::Status::with_details(error.code.into(), "", details))
}

#[tokio::test]
async fn in_a_batch_each_event_has_its_own_result() {
    let tokens = [token("of-a", &[Scope::Publish], Some(&["a"]))];
    let api = Api::with(Setup {
        credentials: Credentials::none().with_tokens(tokens),
        ..Setup::default()
    })
    .await;
    let mut bad = event();
    bad.targets = vec![to_room("")];
    let mut foreign = event();
    foreign.tenant = "b".to_owned();
    let requests = vec![event(), bad, foreign, event()];
    let mut publisher = api.publisher_of(Caller::with("of-a")).await;
    let response = publisher
        .publish_batch(v1::PublishBatchRequest { requests })
        .await
        .unwrap()
        .into_inner();
    let outcomes: Vec<_> = response
        .results
        .into_iter()
        .map(|result| result.outcome.unwrap())
        .collect();
    let [
        BatchOutcome::Response(first),
        BatchOutcome::Error(invalid),
        BatchOutcome::Error(forbidden),
        BatchOutcome::Response(last),
    ] = &*outcomes
    else {
        panic!("unexpected outcomes: {outcomes:?}");
    };
    assert_eq!(
        item(invalid),
        (
            Code::InvalidArgument,
            "INVALID_ROOM".to_owned(),
            "requests[1].targets[0].room".to_owned()
        )
    );
    assert_eq!(
        item(forbidden),
        (Code::PermissionDenied, "TENANT_FORBIDDEN".to_owned(), String::new())
    );
    let offset = |response: &v1::PublishResponse| response.results[0].position.as_ref().unwrap().offset;
    assert!(offset(first) < offset(last));
}

#[tokio::test]
async fn a_batch_has_one_to_a_hundred_events() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    for count in [0, 101] {
        let requests = vec![event(); count];
        let status = publisher
            .publish_batch(v1::PublishBatchRequest { requests })
            .await
            .unwrap_err();
        let expected = (
            Code::InvalidArgument,
            "BATCH_TOO_LARGE".to_owned(),
            "requests".to_owned(),
        );
        assert_eq!(refusal(&status), expected);
    }
    let requests = vec![event(); 100];
    let response = publisher
        .publish_batch(v1::PublishBatchRequest { requests })
        .await
        .unwrap();
    assert_eq!(response.into_inner().results.len(), 100);
}

fn numbered(sequence: u64, request: v1::PublishRequest) -> v1::PublishStreamRequest {
    v1::PublishStreamRequest {
        sequence,
        request: Some(request),
    }
}

#[tokio::test]
async fn a_stream_answers_in_order_and_goes_on_after_a_refusal() {
    let api = Api::start().await;
    let requests = (0..500u64).map(|sequence| {
        let mut request = event();
        let names: Vec<String> = match sequence % 5 {
            0 => vec!["a".to_owned(), "b".to_owned()],
            1 => vec!["b".to_owned(), "a".to_owned()],
            2 => vec![String::new()],
            _ => vec!["a".to_owned()],
        };
        request.targets = names.iter().map(|name| to_room(name)).collect();
        numbered(sequence, request)
    });
    let mut publisher = api.publisher().await;
    let answers = publisher
        .publish_stream(stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers.len(), 500);
    let mut heads: HashMap<String, u64> = HashMap::new();
    for (sequence, answer) in (0..).zip(answers) {
        assert_eq!(answer.sequence, sequence);
        match answer.outcome.unwrap() {
            Outcome::Error(error) => {
                assert_eq!((sequence % 5, item(&error).1.as_str()), (2, "INVALID_ROOM"));
                assert_eq!(item(&error).2, "request.targets[0].room");
            }
            Outcome::Response(response) => {
                for result in response.results {
                    let offset = result.position.unwrap().offset;
                    assert!(
                        heads.insert(result.room, offset) < Some(offset),
                        "the stream's order is the room's"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn an_empty_message_is_refused_in_its_place() {
    let api = Api::start().await;
    let empty = v1::PublishStreamRequest {
        sequence: 2,
        request: None,
    };
    let requests = stream::iter([numbered(1, event()), empty, numbered(3, event())]);
    let mut publisher = api.publisher().await;
    let answers = publisher.publish_stream(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert_eq!(
        answers.iter().map(|answer| answer.sequence).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let Some(Outcome::Error(error)) = &answers[1].outcome else {
        panic!("it was published: {answers:?}");
    };
    assert_eq!(item(error).2, "request");
}

#[tokio::test]
async fn a_sender_that_reads_no_answers_is_not_read_for_ever() {
    let api = Api::with(Setup {
        config: Config {
            in_flight_max: 4,
            ..Config::default()
        },
        ..Setup::default()
    })
    .await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    // 16 KiB each: the windows of HTTP/2 are full long before the end.
    let payload = format!("\"{}\"", "x".repeat(16 << 10));
    let requests = stream::iter(0..10_000u64).map(move |sequence| {
        counting.fetch_add(1, Ordering::Relaxed);
        let mut request = event();
        request.payload = super::support::json(&payload);
        numbered(sequence, request)
    });
    let mut publisher = api.publisher().await;
    let mut answers = publisher.publish_stream(requests).await.unwrap().into_inner();
    for _ in 0..100 {
        answers.next().await.unwrap().unwrap();
    }
    let before = sent.load(Ordering::Relaxed);
    assert!(before < 5_000, "the sender was not slowed down: {before}");
    // A cancelled stream leaves the listener as it was.
    drop(answers);
    publisher.publish(event()).await.unwrap();
}

#[tokio::test]
async fn a_saturated_bus_refuses_the_event_and_not_the_stream() {
    let api = Api::with(Setup {
        bus: memory::Config {
            rooms_max: 1,
            ..memory::Config::default()
        },
        ..Setup::default()
    })
    .await;
    let requests = (0..200u64).map(|sequence| {
        let mut request = event();
        request.targets = vec![to_room(&format!("room {sequence}"))];
        numbered(sequence, request)
    });
    let mut publisher = api.publisher().await;
    let answers = publisher
        .publish_stream(stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let refused = answers
        .iter()
        .filter_map(|answer| match answer.outcome.as_ref().unwrap() {
            Outcome::Error(error) => Some(item(error)),
            Outcome::Response(_) => None,
        });
    let refused: Vec<_> = refused.collect();
    assert!(!refused.is_empty() && answers.len() == 200);
    assert!(
        refused
            .iter()
            .all(|(code, reason, _)| (*code, reason.as_str()) == (Code::Unavailable, "NOT_STORED"))
    );
}

#[tokio::test]
async fn several_rooms_of_which_one_fails_are_not_called_undone() {
    let api = Api::start().await;
    let mut publisher = api.publisher().await;
    let mut request = event();
    request.idempotency_key = "k".to_owned();
    publisher.publish(request.clone()).await.unwrap();
    request.payload = super::support::json("1");
    request.targets.push(to_room("s"));
    let status = publisher.publish(request).await.unwrap_err();
    assert_eq!(refusal(&status).1, "IDEMPOTENCY_KEY_REUSED");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.metadata["room"].as_str(), info.metadata["rooms_stored"].as_str()),
        ("r", "1")
    );
}

#[tokio::test]
async fn a_drain_answers_what_it_owes_and_ends_the_stream() {
    let api = Api::start().await;
    let requests = stream::iter([numbered(1, event())]).chain(stream::pending());
    let mut publisher = api.publisher().await;
    let mut answers = publisher.publish_stream(requests).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().sequence, 1);
    api.stop.cancel();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(
        refusal(&status),
        (Code::Unavailable, "DRAINING".to_owned(), String::new())
    );
}
