//! Joins under load: no seam, no loss, no repetition.

use roomcast::gateway::Config;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Join, PresenceMode};
use roomcast::rate::Rate;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{Carries, Client, Encoding, InRoom as _, Node, over_encodings, user, within};

over_encodings! {
    a_join_under_load_has_no_seam,
    joining_again_loses_nothing_and_repeats_nothing,
}

fn fast(config: &mut Config) {
    let rate = Rate {
        per_second: 100_000,
        burst: 100_000,
    };
    (config.session.join_rate, config.session.publish_rate) = (rate, rate);
}

/// Publishes without a pause until it is told to stop.
fn flood(node: &Node, room: &'static str, stop: &CancellationToken) -> JoinSet<u64> {
    let (backend, stop) = (node.backend(), stop.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut count = 0;
        while !stop.is_cancelled() {
            backend.publish(room, "n", json!(count)).await;
            count += 1;
        }
        backend.publish(room, "end", json!(count)).await;
        count
    });
    tasks
}

async fn a_join_under_load_has_no_seam(encoding: Encoding) {
    let node = Node::with(encoding, fast).await;
    let stop = CancellationToken::new();
    let mut publisher = flood(&node, "r", &stop);
    let mut ada = node.connect(user("ada")).await;
    let mut last = None;
    for turn in 0..200 {
        // By turns from where it left off, from the newest few, and from now on.
        let joined = match (turn % 3, last.take()) {
            (0, Some((since, n))) => {
                let joined = ada.join_since("r", &since).await;
                assert!(joined.recovered);
                Some(n)
            }
            (1, _) => {
                let rewind = Join {
                    rewind: 5,
                    ..Join::in_room("r")
                };
                ada.try_join(rewind).await.unwrap();
                None
            }
            _ => {
                ada.join("r").await;
                None
            }
        };
        let first = ada.event().await.json().as_u64().unwrap();
        assert!(joined.is_none_or(|n| first == n + 1), "{joined:?} and then {first}");
        let second = ada.event().await.json().as_u64().unwrap();
        assert_eq!(second, first + 1);
        ada.leave("r").await;
        let mut newest = second;
        for push in ada.take_pushes() {
            if let Said::Event(event) = push {
                newest = event.json().as_u64().unwrap();
            }
        }
        last = Some((ada.position("r"), newest));
    }
    stop.cancel();
    within("the publisher", publisher.join_next()).await.unwrap().unwrap();
    node.finish().await;
}

async fn joining_again_loses_nothing_and_repeats_nothing(encoding: Encoding) {
    let node = Node::with(encoding, fast).await;
    let stop = CancellationToken::new();
    let mut publisher = flood(&node, "r", &stop);
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let mut seen = vec![ada.event().await.json().as_u64().unwrap()];
    for turn in 0..100 {
        let join = Join {
            presence: if turn % 2 == 0 {
                PresenceMode::Members.into()
            } else {
                PresenceMode::None.into()
            },
            state_json: Some(turn.to_string()),
            ..Join::in_room("r")
        };
        ada.try_join(join).await.unwrap();
        take_numbers(&mut ada, &mut seen);
    }
    stop.cancel();
    let count = within("the publisher", publisher.join_next()).await.unwrap().unwrap();
    while seen.last() != Some(&(count - 1)) {
        if let Said::Event(event) = ada.push().await
            && event.event_name == "n"
        {
            seen.push(event.json().as_u64().unwrap());
        }
    }
    let expected: Vec<u64> = (seen[0]..count).collect();
    assert_eq!(seen, expected);
    node.finish().await;
}

fn take_numbers(client: &mut Client, seen: &mut Vec<u64>) {
    for push in client.take_pushes() {
        if let Said::Event(event) = push {
            seen.push(event.json().as_u64().unwrap());
        }
    }
}
