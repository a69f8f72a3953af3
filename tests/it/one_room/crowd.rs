//! Everybody in one room while much is published by several publishers.

use std::collections::BTreeMap;

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use roomcast::bus::history::{HistoryLimits, HistoryRules};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::{self, Publish};
use roomcast::proto::v1;
use roomcast::rate::Rate;
use serde_json::json;

use super::entering::Start;
use super::heard::{Content, Heard, Kind, digest};
use super::listener::Listener;
use super::told::Told;
use super::{House, on_one_and_on_three};
use crate::subscribe::{Reader, to};
use crate::support::socketio::{SocketIo, Way};
use crate::support::{Caller, TENANT, draft, to_room, user};

on_one_and_on_three! {
    all_protocols_tell_the_same_events_in_the_same_order,
}

const ROOM: &str = "r";
/// Backends that publish.
const BACKENDS: usize = 3;
/// The events of each publisher.
const EACH: usize = 42;
/// Those of each client that publishes.
const EACH_CLIENT: usize = 18;

/// Payloads that a relay may be tempted to change.
const TEXTS: [&str; 12] = [
    r#"{"z":1.50,"a":12345678901234567890,"t":"ü \ud83d\ude00 \u00e9"}"#,
    "[1E+2, -0.0, 0.1000, 123456789012345678901234567890.5]",
    r#"{ "b" : [ ] , "a" : { } }"#,
    r#""connected""#,
    "\"\u{2028}\u{1F600}\"",
    r#""\u2028\u0000\n\u001e""#,
    "null",
    "{\n  \"lines\": 2\n}",
    r#"{"_placeholder":true,"num":1}"#,
    r#"{"constructor":[],"\\u0061":{}}"#,
    "0",
    r#""41""#,
];

/// Bytes that begin like packets, and all there are.
fn bytes(n: usize) -> Vec<u8> {
    match n % 4 {
        0 => Vec::new(),
        1 => b"4".to_vec(),
        2 => b"b\x04\x1e".to_vec(),
        _ => (0..=255).collect(),
    }
}

fn content(n: usize) -> Content {
    if n % 5 == 4 {
        Content::Binary(bytes(n / 5))
    } else {
        Content::Json(TEXTS[n % TEXTS.len()].to_owned())
    }
}

fn is_ephemeral(n: usize) -> bool {
    n % 8 == 5
}

/// The kind whose user an event is not for.
fn excluded(n: usize) -> Option<Kind> {
    (n % 3 == 1).then(|| Kind::ALL[n / 3 % Kind::ALL.len()])
}

/// An event of a backend, by its publisher and number.
fn event_of_backend(by: usize, n: usize) -> v1::PublishRequest {
    let content = match content(n) {
        Content::Json(text) => v1::payload::Content::Json(text),
        Content::Binary(bytes) => v1::payload::Content::Binary(bytes.into()),
    };
    let retention = match n % 8 {
        5 => v1::Retention::Ephemeral,
        3 => v1::Retention::LastValue,
        _ => v1::Retention::Reliable,
    };
    v1::PublishRequest {
        targets: vec![to_room(ROOM)],
        payload: Some(v1::Payload { content: Some(content) }),
        retention: retention.into(),
        exclude_user_ids: excluded(n).map(|kind| kind.user().id).into_iter().collect(),
        ..draft(&name(by, n), json!(0))
    }
}

fn name(by: usize, n: usize) -> String {
    format!("{by}:{n}")
}

/// The publisher and the number that an event's name says; `None` for one that marks an end.
fn numbers(name: &str) -> Option<(usize, usize)> {
    let (by, n) = name.split_once(':')?;
    Some((by.parse().unwrap(), n.parse().unwrap()))
}

fn is_of_backend(by: usize) -> bool {
    by < BACKENDS
}

/// Whether an event is for the user of this kind.
fn is_for(kind: Option<Kind>, name: &str) -> bool {
    let excluded = numbers(name).and_then(|(by, n)| is_of_backend(by).then(|| excluded(n))?);
    excluded.is_none() || excluded != kind
}

async fn publish_by_backend(backend: Caller, by: usize) {
    for n in 0..EACH {
        backend
            .send(event_of_backend(by, n))
            .await
            .expect("the event is accepted");
    }
}

async fn publish_by_native(house: &House, by: usize) {
    let mut client = house.at(by).connect(user("native publisher")).await;
    for n in 0..EACH_CLIENT {
        let content = match content(n) {
            Content::Json(text) => client_v1::payload::Content::Json(text),
            Content::Binary(bytes) => client_v1::payload::Content::Binary(bytes.into()),
        };
        let publish = Publish {
            room: ROOM.to_owned(),
            event_name: name(by, n),
            payload: Some(client_v1::Payload { content: Some(content) }),
            ..Publish::default()
        };
        client.try_publish(publish).await.expect("the event is accepted");
    }
    client.close().await;
}

async fn publish_by_socketio(house: &House, by: usize, way: Way) {
    let mut client = SocketIo::open(house.at(by).client_address(), way, false).await.unwrap();
    let token = user("stock publisher").token();
    client.connect(&json!({"token": token})).await.unwrap().unwrap();
    for n in 0..EACH_CLIENT {
        let head = format!(r#"{{"room":"{ROOM}","eventName":"{}","payload":"#, name(by, n));
        let ack = match content(n) {
            Content::Json(text) => client.emit("publish", &format!("{head}{text}}}")).await,
            Content::Binary(bytes) => {
                let data = format!(r#"{head}{{"_placeholder":true,"num":0}}}}"#);
                client.emit_binary("publish", &data, &bytes).await
            }
        };
        let answer = client.acknowledged(ack.unwrap()).await.unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
    }
    client.close().await;
}

/// What somebody was told, those without a position apart.
#[derive(Default)]
struct Record {
    events: Vec<Heard>,
    ephemeral: Vec<Heard>,
    passed: Vec<u64>,
}

impl Record {
    fn note(&mut self, event: Heard) {
        match numbers(&event.name) {
            Some((by, n)) if is_of_backend(by) && is_ephemeral(n) => self.ephemeral.push(event),
            _ => self.events.push(event),
        }
    }

    /// Whether it has come to the mark, with all that has no place in the order.
    fn is_at(&self, mark: &str, ephemeral: usize) -> bool {
        self.ephemeral.len() >= ephemeral && self.events.last().is_some_and(|last| last.name == mark)
    }
}

/// The ephemeral events for somebody.
fn ephemeral_for(kind: Option<Kind>) -> usize {
    let of = |n: &usize| is_ephemeral(*n) && is_for(kind, &name(0, *n));
    BACKENDS * (0..EACH).filter(of).count()
}

async fn listen(listener: &mut Listener, mark: &str, record: &mut Record) {
    let ephemeral = ephemeral_for(Some(listener.kind));
    while !record.is_at(mark, ephemeral) {
        match listener.next().await {
            Told::Event(event) => record.note(event),
            Told::Passed(offset) => record.passed.push(offset),
            other => panic!("{:?} is told {other:?}", listener.kind),
        }
    }
}

async fn subscribe(reader: &mut Reader, mark: &str, ephemeral: usize, record: &mut Record) {
    while !record.is_at(mark, ephemeral) {
        let response = reader.response().await;
        assert!(response.resyncs.is_empty() && !response.partial, "{response:?}");
        response
            .events
            .into_iter()
            .map(Heard::of_backend)
            .for_each(|event| record.note(event));
    }
}

/// The room's history.
async fn history(backend: &Caller) -> Vec<Heard> {
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListHistoryRequest {
            tenant: TENANT.to_owned(),
            room: ROOM.to_owned(),
            order: v1::HistoryOrder::OldestFirst.into(),
            page_token,
            ..Default::default()
        };
        let page = backend.rooms.clone().list_history(request).await.unwrap().into_inner();
        events.extend(page.events.into_iter().map(Heard::of_backend));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return events;
        }
    }
}

/// Both are the same, by their hashes; the first difference is told.
fn assert_same(who: &str, heard: &[Heard], expected: &[Heard]) {
    if digest(heard) == digest(expected) {
        return;
    }
    let at = heard
        .iter()
        .zip(expected)
        .take_while(|(one, other)| one == other)
        .count();
    panic!(
        "{who} is told {} of {} events; the first that differs is {at}: {:?} in place of {:?}",
        heard.len(),
        expected.len(),
        heard.get(at),
        expected.get(at)
    );
}

/// Each was told once, those of one publisher in their order, with their content.
fn assert_ephemeral(who: &str, kind: Option<Kind>, told: &[Heard]) {
    let mut by_publisher: BTreeMap<usize, Vec<&Heard>> = BTreeMap::new();
    for event in told {
        assert_eq!(event.position, None, "{who}: {event:?}");
        by_publisher
            .entry(numbers(&event.name).unwrap().0)
            .or_default()
            .push(event);
    }
    for by in 0..BACKENDS {
        let expected = (0..EACH).filter(|n| is_ephemeral(*n) && is_for(kind, &name(by, *n)));
        let expected: Vec<Heard> = expected
            .map(|n| Heard {
                position: None,
                name: name(by, n),
                content: content(n),
            })
            .map(|event| kind.map_or(event.clone(), |kind| event.told_to(kind)))
            .collect();
        let told: Vec<Heard> = by_publisher
            .remove(&by)
            .unwrap_or_default()
            .into_iter()
            .cloned()
            .collect();
        assert_same(who, &told, &expected);
    }
    assert!(by_publisher.is_empty(), "{who}: {by_publisher:?}");
}

fn busy(config: &mut Config) {
    let limits = HistoryLimits {
        events_max: 5000,
        ..HistoryLimits::default()
    };
    config.bus.history = HistoryRules::new([], limits);
    config.api.subscriptions.waiting_events_max = 100_000;
    config.session.publish_rate = Rate {
        per_second: 100_000,
        burst: 100_000,
    };
    config.client.connect_rate = config.session.publish_rate;
}

async fn all_protocols_tell_the_same_events_in_the_same_order(count: usize) {
    let house = House::with(count, busy).await;
    let everybody = house.enter_all(ROOM, Kind::user, &Start::Now).await;
    let mut listeners: Vec<Listener> = everybody.into_iter().map(|(listener, _)| listener).collect();
    let by_pattern = v1::SubscribeRequest {
        pattern: "{room*}".to_owned(),
        ..to(&[])
    };
    let mut named = Reader::begin(&house.backend(1), to(&[ROOM])).await;
    let mut pattern = Reader::begin(&house.backend(2), by_pattern).await;
    // By pattern over NATS no ephemeral ones come.
    let ephemeral = ephemeral_for(None);
    let of_pattern = if count > 1 { 0 } else { ephemeral };

    let mut records: Vec<Record> = listeners.iter().map(|_| Record::default()).collect();
    let (mut named_record, mut pattern_record) = (Record::default(), Record::default());
    let publishing = async {
        let backends = (0..BACKENDS).map(|by| publish_by_backend(house.backend(by), by));
        let clients: [BoxFuture<'_, ()>; 3] = [
            publish_by_native(&house, BACKENDS).boxed(),
            publish_by_socketio(&house, BACKENDS + 1, Way::Upgraded).boxed(),
            publish_by_socketio(&house, BACKENDS + 2, Way::Polling).boxed(),
        ];
        tokio::join!(join_all(backends), join_all(clients));
        house.backend(0).publish(ROOM, "end", json!({})).await;
    };
    let listening = listeners.iter_mut().zip(&mut records);
    let listening = listening.map(|(listener, record)| listen(listener, "end", record));
    tokio::join!(
        Box::pin(publishing),
        join_all(listening),
        subscribe(&mut named, "end", ephemeral, &mut named_record),
        subscribe(&mut pattern, "end", of_pattern, &mut pattern_record),
    );
    // Whatever came twice or too late has come before this.
    house.backend(1).publish(ROOM, "after", json!({})).await;
    let listening = listeners.iter_mut().zip(&mut records);
    let listening = listening.map(|(listener, record)| listen(listener, "after", record));
    tokio::join!(
        join_all(listening),
        subscribe(&mut named, "after", ephemeral, &mut named_record),
        subscribe(&mut pattern, "after", of_pattern, &mut pattern_record),
    );

    let truth = history(&house.backend(2)).await;
    let reliable = |n: &usize| !is_ephemeral(*n);
    let stored = BACKENDS * (0..EACH).filter(reliable).count() + 3 * EACH_CLIENT + 2;
    assert_eq!(truth.len(), stored);
    for (who, record, ephemeral) in [
        ("a subscriber", named_record, ephemeral),
        ("a subscriber by pattern", pattern_record, of_pattern),
    ] {
        assert_same(who, &record.events, &truth);
        assert_eq!(record.ephemeral.len(), ephemeral, "{who}");
        if ephemeral > 0 {
            assert_ephemeral(who, None, &record.ephemeral);
        }
    }
    for (listener, record) in listeners.iter().zip(&records) {
        let (kind, who) = (listener.kind, format!("{:?}", listener.kind));
        let (shown, hidden): (Vec<Heard>, Vec<Heard>) =
            truth.iter().cloned().partition(|event| is_for(Some(kind), &event.name));
        let shown: Vec<Heard> = shown.into_iter().map(|event| event.told_to(kind)).collect();
        assert!(!hidden.is_empty(), "{who} is left out of nothing");
        assert_same(&who, &record.events, &shown);
        assert_ephemeral(&who, Some(kind), &record.ephemeral);
        if matches!(kind, Kind::Json | Kind::Protobuf) {
            let hidden: Vec<u64> = hidden.into_iter().map(|event| event.position.unwrap().1).collect();
            assert_eq!(record.passed, hidden, "{who}");
        }
    }
    for listener in listeners {
        listener.close().await;
    }
    house.finish().await;
}
