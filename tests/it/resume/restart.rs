//! Restarts of nodes, and limits that have changed with one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::Position;
use roomcast::proto::client_v1::history_query::Anchor as Side;
use serde_json::json;

use super::history_of;
use crate::support::{Carries, Encoding, Node, over_encodings, over_nats, over_nats_in_protobuf, reason, user};
over_encodings! {
    ; alone: a_restart_is_a_new_epoch,
}

over_nats_in_protobuf! {
    a_raised_limit_recovers_no_hole,
}

#[tokio::test]
async fn a_restart_of_all_nodes_over_nats_loses_nothing() {
    over_nats(a_restart_loses_nothing()).await;
}

async fn a_restart_loses_nothing() {
    let mut node = Node::start(Encoding::Json).await;
    let mut ada = node.connect(user("ada")).await;
    let before = ada.join("r").await.head.unwrap();
    node.backend().publish("r", "before", json!({})).await;
    node.restart().await;
    node.backend().publish("r", "after", json!({})).await;
    let mut ada = node.connect(user("ada")).await;
    let joined = ada.join_since("r", &before).await;
    assert!(joined.recovered && joined.head.unwrap().epoch == before.epoch);
    ada.expect_event("r", "before").await;
    ada.expect_event("r", "after").await;
    node.backend().publish("r", "live", json!({})).await;
    ada.expect_event("r", "live").await;
    node.finish().await;
}

async fn a_restart_is_a_new_epoch(encoding: Encoding) {
    let mut node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let before = ada.join("r").await.head.unwrap();
    node.backend().publish("r", "n", json!({})).await;
    node.restart().await;
    node.backend().publish("r", "n", json!({})).await;
    let mut ada = node.connect(user("ada")).await;
    let joined = ada.join_since("r", &before).await;
    assert!(!joined.recovered && joined.head.unwrap().epoch != before.epoch);
    node.backend().publish("r", "live", json!({})).await;
    ada.expect_nothing_before("live").await;
    node.finish().await;
}

/// Many rooms of few partitions under a limit that a restart raises: whatever is said to be recovered, complete or kept is
/// exactly what the publisher knows.
#[tokio::test]
async fn a_limit_raised_by_a_restart_recovers_no_hole() {
    over_nats(a_raised_limit_recovers_no_hole(Encoding::Json)).await;
}

async fn a_raised_limit_recovers_no_hole(encoding: Encoding) {
    const ROOMS: usize = 12;
    const EVENTS: usize = 12;
    let events_max = Arc::new(AtomicUsize::new(5));
    let settings = {
        let events_max = Arc::clone(&events_max);
        move |config: &mut Config| {
            let limits = HistoryLimits {
                events_max: events_max.load(Ordering::SeqCst),
                ..Default::default()
            };
            config.bus.history = HistoryRules::new([], limits);
            config.nats.as_mut().expect("it is over NATS").partitions = 2;
        }
    };
    let mut node = Node::with(encoding, settings).await;
    let rooms: Vec<String> = (0..ROOMS).map(|number| format!("r{number}")).collect();
    let mut published = vec![Vec::new(); ROOMS];
    for n in 0..EVENTS {
        for (room, published) in rooms.iter().zip(&mut published) {
            let result = node.backend().publish(room, "n", json!(n)).await;
            published.push(result.position.unwrap());
        }
    }
    events_max.store(300, Ordering::SeqCst);
    node.restart().await;
    for (room, published) in rooms.iter().zip(&published) {
        for (index, at) in published.iter().enumerate() {
            // The one before the oldest that is kept may be either.
            let kept = index + 7 > EVENTS;
            let since = Position {
                epoch: at.epoch.clone(),
                offset: at.offset,
            };
            let mut ada = node.connect(user("ada")).await;
            let joined = ada.join_since(room, &since).await;
            assert!(joined.recovered || !kept, "{room} since {index}");
            if joined.recovered {
                assert_eq!(joined.replayed as usize, EVENTS - 1 - index, "{room} since {index}");
                let missed = ada.events(EVENTS - 1 - index).await;
                assert!(
                    missed
                        .iter()
                        .map(Carries::json)
                        .eq((index + 1..EVENTS).map(|n| json!(n)))
                );
            }
            let page = history_of(&mut ada, room, Some(Side::After(since)), 0).await;
            assert!(page.complete || !kept);
            if page.complete {
                assert_eq!(page.events.len(), EVENTS - 1 - index);
            }
            match node.backend().history_after(room, at).await {
                Ok(page) => assert_eq!(page.events.len(), EVENTS - 1 - index),
                Err(status) => {
                    assert!(!kept, "{room} after {index}");
                    assert_eq!(reason(&status), "POSITION_NOT_RETAINED");
                }
            }
            ada.crash();
        }
    }
    node.finish().await;
}
