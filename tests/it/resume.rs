//! Coming back: exactly what was missed, or an honest "not recovered".

mod history;
mod load;
mod restart;

use std::time::Duration;

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::history_query::Anchor as Side;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{History, HistoryQuery, Join, Position, RoomPosition};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Carries, Client, Encoding, InRoom as _, Node, home_rooms, over_encodings, over_nats_in_protobuf, user,
};

over_encodings! {
    a_client_that_comes_back_gets_exactly_what_it_missed_and_then_what_is_live,
    a_client_cut_off_in_the_middle_of_its_replay_goes_on_there,
    who_missed_too_much_recovers_nothing,
    a_position_that_is_not_of_this_order_recovers_nothing,
    rewinding_gives_the_newest_events_and_then_what_is_live,
    home_rooms_are_resumed_while_connecting,
    who_is_not_recovered_gets_the_last_values_of_a_newcomer,
}

over_nats_in_protobuf! {
    a_client_that_comes_back_gets_exactly_what_it_missed_and_then_what_is_live,
    who_is_not_recovered_gets_the_last_values_of_a_newcomer,
}

async fn a_client_that_comes_back_gets_exactly_what_it_missed_and_then_what_is_live(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    for n in 0..5 {
        backend.publish("r", "n", json!(n)).await;
    }
    ada.events(3).await;
    let since = ada.position("r");
    ada.crash();
    for n in 5..10 {
        backend.publish("r", "n", json!(n)).await;
    }
    let mut again = node.connect(user("ada")).await;
    let joined = again.join_since("r", &since).await;
    assert_eq!((joined.recovered, joined.replayed), (true, 7));
    backend.publish("r", "n", json!(10)).await;
    for n in 3..=10 {
        assert_eq!(again.expect_event("r", "n").await.json(), json!(n));
    }
    // Who missed nothing recovers nothing, exactly.
    let here = again.position("r");
    let joined = again.join_since("r", &here).await;
    assert_eq!((joined.recovered, joined.replayed), (true, 0));
    backend.publish("r", "end", json!({})).await;
    again.expect_nothing_before("end").await;
    node.finish().await;
}

async fn a_client_cut_off_in_the_middle_of_its_replay_goes_on_there(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    let start = ada.join("r").await.head.unwrap();
    ada.crash();
    for n in 0..20 {
        backend.publish("r", "n", json!(n)).await;
    }
    let (mut since, mut seen) = (start, Vec::new());
    while seen.len() < 20 {
        let mut ada = node.connect(user("ada")).await;
        assert!(ada.join_since("r", &since).await.recovered);
        for event in ada.events(4).await {
            since = Position {
                epoch: event.epoch.clone(),
                offset: event.offset,
            };
            seen.push(event.json());
        }
        ada.crash();
    }
    assert_eq!(seen, (0..20).map(|n| json!(n)).collect::<Vec<_>>());
    node.finish().await;
}

async fn who_missed_too_much_recovers_nothing(encoding: Encoding) {
    let few = |config: &mut Config| {
        let limits = HistoryLimits {
            events_max: 5,
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    };
    let node = Node::with(encoding, few).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    let since = ada.join("r").await.head.unwrap();
    for n in 0..6 {
        backend.publish("r", "n", json!(n)).await;
    }
    expect_not_recovered(&node, since).await;
    // What is still all there is recovered.
    let second = ada.events(2).await.remove(1);
    let mut again = node.connect(user("ada")).await;
    let since = Position {
        epoch: second.epoch,
        offset: second.offset,
    };
    assert_eq!(again.join_since("r", &since).await.replayed, 5);
    node.finish().await;
}

/// Joins `r` from this position in vain, and gets nothing of the past.
async fn expect_not_recovered(node: &Node, since: Position) {
    let mut ada = node.connect(user("ada")).await;
    let joined = ada.join_since("r", &since).await;
    assert_eq!((joined.recovered, joined.replayed), (false, 0), "since {since:?}");
    let live = format!("live after {}", since.offset);
    node.backend().publish("r", &live, json!({})).await;
    ada.expect_nothing_before(&live).await;
    ada.crash();
}

async fn a_position_that_is_not_of_this_order_recovers_nothing(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    for n in 0..3 {
        backend.publish("r", "n", json!(n)).await;
    }
    let mut ada = node.connect(user("ada")).await;
    let Position { epoch, offset } = ada.join("r").await.head.unwrap();
    let other = if epoch.starts_with('0') { "1" } else { "0" };
    let at = |epoch: &str, offset| Position {
        epoch: epoch.to_owned(),
        offset,
    };
    let strange = [
        at(&format!("{other}{}", &epoch[1..]), offset),
        at("", offset),
        at("junk", offset),
        at(&epoch.to_uppercase(), offset + 1_000_000),
        at(&epoch, offset + 1_000_000),
        at(&epoch, 1 << 53),
        at(&epoch, u64::MAX),
        at(&"f".repeat(10_000), 0),
    ];
    for since in strange {
        expect_not_recovered(&node, since).await;
    }
    // What only JSON can say.
    let numbers = ["-1", "18446744073709551616", "1.5", "\"7\"", "1e400", "[]"];
    if encoding == Encoding::Json {
        for (id, number) in (1000..).zip(numbers) {
            let text =
                format!(r#"{{"id":{id},"join":{{"room":"r","since":{{"epoch":"{epoch}","offset":{number}}}}}}}"#);
            ada.say_raw(Message::text(text)).await;
            let Ok(Said::Joined(joined)) = ada.reply(id).await else {
                panic!("{number} is refused instead of not recovered")
            };
            assert_eq!((joined.recovered, joined.replayed), (false, 0), "{number}");
        }
    }
    node.finish().await;
}

async fn rewinding_gives_the_newest_events_and_then_what_is_live(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    for n in 0..10 {
        backend.publish("r", "n", json!(n)).await;
    }
    let mut ada = node.connect(user("ada")).await;
    let rewind = |rewind| Join {
        rewind,
        ..Join::in_room("r")
    };
    assert_eq!(ada.try_join(rewind(3)).await.unwrap().replayed, 3);
    backend.publish("r", "n", json!(10)).await;
    for n in 7..=10 {
        assert_eq!(ada.expect_event("r", "n").await.json(), json!(n));
    }
    let mut ben = node.connect(user("ben")).await;
    assert_eq!(ben.try_join(rewind(u32::MAX)).await.unwrap().replayed, 11);
    ben.events(11).await;
    backend.publish("r", "end", json!({})).await;
    ben.expect_nothing_before("end").await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn home_rooms_are_resumed_while_connecting(encoding: Encoding) {
    let node = Node::with(encoding, home_rooms).await;
    let backend = node.backend();
    let mut ada = node.open().await;
    let connected = ada.authenticate(&user("ada"), Vec::new()).await.unwrap();
    let rooms: Vec<_> = connected.rooms.iter().map(|joined| joined.room.as_str()).collect();
    assert_eq!(rooms, ["user:ada", "tenant:acme"]);
    let resume = connected.rooms.iter().map(|joined| RoomPosition {
        room: joined.room.clone(),
        position: joined.head.clone(),
    });
    let resume = resume.collect();
    ada.crash();
    backend.publish("user:ada", "missed", json!(1)).await;
    backend.publish("tenant:acme", "missed by all", json!(2)).await;
    let mut again = node.open().await;
    let connected = again.authenticate(&user("ada"), resume).await.unwrap();
    assert!(
        connected
            .rooms
            .iter()
            .all(|joined| joined.recovered && joined.replayed == 1)
    );
    again.expect_event("user:ada", "missed").await;
    again.expect_event("tenant:acme", "missed by all").await;
    // Naming a room that is not joined by itself joins nothing.
    let mut nosy = node.open().await;
    let position = connected.rooms[0].head.clone();
    let room = "user:ada".to_owned();
    let connected = nosy
        .authenticate(&user("ben"), vec![RoomPosition { room, position }])
        .await
        .unwrap();
    let rooms: Vec<_> = connected.rooms.iter().map(|joined| joined.room.as_str()).collect();
    assert_eq!(rooms, ["user:ben", "tenant:acme"]);
    node.finish().await;
}

async fn who_is_not_recovered_gets_the_last_values_of_a_newcomer(encoding: Encoding) {
    let few = |config: &mut Config| {
        let limits = HistoryLimits {
            events_max: 2,
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    };
    let node = Node::with(encoding, few).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    let since = ada.join("r").await.head.unwrap();
    ada.crash();
    backend.publish_last_value("r", "price", json!(1)).await;
    backend.publish_last_value("r", "price", json!(2)).await;
    for n in 0..5 {
        backend.publish("r", "n", json!(n)).await;
    }
    let mut ada = node.connect(user("ada")).await;
    let joined = ada.join_since("r", &since).await;
    assert_eq!((joined.recovered, joined.replayed), (false, 1));
    assert_eq!(ada.expect_event("r", "price").await.json(), json!(2));
    // The position to come back with is the reply's, not that of the value before it.
    assert_eq!(ada.position("r"), joined.head.unwrap());
    backend.publish("r", "live", json!({})).await;
    ada.expect_event("r", "live").await;
    node.finish().await;
}

async fn history(client: &mut Client, from: Option<Side>, limit: u32) -> History {
    history_of(client, "r", from, limit).await
}

async fn history_of(client: &mut Client, room: &str, from: Option<Side>, limit: u32) -> History {
    let query = HistoryQuery {
        room: room.to_owned(),
        anchor: from,
        limit,
    };
    match client.ask(Command::HistoryQuery(query)).await {
        Ok(Said::History(history)) => history,
        other => panic!("no history: {other:?}"),
    }
}

fn numbers(history: &History) -> Vec<u64> {
    history
        .events
        .iter()
        .map(|event| event.json().as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn what_has_become_too_old_is_not_recovered() {
    let brief = |config: &mut Config| {
        let limits = HistoryLimits {
            age_max: Duration::from_millis(50),
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    };
    let node = Node::with(Encoding::Json, brief).await;
    let backend = node.backend();
    let mut ada = node.connect(user("ada")).await;
    let since = ada.join("r").await.head.unwrap();
    backend.publish("r", "n", json!({})).await;
    crate::support::eventually("the event to be forgotten", || async {
        (backend.stats("r").await.history_count == 0).then_some(())
    })
    .await;
    expect_not_recovered(&node, since).await;
    node.finish().await;
}
