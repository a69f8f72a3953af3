//! Many publishers of every kind, many rooms, many members; then a checker reads what everybody wrote down.

mod checker;

use std::collections::HashMap;
use std::time::Instant;

use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Join, Position, PresenceMode};
use roomcast::proto::v1;
use roomcast::proto::v1::publish_stream_response::Outcome;
use roomcast::rate::Rate;
use serde_json::json;
use tokio::task::JoinSet;

use self::checker::{Accepted, Seen, check};
use crate::support::{Caller, Carries as _, Client, Encoding, InRoom as _, Node, Opening, draft, to_room, user};

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

/// What one publisher writes into its events.
fn stamp(publisher: &str, number: usize) -> serde_json::Value {
    json!({"by": publisher, "n": number})
}

/// Which member does not get an event: of some events of the unary publishers, one.
fn left_out(publisher: &str, number: usize) -> Option<usize> {
    let one = publisher.starts_with("unary") && number.is_multiple_of(5);
    one.then_some(number / 5 % MEMBERS)
}

async fn publish_unary(backend: Caller, name: String) -> (String, Accepted) {
    let mut accepted = Accepted::new();
    for n in 0..EVENTS {
        let request = v1::PublishRequest {
            targets: vec![to_room(&room(n))],
            exclude_user_ids: left_out(&name, n)
                .map(|index| format!("member {index}"))
                .into_iter()
                .collect(),
            ..draft("n", stamp(&name, n))
        };
        let result = backend.send(request).await.unwrap().results.remove(0);
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

/// The next event, or that one is not for this client; `None` when it is the last of its room, with the room.
async fn next(client: &mut Client) -> (String, Option<Seen>) {
    loop {
        match client.push().await {
            Said::Event(event) if event.event_name == "end" => return (event.room, None),
            Said::Event(event) => {
                let json = event.json();
                let content = (json["by"].as_str().unwrap().to_owned(), json["n"].as_u64().unwrap());
                return (event.room, Some((event.offset, Some(content))));
            }
            Said::Passed(passed) => return (passed.room, Some((passed.offset, None))),
            Said::PresenceDelta(_) => {}
            other => panic!("{client}: {other:?}"),
        }
    }
}

/// Reads until the last event of each of its rooms has come. The client itself checks each room's chain meanwhile. Some
/// lose their connection again and again, and come back to where they left off.
async fn read(opening: Opening, index: usize, mut client: Client) -> Vec<(String, Seen)> {
    let breaks = index.is_multiple_of(6);
    let mut positions: HashMap<String, Position> = (0..JOINED)
        .map(|other| (room(index + other), client.position(&room(index + other))))
        .collect();
    let mut seen = Vec::new();
    loop {
        for _ in 0..STEADY {
            match next(&mut client).await {
                (room, None) => drop(positions.remove(&room)),
                (room, Some(event)) => {
                    positions.get_mut(&room).expect("nothing comes after the end").offset = event.0;
                    seen.push((room, event));
                }
            }
            if positions.is_empty() {
                return seen;
            }
        }
        if breaks {
            client.crash();
            client = opening.clone().connect(user(&format!("member {index}"))).await;
            for (room, position) in &positions {
                let joined = client.join_since(room, position).await;
                assert!(joined.recovered, "`{room}` from {position:?}");
            }
        }
    }
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
            let join = Join {
                presence: if index % 6 == 1 {
                    PresenceMode::Members.into()
                } else {
                    PresenceMode::None.into()
                },
                ..Join::in_room(&room(index + other))
            };
            client.try_join(join).await.unwrap();
        }
        readers.spawn(async move { (index, read(opening, index, client).await) });
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
    let seen = within_minutes("the members", readers.join_all()).await;
    let deliveries = check(&accepted, &seen);
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
