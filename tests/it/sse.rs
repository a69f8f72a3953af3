//! Event streams: `GET /v1/events`, over one gateway and over two, between which a reader comes back by turns.

mod ends;
mod reader;
mod requests;

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::v1;
use serde_json::json;

use self::reader::{Asking, Reader};
use crate::support::{Encoding, Node, alone_and_over_nats, ask_of, draft, home_rooms, reason, to_room, user, within};

alone_and_over_nats! {
    a_stream_receives_events_as_they_were_published,
    a_stream_that_comes_back_continues_exactly_in_every_room,
    a_stream_cut_during_its_replay_continues_there,
    a_stream_that_missed_too_much_is_told_so,
    home_rooms_are_part_of_the_stream_and_resumed,
    an_excluded_reader_is_resumed_behind_what_it_passed,
    a_reader_counts_as_a_connection_of_its_user,
    a_stream_cannot_answer_an_ask,
}

async fn a_stream_receives_events_as_they_were_published() {
    let node = Node::start(Encoding::Json).await;
    let (mut payloads, recovered) = Asking::of(&user("ada"), "?room=r").join(&node, ["r"]).await;
    assert_eq!(recovered, [false]);
    assert!((3000..=4500).contains(&payloads.retry_ms.unwrap()));
    let (mut envelopes, _) = Asking::of(&user("ada"), "?room=r&envelope=1").join(&node, ["r"]).await;
    let mut native = node.connect(user("ada")).await;
    native.join("r").await;
    let backend = node.backend();
    let text = "{\"b\": 1.00000000000000000001,\r\n \"a\":\"\\u2028\"}";
    for payload in [
        v1::payload::Content::Json(text.to_owned()),
        v1::payload::Content::Binary(vec![0, 255].into()),
    ] {
        let request = v1::PublishRequest {
            targets: vec![to_room("r")],
            payload: Some(v1::Payload { content: Some(payload) }),
            ..draft("news", json!(0))
        };
        backend.send(request).await.unwrap();
    }
    assert_eq!(payloads.expect("news").await.data, text.replace("\r\n", "\n"));
    assert_eq!(payloads.expect("news").await.json(), json!("AP8="));
    let (first, second) = (envelopes.expect("news").await, envelopes.expect("news").await);
    let event = native.expect_event("r", "news").await;
    assert_eq!(first.json()["offset"], event.offset);
    assert_eq!(first.json()["room"], "r");
    assert!(first.data.contains("1.00000000000000000001"), "{first:?}");
    assert_eq!(second.json()["binary"], "AP8=");
    native.expect_event("r", "news").await;
    node.finish().await;
}

/// Publishes to two rooms by turns, these numbers.
async fn publish(node: &Node, numbers: std::ops::Range<u32>) {
    let backend = node.backend();
    for n in numbers {
        for room in ["a", "b c"] {
            backend.publish(room, room, json!(n)).await;
        }
    }
}

/// Reads events of both rooms until each has come to this number; each goes on where it was.
async fn read(reader: &mut Reader, next: &mut [u32; 2], end: u32) {
    while *next != [end, end] {
        let event = reader.next().await;
        if event.name == "roomcast:joined" {
            assert_eq!(event.json()["recovered"], true);
            continue;
        }
        let room = usize::from(event.name != "a");
        assert_eq!(event.json(), next[room], "{event:?}");
        next[room] += 1;
    }
}

const BOTH: &str = "?room=a&room=b+c";

async fn a_stream_that_comes_back_continues_exactly_in_every_room() {
    let node = Node::start(Encoding::Json).await;
    let asking = Asking::of(&user("ada"), BOTH);
    let (mut reader, _) = asking.join(&node, ["a", "b c"]).await;
    let mut next = [0, 0];
    publish(&node, 0..3).await;
    read(&mut reader, &mut next, 3).await;
    for round in 0..4 {
        // Whatever was sent and not read is read by the next one.
        let (id, start) = (reader.id.clone(), 3 + round * 3);
        reader.cut().await;
        publish(&node, start..start + 2).await;
        reader = asking.clone().after(&id).open(&node).await;
        reader.expect("roomcast:connected").await;
        assert_eq!(reader.expect("roomcast:joined").await.json()["replayed"], 2);
        publish(&node, start + 2..start + 3).await;
        read(&mut reader, &mut next, start + 3).await;
    }
    // By the query as well, by another user, and to rooms in another order.
    let query = format!("?room=b%20c&room=a&last_event_id={}", reader.id);
    publish(&node, 15..16).await;
    let mut other = Asking::of(&user("bob"), &query).open(&node).await;
    other.expect("roomcast:connected").await;
    read(&mut other, &mut next, 16).await;
    node.finish().await;
}

async fn a_stream_cut_during_its_replay_continues_there() {
    let node = Node::start(Encoding::Json).await;
    let asking = Asking::of(&user("ada"), BOTH);
    let (reader, _) = asking.join(&node, ["a", "b c"]).await;
    let mut id = reader.id.clone();
    reader.cut().await;
    publish(&node, 0..6).await;
    let mut next = [0, 0];
    // Each one gets one event further, and is cut before the second room is joined as long as the first is behind.
    for _ in 0..12 {
        let mut reader = asking.clone().after(&id).open(&node).await;
        reader.expect("roomcast:connected").await;
        loop {
            let event = reader.next().await;
            if event.name == "roomcast:joined" {
                assert_eq!(event.json()["recovered"], true);
                continue;
            }
            let room = usize::from(event.name != "a");
            assert_eq!(event.json(), next[room], "{event:?}");
            next[room] += 1;
            id = event.id;
            break;
        }
    }
    assert_eq!(next, [6, 6]);
    node.finish().await;
}

async fn a_stream_that_missed_too_much_is_told_so() {
    let few = |config: &mut Config| {
        let limits = HistoryLimits {
            events_max: 3,
            ..Default::default()
        };
        config.bus.history = HistoryRules::new([], limits);
    };
    let node = Node::with(Encoding::Json, few).await;
    let asking = Asking::of(&user("ada"), BOTH);
    let (reader, _) = asking.join(&node, ["a", "b c"]).await;
    let id = reader.id.clone();
    reader.cut().await;
    let backend = node.backend();
    for n in 0..4 {
        backend.publish("a", "n", json!(n)).await;
    }
    backend.publish("b c", "n", json!(9)).await;
    let (mut reader, recovered) = asking.clone().after(&id).join(&node, ["a", "b c"]).await;
    assert_eq!(recovered, [false, true], "each room for itself");
    assert_eq!(reader.expect("n").await.json(), json!(9));
    // Nothing that cannot be ours is taken for a position, and none is passed over in silence.
    for id in ["0", "AQA", "nonsense", "AQEAAAAAAAAAAA", "*", &"A".repeat(5000)] {
        let (_, recovered) = asking.clone().after(id).join(&node, ["a", "b c"]).await;
        assert_eq!(recovered, [false, false], "{id}");
    }
    node.finish().await;
}

async fn home_rooms_are_part_of_the_stream_and_resumed() {
    let node = Node::with(Encoding::Json, home_rooms).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let homes = ["user:ada", "tenant:acme", "r"];
    let (reader, _) = asking.join(&node, homes).await;
    let id = reader.id.clone();
    reader.cut().await;
    node.backend().publish("user:ada", "missed", json!(1)).await;
    let mut again = asking.clone().after(&id).open(&node).await;
    again.expect("roomcast:connected").await;
    for (room, replayed) in [("user:ada", 1), ("tenant:acme", 0)] {
        let joined = again.expect("roomcast:joined").await.json();
        assert_eq!((&joined["room"], &joined["recovered"]), (&json!(room), &json!(true)));
        assert_eq!(joined["replayed"], replayed);
    }
    again.expect("missed").await;
    assert_eq!(again.expect("roomcast:joined").await.json()["room"], "r");
    node.finish().await;
}

async fn an_excluded_reader_is_resumed_behind_what_it_passed() {
    let node = Node::start(Encoding::Json).await;
    let asking = Asking::of(&user("ada"), "?room=r");
    let (mut reader, _) = asking.join(&node, ["r"]).await;
    let backend = node.backend();
    for name in ["hidden", "hidden"] {
        let request = v1::PublishRequest {
            targets: vec![to_room("r")],
            exclude_user_ids: vec!["ada".to_owned()],
            ..draft(name, json!(0))
        };
        backend.send(request).await.unwrap();
    }
    backend.publish("r", "shown", json!(1)).await;
    let id = reader.expect("shown").await.id;
    reader.cut().await;
    let mut again = asking.after(&id).open(&node).await;
    again.expect("roomcast:connected").await;
    let joined = again.expect("roomcast:joined").await.json();
    assert_eq!((&joined["recovered"], &joined["replayed"]), (&json!(true), &json!(0)));
    node.finish().await;
}

async fn a_reader_counts_as_a_connection_of_its_user() {
    let node = Node::start(Encoding::Json).await;
    let mut watcher = Asking::of(&user("bob"), "?room=r&presence=members").open(&node).await;
    watcher.expect("roomcast:connected").await;
    let roster = watcher.expect("roomcast:joined").await.json();
    assert_eq!(roster["presence"]["memberCount"], 1);
    let (reader, _) = Asking::of(&user("ada"), "?room=r").join(&node, ["r"]).await;
    assert_eq!(
        watcher.expect("roomcast:presence").await.json()["joined"][0]["userId"],
        "ada"
    );
    let stats = node.backend().stats("r").await;
    assert_eq!(stats.member_count, 2);
    reader.cut().await;
    assert_eq!(
        watcher.expect("roomcast:presence").await.json()["leftUserIds"][0],
        "ada"
    );
    let ended = node.until_connections(1);
    within("the reader to be forgotten", ended).await;
    node.finish().await;
}

async fn a_stream_cannot_answer_an_ask() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let mut reader = Asking::of(&user("ada"), "?room=r").open(&node).await;
    let connected = reader.expect("roomcast:connected").await.json();
    let request = ask_of(connected["connectionId"].as_str().unwrap(), "confirm", &json!(1));
    let refused = backend.ask(request).await.unwrap_err();
    assert_eq!(reason(&refused), "CANNOT_ANSWER");
    reader.expect("roomcast:joined").await;
    backend.publish("r", "end", json!(1)).await;
    reader.expect("end").await;
    reader.cut().await;
    node.finish().await;
}
