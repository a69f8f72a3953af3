//! Many publishers of every kind, many rooms, many members; then a checker reads what everybody wrote down.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::{Event, Position};
use roomcast::proto::v1;
use roomcast::proto::v1::publish_stream_response::Outcome;
use roomcast::rate::Rate;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Caller, Carries as _, Client, Encoding, Node, Opening, draft, to_room, user};

const ROOMS: usize = 12;
const MEMBERS: usize = 48;
/// The rooms of each member.
const JOINED: usize = 6;
/// Publishers of each kind: unary, stream, client.
const PUBLISHERS: usize = 4;
const EVENTS: usize = 400;
/// How many events a client whose connection breaks reads between two breaks.
const STEADY: usize = 250;

fn room(index: usize) -> String {
    format!("room {}", index % ROOMS)
}

fn unlimited(config: &mut Config) {
    let rate = Rate {
        per_second: 1_000_000,
        burst: 1_000_000,
    };
    (config.session.publish_rate, config.session.join_rate) = (rate, rate);
    config.api.publish_rate = rate;
    // Who comes back finds everything, however long it took.
    let limits = HistoryLimits {
        events_max: 10_000,
        bytes_max: 64 << 20,
        ..Default::default()
    };
    config.bus.history = HistoryRules::new([], limits);
    (config.session.replay.events_max, config.session.replay.bytes_max) = (limits.events_max, limits.bytes_max);
}

/// What a publisher was told: which room, its own number there, and the offset.
type Accepted = Vec<(String, u64)>;

/// What one publisher writes into its events.
fn stamp(publisher: &str, number: usize) -> serde_json::Value {
    json!({"by": publisher, "n": number})
}

async fn publish_unary(backend: Caller, name: String) -> (String, Accepted) {
    let mut accepted = Accepted::new();
    for n in 0..EVENTS {
        let result = backend.publish(&room(n), "n", stamp(&name, n)).await;
        accepted.push((result.room, result.position.unwrap().offset));
    }
    (name, accepted)
}

async fn publish_stream(backend: Caller, name: String) -> (String, Accepted) {
    let requests: Vec<_> = (0..EVENTS)
        .map(|n| v1::PublishStreamRequest {
            sequence: n as u64,
            request: Some(backend.stamped(v1::PublishRequest {
                targets: vec![to_room(&room(n))],
                ..draft("n", stamp(&name, n))
            })),
        })
        .collect();
    let stream = backend
        .publishing
        .clone()
        .publish_stream(tokio_stream::iter(requests))
        .await;
    let mut answers = stream.unwrap().into_inner();
    let mut accepted = Accepted::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let Some(Outcome::Response(mut response)) = answer.outcome else {
            panic!("{answer:?}")
        };
        let result = response.results.remove(0);
        accepted.push((result.room, result.position.unwrap().offset));
    }
    (name, accepted)
}

async fn publish_as_client(mut client: Client, name: String) -> (String, Accepted) {
    let mut accepted = Accepted::new();
    for n in 0..EVENTS {
        let published = client.publish(&room(n), "n", stamp(&name, n)).await;
        accepted.push((room(n), published.position.unwrap().offset));
    }
    (name, accepted)
}

/// Reads until the last event of each of its rooms has come. The client itself checks each room's chain meanwhile.
async fn read_to_the_end(mut client: Client) -> Vec<Event> {
    let (mut events, mut open) = (Vec::new(), JOINED);
    while open > 0 {
        let event = client.event().await;
        if event.name == "end" {
            open -= 1;
        } else {
            events.push(event);
        }
    }
    events
}

/// The same, by somebody whose connection breaks again and again, and who comes back to where it left off.
async fn read_with_crashes(opening: Opening, index: usize, mut client: Client) -> Vec<Event> {
    let mut positions: HashMap<String, Position> = HashMap::new();
    for other in 0..JOINED {
        let room = room(index + other);
        positions.insert(room.clone(), client.position(&room));
    }
    let mut events = Vec::new();
    while !positions.is_empty() {
        for _ in 0..STEADY {
            let event = client.event().await;
            if event.name == "end" {
                positions.remove(&event.room);
            } else {
                let position = positions.get_mut(&event.room).expect("nothing comes after the end");
                position.offset = event.offset;
                events.push(event);
            }
            if positions.is_empty() {
                return events;
            }
        }
        client.crash();
        client = opening.clone().connect(user(&format!("member {index}"))).await;
        for (room, position) in &positions {
            assert!(
                client.join_since(room, position).await.recovered,
                "`{room}` from {position:?}"
            );
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_published_reaches_every_member_once_in_one_order() {
    let start = Instant::now();
    let node = Node::with(Encoding::Json, unlimited).await;
    let mut readers = JoinSet::new();
    for index in 0..MEMBERS {
        let encoding = if index % 2 == 0 {
            Encoding::Json
        } else {
            Encoding::Protobuf
        };
        let opening = node.opening().speaking(encoding);
        let mut client = opening.clone().connect(user(&format!("member {index}"))).await;
        for other in 0..JOINED {
            client.join(&room(index + other)).await;
        }
        readers.spawn(async move {
            let events = match index % 6 {
                0 => read_with_crashes(opening, index, client).await,
                _ => read_to_the_end(client).await,
            };
            (index, events)
        });
    }
    let mut publishers = JoinSet::new();
    for index in 0..PUBLISHERS {
        publishers.spawn(publish_unary(node.backend(), format!("unary {index}")));
        publishers.spawn(publish_stream(node.backend(), format!("stream {index}")));
        let name = format!("client {index}");
        publishers.spawn(publish_as_client(node.connect(user(&name)).await, name));
    }
    let accepted = within_minutes("the publishers", publishers.join_all()).await;
    for index in 0..ROOMS {
        node.backend().publish(&room(index), "end", json!({})).await;
    }
    let read = within_minutes("the members", readers.join_all()).await;
    let deliveries = check(&accepted, &read);
    assert!(
        deliveries >= 100_000,
        "{deliveries} deliveries are too few to show anything"
    );
    println!(
        "{deliveries} deliveries, {} events, {:?}",
        PUBLISHERS * 3 * EVENTS,
        start.elapsed()
    );
    node.finish().await;
}

async fn within_minutes<T>(what: &str, future: impl Future<Output = T>) -> T {
    let patient = tokio::time::timeout(std::time::Duration::from_secs(240), future);
    patient.await.unwrap_or_else(|_| panic!("waited 4 min for {what}"))
}

/// Checks everything everybody has seen against what the publishers were told; answers how many deliveries there were.
fn check(accepted: &[(String, Accepted)], read: &[(usize, Vec<Event>)]) -> usize {
    // The one order of each room, by what the publishers were told: offset to publisher and number.
    let mut orders: HashMap<&str, Vec<(u64, &str, u64)>> = HashMap::new();
    for (name, positions) in accepted {
        assert_eq!(positions.len(), EVENTS);
        for (n, (room, offset)) in positions.iter().enumerate() {
            orders.entry(room).or_default().push((*offset, name, n as u64));
        }
    }
    for (room, order) in &mut orders {
        order.sort_unstable();
        let offsets: HashSet<u64> = order.iter().map(|(offset, ..)| *offset).collect();
        assert_eq!(offsets.len(), order.len(), "`{room}`: one offset for two events");
        // A publisher's own order is kept.
        let mut last: HashMap<&str, u64> = HashMap::new();
        for (_, name, n) in order {
            let before = last.insert(name, *n);
            assert!(
                before.is_none_or(|before| before < *n),
                "`{room}`: {name} {before:?} then {n}"
            );
        }
    }
    let mut deliveries = 0;
    for (member, events) in read {
        let mut seen: HashMap<&str, Vec<(u64, String, u64)>> = HashMap::new();
        for event in events {
            let json = event.json();
            let (by, n) = (json["by"].as_str().unwrap().to_owned(), json["n"].as_u64().unwrap());
            seen.entry(&event.room).or_default().push((event.offset, by, n));
        }
        assert_eq!(seen.len(), JOINED, "member {member}");
        for (room, seen) in seen {
            deliveries += seen.len();
            let order = &orders[room];
            let same = seen.len() == order.len()
                && seen
                    .iter()
                    .zip(order)
                    .all(|((a, by, n), (b, name, m))| a == b && by == name && n == m);
            assert!(same, "member {member} saw another order of `{room}`, or not all of it");
        }
    }
    deliveries
}

/// The checker itself has to see what is wrong.
mod checker {
    use super::*;

    fn event(room: &str, offset: u64, by: &str, n: usize) -> Event {
        Event {
            room: room.to_owned(),
            offset,
            payload: Some(roomcast::proto::client_v1::Payload {
                content: Some(roomcast::proto::client_v1::payload::Content::Json(
                    stamp(by, n).to_string(),
                )),
            }),
            ..Event::default()
        }
    }

    type Run = (Vec<(String, Accepted)>, Vec<(usize, Vec<Event>)>);

    /// One publisher into as many rooms as a member has, and a member that saw all of it.
    fn run() -> Run {
        let room = |n: usize| format!("room {}", n % JOINED);
        let accepted = (0..EVENTS).map(|n| (room(n), n as u64 + 1)).collect();
        let events = (0..EVENTS).map(|n| event(&room(n), n as u64 + 1, "p", n)).collect();
        (vec![("p".to_owned(), accepted)], vec![(0, events)])
    }

    #[test]
    fn what_is_right_passes() {
        let (accepted, read) = run();
        assert_eq!(check(&accepted, &read), EVENTS);
    }

    #[test]
    #[should_panic(expected = "or not all of it")]
    fn a_loss_is_seen() {
        let (accepted, mut read) = run();
        read[0].1.remove(77);
        check(&accepted, &read);
    }

    #[test]
    #[should_panic(expected = "or not all of it")]
    fn a_duplicate_is_seen() {
        let (accepted, mut read) = run();
        let twice = read[0].1[77].clone();
        read[0].1.insert(78, twice);
        check(&accepted, &read);
    }

    #[test]
    #[should_panic(expected = "another order")]
    fn another_order_is_seen() {
        let (accepted, mut read) = run();
        read[0].1.swap(77, 77 + JOINED);
        check(&accepted, &read);
    }

    #[test]
    #[should_panic(expected = "then")]
    fn a_publisher_whose_order_is_not_kept_is_seen() {
        let (mut accepted, read) = run();
        let other = accepted[0].1[77 + JOINED].1;
        accepted[0].1[77 + JOINED].1 = std::mem::replace(&mut accepted[0].1[77].1, other);
        check(&accepted, &read);
    }
}
