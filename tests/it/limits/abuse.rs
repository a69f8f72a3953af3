//! Too many rooms, too many commands, too much state.

use std::time::Duration;

use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{ErrorCode, Join, Leave, PresenceQuery, Publish};
use roomcast::rate::Rate;
use serde_json::json;

use crate::support::{Carries as _, Client, Encoding, Ended, InRoom as _, Node, ToRoom as _, over_encodings, user};

over_encodings! {
    a_room_too_many_is_refused_and_the_others_stay,
    joining_and_leaving_too_fast_is_refused_and_then_closed,
    publishing_too_fast_is_refused_and_then_closed,
    who_waits_as_told_may_go_on,
    commands_that_come_faster_than_they_are_carried_out_wait_and_none_is_lost,
}

async fn a_room_too_many_is_refused_and_the_others_stay(encoding: Encoding) {
    let fast = |config: &mut Config| {
        config.session.join_rate = Rate {
            per_second: 10_000,
            burst: 10_000,
        };
    };
    let node = Node::with(encoding, fast).await;
    let mut ada = node.connect(user("ada")).await;
    for n in 0..128 {
        ada.join(&format!("room {n}")).await;
    }
    let refusal = ada.try_join(Join::in_room("room 128")).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.reason.as_str()),
        (ErrorCode::LimitReached, "room_limit")
    );
    // Joining one of them again takes no further place, and leaving one makes room.
    ada.join("room 127").await;
    ada.leave("room 0").await;
    ada.join("room 128").await;
    for n in [1, 64, 128] {
        let room = format!("room {n}");
        node.backend().publish(&room, "still here", json!({})).await;
        ada.expect_event(&room, "still here").await;
    }
    node.finish().await;
}

/// Sends commands without waiting until the connection is closed; answers how many were refused for their rate.
async fn flood(client: &mut Client, command: impl Fn(u32) -> Command) -> (u32, Ended) {
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(client.say(command(n)).await);
    }
    let ended = client.end().await;
    let mut refused = 0;
    for id in ids {
        if let Some(Err(refusal)) = client.reply_if_any(id) {
            assert_eq!(refusal.reason, "rate_limited");
            assert!((1..=2000).contains(&refusal.retry_after_ms), "{refusal:?}");
            refused += 1;
        }
    }
    (refused, ended)
}

fn closed_for_flooding() -> Ended {
    Ended::Closed {
        code: 4005,
        reason: "flooding".to_owned(),
    }
}

async fn joining_and_leaving_too_fast_is_refused_and_then_closed(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let room = || "r".to_owned();
    let (refused, ended) = flood(&mut ada, |n| match n % 2 {
        0 => Command::Join(Join::in_room("r")),
        _ => Command::Leave(Leave { room: room() }),
    })
    .await;
    assert_eq!(ended, closed_for_flooding());
    assert!((20..=22).contains(&refused), "{refused} refusals");
    node.finish().await;
}

async fn publishing_too_fast_is_refused_and_then_closed(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    let mut ada = node.connect(user("ada")).await;
    let (refused, ended) = flood(&mut ada, |n| Command::Publish(Publish::to("r", "n", json!(n)))).await;
    assert_eq!(ended, closed_for_flooding());
    assert!((20..=22).contains(&refused), "{refused} refusals");
    // What was accepted has arrived, in order, and nothing else.
    node.backend().publish("r", "end", json!({})).await;
    let mut numbers = Vec::new();
    loop {
        let event = ben.event().await;
        if event.event_name == "end" {
            break;
        }
        numbers.push(event.json().as_u64().unwrap());
    }
    // The longer it takes, the more are accepted.
    assert!(numbers.len() >= 40 && numbers.is_sorted(), "{numbers:?}");
    node.finish().await;
}

async fn who_waits_as_told_may_go_on(encoding: Encoding) {
    let slow = |config: &mut Config| {
        config.session.publish_rate = Rate {
            per_second: 4,
            burst: 2,
        };
    };
    let node = Node::with(encoding, slow).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let mut told_to_wait = 0;
    for n in 0.. {
        if n >= 5 && told_to_wait > 0 {
            break;
        }
        while let Err(refusal) = ada.try_publish(Publish::to("r", "n", json!(n))).await {
            assert_eq!(refusal.code(), ErrorCode::RateLimited);
            told_to_wait += 1;
            tokio::time::sleep(Duration::from_millis(u64::from(refusal.retry_after_ms))).await;
        }
        ada.expect_event("r", "n").await;
    }
    node.finish().await;
}

async fn commands_that_come_faster_than_they_are_carried_out_wait_and_none_is_lost(encoding: Encoding) {
    let fast = |config: &mut Config| {
        config.session.publish_rate = Rate {
            per_second: 100_000,
            burst: 100_000,
        };
        config.session.commands_waiting_max = 4;
    };
    let node = Node::with(encoding, fast).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(ada.say(Command::Publish(Publish::to("r", "n", json!(n)))).await);
        if n % 10 == 0 {
            ids.push(
                ada.say(Command::PresenceQuery(PresenceQuery { room: "r".to_owned() }))
                    .await,
            );
        }
    }
    for id in ids {
        ada.reply(id).await.unwrap();
    }
    let numbers: Vec<u64> = ada
        .events(300)
        .await
        .iter()
        .map(|event| event.json().as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted());
    node.finish().await;
}

#[tokio::test]
async fn a_flood_of_presence_states_is_refused_and_told_once_for_many() {
    let node = Node::start(Encoding::Json).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join_to_see("r").await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let update = |n: u32| {
        Command::PresenceUpdate(roomcast::proto::client_v1::PresenceUpdate {
            room: "r".to_owned(),
            state_json: Some(n.to_string()),
        })
    };
    let (refused, ended) = flood(&mut ada, update).await;
    assert_eq!(ended, closed_for_flooding());
    assert!(refused >= 20);
    node.until_connections(1).await;
    node.backend().publish("r", "end", json!({})).await;
    let mut changes = 0;
    loop {
        match ben.push().await {
            Said::PresenceDelta(_) => changes += 1,
            Said::Event(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(changes < 40, "{changes} changes for about 40 states");
    node.finish().await;
}
