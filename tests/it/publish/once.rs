//! Keys and versions: a publish that happens once, or only where the room stands.

use roomcast::counters::PublishOutcome;
use roomcast::proto::client_v1::Publish;
use roomcast::proto::v1;
use serde_json::json;
use tonic::Code;

use crate::support::{Encoding, Node, ToRoom as _, draft, over_encodings, reason, to_room, user};

over_encodings! {
    a_repeated_key_publishes_once_and_answers_the_first_position,
    a_client_that_repeats_its_key_publishes_once,
    a_key_belongs_to_its_publisher,
    a_key_has_64_characters_whatever_they_are,
}

async fn a_repeated_key_publishes_once_and_answers_the_first_position(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.backend();
    let keyed = |event: &str, n: u32| v1::PublishRequest {
        targets: vec![to_room("r")],
        idempotency_key: "k".to_owned(),
        ..draft(event, json!(n))
    };
    let first = backend.send(keyed("paid", 1)).await.unwrap().results.remove(0);
    let again = backend.send(keyed("paid", 1)).await.unwrap().results.remove(0);
    assert!(!first.duplicate);
    node.assert_reached(first.reached, 1);
    assert_eq!(
        (again.duplicate, again.reached, again.position),
        (true, None, first.position)
    );
    for other in [keyed("paid", 2), keyed("refunded", 1)] {
        let refused = backend.send(other).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED")
        );
    }
    // The key is the room's and the tenant's own.
    let elsewhere = v1::PublishRequest {
        targets: vec![to_room("s")],
        ..keyed("paid", 2)
    };
    assert!(!backend.send(elsewhere).await.unwrap().results[0].duplicate);
    assert!(
        !backend
            .clone()
            .of("other")
            .send(keyed("paid", 2))
            .await
            .unwrap()
            .results[0]
            .duplicate
    );
    backend.publish("r", "end", json!({})).await;
    ada.expect_event("r", "paid").await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_client_that_repeats_its_key_publishes_once(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let keyed = |n: u32| Publish {
        idempotency_key: "k".to_owned(),
        ..Publish::to("r", "said", json!(n))
    };
    let first = ada.try_publish(keyed(1)).await.unwrap();
    let again = ada.try_publish(keyed(1)).await.unwrap();
    assert_eq!(
        (again.duplicate, again.reached, again.position),
        (true, None, first.position)
    );
    assert_eq!(ada.try_publish(keyed(2)).await.unwrap_err().reason, "key_reused");
    ada.expect_event("r", "said").await;
    ada.publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

#[tokio::test]
async fn of_two_racing_publishers_one_wins_and_the_other_learns_the_version() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let at = |offset| v1::PublishRequest {
        targets: vec![to_room("r")],
        expected_head: Some(v1::Position {
            epoch: String::new(),
            offset,
        }),
        ..draft("edited", json!({}))
    };
    let first = backend.send(at(0)).await.unwrap().results.remove(0).position.unwrap();
    let racers = [backend.send(at(first.offset)), backend.send(at(first.offset))];
    let (mut won, mut lost) = (Vec::new(), Vec::new());
    for result in futures_util::future::join_all(racers).await {
        match result {
            Ok(response) => won.push(response.results[0].position.clone().unwrap()),
            Err(status) => lost.push(status),
        }
    }
    assert_eq!((won.len(), lost.len()), (1, 1));
    assert_eq!(
        (lost[0].code(), reason(&lost[0]).as_str()),
        (Code::Aborted, "VERSION_CONFLICT")
    );
    let conflict = version_conflict(&lost[0]);
    assert_eq!((conflict.room.as_str(), conflict.head), ("r", Some(won[0].clone())));
    // Another epoch is another order.
    let stale = v1::PublishRequest {
        expected_head: Some(v1::Position {
            epoch: "0000000000000000".to_owned(),
            offset: won[0].offset,
        }),
        ..at(0)
    };
    assert_eq!(backend.send(stale).await.unwrap_err().code(), Code::Aborted);
    let counted = [PublishOutcome::Accepted, PublishOutcome::VersionConflict].map(|outcome| node.published(outcome));
    // The stale epoch was refused before the bus saw it.
    assert_eq!(counted, [2, 1]);
    node.finish().await;
}

fn version_conflict(status: &tonic::Status) -> v1::VersionConflict {
    use prost::Message as _;
    let status = tonic_types::pb::Status::decode(status.details()).unwrap();
    let detail = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("VersionConflict"));
    v1::VersionConflict::decode(detail.expect("the current version is told").value.as_slice()).unwrap()
}

fn with_key(event: &str, n: u32, key: &str) -> Publish {
    Publish {
        idempotency_key: key.to_owned(),
        ..Publish::to("r", event, json!(n))
    }
}

async fn a_key_belongs_to_its_publisher(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    ada.join("r").await;
    // A client guesses the key that the backend is about to use, and two users count from 1.
    let guessed = ada.try_publish(with_key("guessed", 1, "order-17-paid")).await.unwrap();
    assert!(!guessed.duplicate);
    let paid = v1::PublishRequest {
        targets: vec![to_room("r")],
        idempotency_key: "order-17-paid".to_owned(),
        ..draft("paid", json!(17))
    };
    let backend = node.backend();
    assert!(!backend.send(paid.clone()).await.unwrap().results[0].duplicate);
    for (client, n) in [(&mut ada, 1), (&mut ben, 2)] {
        assert!(!client.try_publish(with_key("said", n, "1")).await.unwrap().duplicate);
    }
    // Each repeats what it said, from another connection as well.
    assert!(backend.send(paid).await.unwrap().results[0].duplicate);
    let mut laptop = node.connect(user("ben")).await;
    for client in [&mut ben, &mut laptop] {
        assert!(client.try_publish(with_key("said", 2, "1")).await.unwrap().duplicate);
    }
    backend.publish("r", "end", json!({})).await;
    for name in ["guessed", "paid", "said", "said"] {
        ada.expect_event("r", name).await;
    }
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_key_has_64_characters_whatever_they_are(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let backend = node.backend();
    for character in ["k", "\u{e9}", "\u{1f980}"] {
        for (length, is_accepted) in [(64, true), (65, false)] {
            let key = character.repeat(length);
            let sent = ada.try_publish(with_key("e", 1, &key)).await;
            assert_eq!(sent.is_ok(), is_accepted, "{length} x {character}: {sent:?}");
            let request = v1::PublishRequest {
                targets: vec![to_room("r")],
                idempotency_key: key,
                ..draft("e", json!(1))
            };
            let sent = backend.send(request).await;
            assert_eq!(sent.is_ok(), is_accepted, "{length} x {character}: {sent:?}");
        }
    }
    node.finish().await;
}
