//! Coming back: exactly what was missed, or an honest "not recovered".

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::history_query::Anchor as Side;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{History, HistoryQuery, Join, Position, PresenceMode, RoomPosition};
use roomcast::rate::Rate;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Carries, Client, Encoding, InRoom as _, Node, home_rooms, over_encodings, over_nats, over_nats_in_protobuf, reason,
    user, within,
};

over_encodings! {
    a_client_that_comes_back_gets_exactly_what_it_missed_and_then_what_is_live,
    a_client_cut_off_in_the_middle_of_its_replay_goes_on_there,
    who_missed_too_much_recovers_nothing,
    a_position_that_is_not_of_this_order_recovers_nothing,
    rewinding_gives_the_newest_events_and_then_what_is_live,
    home_rooms_are_resumed_while_connecting,
    a_join_under_load_has_no_seam,
    joining_again_loses_nothing_and_repeats_nothing,
    history_is_read_page_by_page_in_both_directions,
    a_page_says_whether_events_or_bytes_have_cut_it,
    who_is_not_recovered_gets_the_last_values_of_a_newcomer,
    ; alone: a_restart_is_a_new_epoch,
}

over_nats_in_protobuf! {
    a_client_that_comes_back_gets_exactly_what_it_missed_and_then_what_is_live,
    a_page_says_whether_events_or_bytes_have_cut_it,
    who_is_not_recovered_gets_the_last_values_of_a_newcomer,
    a_raised_limit_recovers_no_hole,
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

async fn history_is_read_page_by_page_in_both_directions(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    for n in 0..25 {
        backend.publish("r", "n", json!(n)).await;
    }
    let mut ada = node.connect(user("ada")).await;
    let newest = history(&mut ada, None, 10).await;
    assert_eq!((numbers(&newest), newest.more), ((15..25).collect(), true));
    let (mut oldest, mut seen) = (newest, Vec::new());
    while let Some(first) = oldest.events.first() {
        seen.splice(0..0, numbers(&oldest));
        let before = Position {
            epoch: first.epoch.clone(),
            offset: first.offset,
        };
        oldest = history(&mut ada, Some(Side::Before(before)), 10).await;
    }
    assert_eq!(seen, (0..25).collect::<Vec<u64>>());
    let head = oldest.head.clone().unwrap();
    let mut after = Position {
        offset: 0,
        ..head.clone()
    };
    let mut seen = Vec::new();
    loop {
        let page = history(&mut ada, Some(Side::After(after.clone())), 10).await;
        assert!(page.complete);
        seen.extend(numbers(&page));
        let Some(last) = page.events.last() else { break };
        after.offset = last.offset;
    }
    assert_eq!((seen, after), ((0..25).collect::<Vec<u64>>(), head));
    let stranger = Position {
        epoch: "0123456789abcdef".to_owned(),
        offset: 3,
    };
    let page = history(&mut ada, Some(Side::After(stranger)), 0).await;
    assert!(!page.complete && page.events.is_empty());
    node.finish().await;
}

/// Twenty events of which seventeen fit into the bytes of a page.
async fn a_page_says_whether_events_or_bytes_have_cut_it(encoding: Encoding) {
    let large = |config: &mut Config| {
        let limits = HistoryLimits {
            bytes_max: 16 << 20,
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    };
    let node = Node::with(encoding, large).await;
    let backend = node.backend();
    let text = "x".repeat(60_000);
    for n in 0..20 {
        backend.publish("r", "n", json!([n, text])).await;
    }
    let mut ada = node.connect(user("ada")).await;
    let newest = history(&mut ada, None, 300).await;
    assert_eq!((newest.events.len(), newest.more), (17, true));
    let first = &newest.events[0];
    let before = Side::Before(Position {
        epoch: first.epoch.clone(),
        offset: first.offset,
    });
    let rest = history(&mut ada, Some(before.clone()), 300).await;
    assert_eq!((rest.events.len(), rest.more), (3, false));
    // A full page after which nothing comes, and one after which something does.
    for (limit, more) in [(3, false), (2, true)] {
        let page = history(&mut ada, Some(before.clone()), limit).await;
        assert_eq!((page.events.len(), page.more), (limit as usize, more));
    }
    let mut after = Position {
        offset: 0,
        ..newest.head.unwrap()
    };
    let (mut read, mut pages) = (0, 0);
    loop {
        let page = history(&mut ada, Some(Side::After(after.clone())), 10).await;
        assert!(page.complete);
        read += page.events.len();
        pages += 1;
        after.offset = page.events.last().unwrap().offset;
        if !page.more {
            break;
        }
    }
    assert_eq!((read, pages), (20, 2));
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
