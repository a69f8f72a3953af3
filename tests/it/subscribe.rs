//! A backend that receives the events of rooms beside the clients in them.

mod away;
mod cursors;
mod patterns;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use roomcast::gateway::Config;
use roomcast::proto::client_v1;
use roomcast::proto::v1;
use roomcast::proto::v1::payload::Content;
use serde_json::json;
use tonic::Streaming;

use crate::support::{Caller, Client, Encoding, Node, TENANT, eventually, over_encodings, reason, user, within};

over_encodings! {
    a_subscriber_sees_what_a_client_sees,
    a_subscriber_is_no_member,
    nothing_is_left_of_200_dropped_subscriptions,
}

/// A request for rooms of the tests' tenant.
pub fn to(rooms: &[&str]) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        tenant: TENANT.to_owned(),
        rooms: rooms.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

/// A running subscription.
pub struct Reader {
    stream: Streaming<v1::SubscribeResponse>,
    /// That of the last response.
    pub cursor: String,
}

impl Reader {
    /// Begins a subscription, and waits until it is in effect.
    pub async fn begin(backend: &Caller, request: v1::SubscribeRequest) -> Self {
        let mut reader = Self::resume(backend, request).await;
        let first = reader.response().await;
        assert!(first.events.is_empty() && first.resyncs.is_empty(), "{first:?}");
        reader
    }

    /// Begins a subscription whose first response may bring something.
    pub async fn resume(backend: &Caller, request: v1::SubscribeRequest) -> Self {
        let stream = within("a subscription", backend.subscribing.clone().subscribe(request)).await;
        Self {
            stream: stream.unwrap().into_inner(),
            cursor: String::new(),
        }
    }

    pub async fn response(&mut self) -> v1::SubscribeResponse {
        let response = within("a response", self.stream.message()).await.unwrap();
        let response = response.expect("the subscription goes on");
        assert!(!response.cursor.is_empty());
        self.cursor.clone_from(&response.cursor);
        response
    }

    /// Reads so many events; no room begins anew before them.
    pub async fn events(&mut self, count: usize) -> Vec<v1::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.response().await;
            assert!(response.resyncs.is_empty() && !response.partial, "{response:?}");
            events.extend(response.events);
        }
        assert_eq!(events.len(), count);
        events
    }

    /// Reads until the stream ends, and returns why.
    pub async fn end(&mut self) -> tonic::Status {
        loop {
            match within("the end", self.stream.message()).await {
                Ok(Some(response)) => self.cursor = response.cursor,
                Ok(None) => panic!("a subscription ends with a status"),
                Err(status) => return status,
            }
        }
    }
}

/// Hashes of the events of each room: position, name and payload, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hashes(BTreeMap<String, u64>);

impl Hashes {
    fn add(&mut self, room: &str, epoch: &str, offset: u64, name: &str, payload: &str) {
        let last = self.0.entry(room.to_owned()).or_default();
        let mut hasher = DefaultHasher::new();
        (*last, epoch, offset, name, payload).hash(&mut hasher);
        *last = hasher.finish();
    }

    pub fn of_subscriber(events: &[v1::Event]) -> Self {
        let mut hashes = Self::default();
        for event in events {
            let position = event.position.as_ref().unwrap();
            let Some(Content::Json(text)) = event.payload.as_ref().and_then(|payload| payload.content.as_ref()) else {
                panic!("no JSON: {event:?}")
            };
            hashes.add(&event.room, &position.epoch, position.offset, &event.event_name, text);
        }
        hashes
    }

    pub fn of_client(events: &[client_v1::Event]) -> Self {
        let mut hashes = Self::default();
        for event in events {
            let content = event.payload.as_ref().and_then(|payload| payload.content.as_ref());
            let Some(client_v1::payload::Content::Json(text)) = content else {
                panic!("no JSON: {event:?}")
            };
            hashes.add(&event.room, &event.epoch, event.offset, &event.event_name, text);
        }
        hashes
    }
}

/// Goes on from each cursor, with the number of events that were read before it: it gives all that were told since.
pub async fn expect_the_rest_after_each(
    backend: &Caller,
    request: &v1::SubscribeRequest,
    cursors: Vec<(String, usize)>,
    told: &[v1::Event],
) {
    for (cursor, read_before) in cursors {
        let after = v1::SubscribeRequest {
            cursor,
            ..request.clone()
        };
        let mut again = Reader::resume(backend, after).await;
        let rest = again.events(told.len() - read_before).await;
        assert_eq!(
            Hashes::of_subscriber(&rest),
            Hashes::of_subscriber(&told[read_before..])
        );
    }
}

/// Publishes `count` events to each room from concurrent publishers, by turns through each backend.
pub async fn publish_to_all(backends: &[Caller], rooms: &[&str], count: usize) {
    let publishing = rooms.iter().enumerate().flat_map(|(at, room)| {
        (0..2).map(move |publisher| {
            let backend = backends[(at + publisher) % backends.len()].clone();
            async move {
                for number in (publisher..count).step_by(2) {
                    backend.publish(room, &format!("e{number}"), json!({"n": number})).await;
                }
            }
        })
    });
    futures_util::future::join_all(publishing).await;
}

async fn client_in(node: &Node, rooms: &[&str]) -> Client {
    let mut ada = node.connect(user("ada")).await;
    for room in rooms {
        ada.join(room).await;
    }
    ada
}

/// A roomier queue: what a test reads late must not be too late.
fn patient(config: &mut Config) {
    config.api.subscriptions.waiting_events_max = 100_000;
}

async fn a_subscriber_sees_what_a_client_sees(encoding: Encoding) {
    const ROOMS: [&str; 3] = ["r", "s", "project:7"];
    const EACH: usize = 40;
    let node = Node::with(encoding, patient).await;
    let backend = node.backend();
    let mut ada = client_in(&node, &ROOMS).await;
    let mut reader = Reader::begin(&backend, to(&ROOMS)).await;
    let backends = [backend.clone()];
    let publishing = publish_to_all(&backends, &ROOMS, EACH);
    let count = ROOMS.len() * EACH;
    let ((), seen, told) = tokio::join!(publishing, ada.events(count), reader.events(count));
    assert_eq!(Hashes::of_client(&seen), Hashes::of_subscriber(&told));
    ada.close().await;
    node.finish().await;
}

async fn a_subscriber_is_no_member(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let backend = node.backend();
    let mut reader = Reader::begin(&backend, to(&["r"])).await;
    assert_eq!(backend.stats("r").await.member_count, 0);
    let published = backend.publish("r", "e", json!(1)).await;
    node.assert_reached(published.reached, 0);
    assert_eq!(reader.events(1).await[0].event_name, "e");
    node.finish().await;
}

fn roomy(config: &mut Config) {
    config.api.subscriptions.per_service_max = 200;
    config.api.streams_max = 300;
}

async fn nothing_is_left_of_200_dropped_subscriptions(encoding: Encoding) {
    let node = Node::with(encoding, roomy).await;
    let backend = node.backend();
    let mut readers = Vec::new();
    for number in 0..200 {
        let by_pattern = v1::SubscribeRequest {
            pattern: "quiet:{id}".to_owned(),
            ..to(&[])
        };
        let named = to(&[&format!("quiet:{number}")]);
        let request = if number % 2 == 0 { named } else { by_pattern };
        readers.push(Reader::begin(&backend, request).await);
    }
    let status = backend.subscribing.clone().subscribe(to(&["r"])).await.unwrap_err();
    assert_eq!(reason(&status), "SUBSCRIPTION_LIMIT");
    assert_eq!(node.bus_usage().rooms, 100);
    drop(readers);
    eventually("the subscriptions to end", || async {
        let usage = node.bus_usage();
        (usage.rooms == 0 && usage.in_flight_events == 0).then_some(())
    })
    .await;
    eventually("a subscription to be let in", || async {
        backend.subscribing.clone().subscribe(to(&["r"])).await.ok()
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn two_nodes_tell_the_same_to_clients_and_subscribers_of_both() {
    const ROOMS: [&str; 4] = ["r", "s", "t", "u"];
    const EACH: usize = 60;
    let server = crate::support::nats::NatsServer::start().await;
    let url = server.url();
    let node = Node::several(Encoding::Json, 2, move |config| {
        patient(config);
        config.nats.as_mut().unwrap().servers = vec![url.clone()];
    })
    .await;
    let backends = [node.of_several(0).backend(), node.of_several(1).backend()];
    let mut ada = node.of_several(0).connect(user("ada")).await;
    for room in ROOMS {
        ada.join(room).await;
    }
    let mut first = Reader::begin(&backends[0], to(&ROOMS)).await;
    let mut second = Reader::begin(&backends[1], to(&ROOMS)).await;
    let count = ROOMS.len() * EACH;
    let ((), seen, one, other) = tokio::join!(
        publish_to_all(&backends, &ROOMS, EACH),
        ada.events(count),
        first.events(count),
        second.events(count)
    );
    let expected = Hashes::of_client(&seen);
    assert_eq!(Hashes::of_subscriber(&one), expected);
    assert_eq!(Hashes::of_subscriber(&other), expected);
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_drained_node_ends_the_subscription() {
    let mut node = Node::start(Encoding::Json).await;
    let mut reader = Reader::begin(&node.backend(), to(&["r"])).await;
    let (status, ()) = tokio::join!(reader.end(), node.shut_down());
    assert_eq!(reason(&status), "DRAINING");
}
