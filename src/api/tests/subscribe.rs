//! `SubscribeService`: its requests, its bounds, its ends.

mod refusals;

use std::time::Duration;

use futures_util::StreamExt as _;
use prost::Message as _;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};
use tonic_types::pb;

use super::support::{Api, Authorized, Caller, ROOT, Setup, event, json, refusal, to_room, token};
use crate::api::{Config, Credentials, Scope, Subscriptions};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::bus::memory;
use crate::lease::Lease;
use crate::proto::v1;
use crate::proto::v1::subscribe_service_client::SubscribeServiceClient;

pub(super) async fn subscriber(api: &Api, token: &'static str) -> SubscribeServiceClient<Authorized> {
    SubscribeServiceClient::with_interceptor(api.channel().await, Caller::with(token))
}

/// A subscriber whose streams take little that it does not read.
async fn narrow(api: &Api) -> SubscribeServiceClient<Authorized> {
    let endpoint = Endpoint::from_shared(format!("http://{}", api.address)).unwrap();
    let channel = endpoint.initial_stream_window_size(1024).connect().await.unwrap();
    SubscribeServiceClient::with_interceptor(channel, Caller::with(ROOT))
}

fn to(rooms: &[&str]) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        tenant: "a".to_owned(),
        rooms: rooms.iter().map(ToString::to_string).collect(),
        ..v1::SubscribeRequest::default()
    }
}

/// A subscription that is in effect, and its first cursor.
async fn begin(
    client: &mut SubscribeServiceClient<Authorized>,
    request: v1::SubscribeRequest,
) -> (Streaming<v1::SubscribeResponse>, String) {
    let mut stream = client.subscribe(request).await.unwrap().into_inner();
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.events.is_empty() && first.resyncs.is_empty(), "{first:?}");
    assert!(!first.cursor.is_empty());
    (stream, first.cursor)
}

async fn publish(api: &Api, room: &str, text: &str) {
    let request = v1::PublishRequest {
        targets: vec![to_room(room)],
        payload: json(text),
        ..event()
    };
    api.publisher().await.publish(request).await.unwrap();
}

fn with(subscriptions: Subscriptions) -> Setup {
    Setup {
        config: Config {
            subscriptions,
            ..Config::default()
        },
        ..Setup::default()
    }
}

/// The cursor in the details of a refusal.
fn cursor_of(status: &Status) -> String {
    let details = pb::Status::decode(status.details()).unwrap().details;
    let ended = details
        .iter()
        .find(|any| any.type_url.ends_with("/roomcast.v1.SubscriptionEnded"));
    v1::SubscriptionEnded::decode(&*ended.unwrap().value).unwrap().cursor
}

/// Reads to the end: the events, the last cursor, and the status.
async fn read_out(mut stream: Streaming<v1::SubscribeResponse>) -> (Vec<v1::Event>, String, Status) {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    loop {
        match stream.next().await.unwrap() {
            Ok(response) => {
                events.extend(response.events);
                cursor = response.cursor;
            }
            Err(status) => return (events, cursor, status),
        }
    }
}

#[tokio::test]
async fn an_event_arrives_as_it_is_kept() {
    let api = Api::start().await;
    let (mut stream, first) = begin(&mut subscriber(&api, ROOT).await, to(&["r", "s"])).await;
    let request = v1::PublishRequest {
        actor_user_id: "ada".to_owned(),
        exclude_user_ids: vec!["bob".to_owned()],
        retention: v1::Retention::LastValue.into(),
        ..event()
    };
    api.publisher().await.publish(request).await.unwrap();
    let response = stream.next().await.unwrap().unwrap();
    assert_ne!(response.cursor, first);
    let history = v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        ..Default::default()
    };
    let history = api.steward().await.list_history(history).await.unwrap().into_inner();
    assert_eq!(response.events, history.events);
    assert_eq!(response.events.len(), 1);
}

fn after(cursor: &str, request: v1::SubscribeRequest) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        cursor: cursor.to_owned(),
        ..request
    }
}

#[tokio::test]
async fn a_cursor_goes_on_exactly() {
    let api = Api::start().await;
    let mut client = subscriber(&api, ROOT).await;
    let (stream, cursor) = begin(&mut client, to(&["r"])).await;
    drop(stream);
    for text in ["1", "2", "3"] {
        publish(&api, "r", text).await;
    }
    let again = after(&cursor, to(&["r"]));
    let (mut stream, _) = begin(&mut client, again).await;
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(stream.next().await.unwrap().unwrap().events);
    }
    let texts: Vec<_> = events.into_iter().map(|event| event.payload).collect();
    assert_eq!(texts, ["1", "2", "3"].map(json));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_ended_with_a_cursor() {
    let limits = HistoryLimits {
        bytes_max: 64 << 20,
        ..HistoryLimits::default()
    };
    let api = Api::with(Setup {
        bus: memory::Config {
            history: HistoryRules::new([], limits),
            ..memory::Config::default()
        },
        ..with(Subscriptions {
            waiting_events_max: 4,
            ..Subscriptions::default()
        })
    })
    .await;
    let mut client = subscriber(&api, ROOT).await;
    let (stream, _) = begin(&mut narrow(&api).await, to(&["r"])).await;
    let text = format!("\"{}\"", "x".repeat(10 << 10));
    let mut sent = 0;
    while api.subscriptions() > 0 {
        publish(&api, "r", &text).await;
        sent += 1;
    }
    let (events, cursor, status) = read_out(stream).await;
    assert_eq!(
        refusal(&status),
        (Code::ResourceExhausted, "SLOW_CONSUMER".to_owned(), String::new())
    );
    assert_eq!(cursor_of(&status), cursor);
    assert!(events.len() < sent);
    let again = after(&cursor, to(&["r"]));
    let (mut stream, _) = begin(&mut client, again).await;
    let mut rest: Vec<v1::Event> = Vec::new();
    while events.len() + rest.len() < sent {
        rest.extend(stream.next().await.unwrap().unwrap().events);
    }
    let all: Vec<v1::Event> = events.into_iter().chain(rest).collect();
    assert_eq!(all.len(), sent);
    for pair in all.windows(2) {
        let offset = pair[0].position.as_ref().unwrap().offset;
        assert_eq!(pair[1].previous_offset, offset);
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_ended_by_age() {
    let api = Api::with(with(Subscriptions {
        waiting_age_max: Duration::from_millis(50),
        heartbeat_interval: Duration::from_millis(5),
        ..Subscriptions::default()
    }))
    .await;
    // Heartbeats fill the window, and then a response waits.
    let (stream, _) = begin(&mut narrow(&api).await, to(&["r"])).await;
    while api.subscriptions() > 0 {
        tokio::task::yield_now().await;
    }
    let (_, cursor, status) = read_out(stream).await;
    assert_eq!(refusal(&status).1, "SLOW_CONSUMER");
    assert_eq!(cursor_of(&status), cursor);
}

#[tokio::test]
async fn silence_is_broken_by_a_cursor() {
    let api = Api::with(with(Subscriptions {
        heartbeat_interval: Duration::from_millis(10),
        ..Subscriptions::default()
    }))
    .await;
    let (mut stream, cursor) = begin(&mut subscriber(&api, ROOT).await, to(&["r"])).await;
    let heartbeat = stream.next().await.unwrap().unwrap();
    assert!(heartbeat.events.is_empty() && heartbeat.resyncs.is_empty());
    assert_eq!(heartbeat.cursor, cursor);
}

#[tokio::test]
async fn subscriptions_are_bounded_and_given_back() {
    let tokens = [
        token("one", &[Scope::Subscribe], None),
        token("other", &[Scope::Subscribe, Scope::Read], None),
    ];
    let api = Api::with(Setup {
        credentials: Credentials::none().with_tokens(tokens),
        ..with(Subscriptions {
            subscriptions_max: 3,
            per_service_max: 2,
            ..Subscriptions::default()
        })
    })
    .await;
    let (mut one, mut other) = (subscriber(&api, "one").await, subscriber(&api, "other").await);
    let limited = (Code::ResourceExhausted, "SUBSCRIPTION_LIMIT".to_owned(), String::new());
    let mut kept = vec![begin(&mut one, to(&["r"])).await, begin(&mut one, to(&["r"])).await];
    let status = one.subscribe(to(&["r"])).await.unwrap_err();
    assert_eq!(refusal(&status), limited);
    assert!(status.message().contains("the service"));
    kept.push(begin(&mut other, to(&["r"])).await);
    let status = other.subscribe(to(&["r"])).await.unwrap_err();
    assert_eq!(refusal(&status), limited);
    assert!(status.message().contains("the node"));
    kept.clear();
    while api.subscriptions() > 0 {
        tokio::task::yield_now().await;
    }
    begin(&mut one, to(&["r"])).await;
}

#[tokio::test]
async fn nothing_is_delivered_without_a_lease() {
    let lease = Lease::lapsed();
    let api = Api::with(Setup {
        lease: lease.clone(),
        ..Setup::default()
    })
    .await;
    let mut client = subscriber(&api, ROOT).await;
    let mut stream = client.subscribe(to(&["r"])).await.unwrap().into_inner();
    publish(&api, "r", "1").await;
    let waiting = tokio::time::timeout(Duration::from_millis(50), stream.next());
    assert!(waiting.await.is_err(), "a response without a lease");
    lease.renew(std::time::Instant::now(), Duration::from_secs(600));
    let first = stream.next().await.unwrap().unwrap();
    assert!(first.events.is_empty());
    assert_eq!(stream.next().await.unwrap().unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_drain_ends_every_subscription() {
    let api = Api::start().await;
    let (stream, _) = begin(&mut subscriber(&api, ROOT).await, to(&["r"])).await;
    api.stop.cancel();
    let (events, _, status) = read_out(stream).await;
    assert!(events.is_empty());
    assert_eq!(refusal(&status).1, "DRAINING");
}
