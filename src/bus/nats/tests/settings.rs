//! Settings shared by all nodes of a cluster: refusals, and the values in force while nodes differ and afterwards.

use std::time::Duration;

use async_nats::jetstream;
use tokio::join;

use super::servers::NatsServer;
use super::{Config, Node, keeping, settings, until};
use crate::bus::Bus as _;
use crate::bus::conformance::{Recorder, event, room, store};
use crate::bus::history::HistoryLimits;
use crate::nats::{self, NatsError, Storage};

/// A change of a setting.
type Change = fn(&mut nats::Config, &mut Config);

fn with(server: &NatsServer, deployment: &str, change: Change) -> (nats::Config, Config) {
    let mut nats = nats::Config {
        deployment: deployment.to_owned(),
        ..settings(server)
    };
    let mut config = keeping(HistoryLimits::default());
    change(&mut nats, &mut config);
    (nats, config)
}

fn with_events(config: &mut Config, events_max: usize) {
    *config = keeping(HistoryLimits {
        events_max,
        ..HistoryLimits::default()
    });
}

async fn refusal(nats: &nats::Config, config: Config) -> String {
    match Node::try_start(nats, config).await {
        Ok(_) => panic!("it starts"),
        Err(NatsError::Refused(why)) => why,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_other_partitions_or_storage_is_refused_with_both_values() {
    let server = NatsServer::start().await;
    let (usual, config) = with(&server, "d", |_, _| {});
    let _first = Node::start(&usual, config).await;
    let changes: [(Change, &str); 2] = [
        (
            |nats, _| nats.partitions = 7,
            "nats.partitions is 7 on this node and 4 in the cluster: set it to 4; to change it,",
        ),
        (
            |nats, _| nats.storage = Storage::Memory,
            "nats.storage is memory on this node and file in the cluster: set it to file; to change it,",
        ),
    ];
    for (change, expected) in changes {
        let (nats, config) = with(&server, "d", change);
        let why = refusal(&nats, config).await;
        assert!(why.starts_with(expected), "{why}");
    }
}

/// Two first nodes with different settings start at the same time: one wins, and the other is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_first_nodes_one_is_followed() {
    let server = NatsServer::start().await;
    for round in 0..5 {
        let deployment = format!("d{round}");
        let (one, config) = with(&server, &deployment, |_, _| {});
        let (other, other_config) = with(&server, &deployment, |nats, _| nats.partitions = 7);
        let (first, second) = join!(Node::try_start(&one, config), Node::try_start(&other, other_config));
        let partitions = match (&first, &second) {
            (Ok(node), Err(NatsError::Refused(_))) | (Err(NatsError::Refused(_)), Ok(node)) => {
                node.bus.shared.partitions.iter().count()
            }
            (first, second) => panic!("{:?} and {:?}", first.as_ref().err(), second.as_ref().err()),
        };
        assert_eq!(partitions, if first.is_ok() { 4 } else { 7 });
    }
}

/// Nodes with equal settings that start at the same time are one cluster with one epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_first_nodes_agree() {
    let server = NatsServer::start().await;
    for round in 0..5 {
        let (nats, config) = with(&server, &format!("d{round}"), |_, _| {});
        let (one, other) = join!(Node::start(&nats, config.clone()), Node::start(&nats, config));
        let asked = room("r");
        let (here, there) = join!(one.bus.head(&asked), other.bus.head(&asked));
        assert_eq!(here.unwrap(), there.unwrap());
    }
}

/// The limits of the streams, as the server reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    events: i64,
    age: Duration,
    bytes: i64,
    window: Duration,
    values_age: Duration,
}

async fn kept(server: &NatsServer, deployment: &str) -> Kept {
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let histories = context.get_stream(format!("{deployment}-h-0")).await.unwrap();
    let values = context.get_stream(format!("{deployment}-v")).await.unwrap();
    let config = &histories.cached_info().config;
    Kept {
        events: config.max_messages_per_subject,
        age: config.max_age,
        bytes: config.max_bytes,
        window: config.duplicate_window,
        values_age: values.cached_info().config.max_age,
    }
}

/// Restarts one node after the other with a changed setting. While they differ, the streams keep what the more
/// demanding nodes promise; afterwards what all nodes say. Every event published meanwhile stays.
async fn rolls(name: &str, change: Change, differs: fn(&Kept, &Kept) -> bool) {
    let server = NatsServer::start().await;
    let (small, small_config) = with(&server, name, |_, _| {});
    let (large, large_config) = with(&server, name, change);
    let room = room("r");
    let mut one = Node::start(&small, small_config.clone()).await;
    let mut other = Node::start(&small, small_config.clone()).await;
    let lower = kept(&server, name).await;
    store(&*one.bus, &room, 5).await;
    let epoch = one.bus.head(&room).await.unwrap().epoch;

    // Raised, one by one.
    drop(one);
    one = Node::start(&large, large_config.clone()).await;
    let higher = kept(&server, name).await;
    assert!(differs(&lower, &higher), "{lower:?} {higher:?}");
    event(&room, "mixed").stored(&*other.bus).await;
    drop(other);
    other = Node::start(&large, large_config.clone()).await;
    assert_eq!(kept(&server, name).await, higher);

    // A node that returns with its old settings does not take anything away.
    let third = Node::start(&small, small_config.clone()).await;
    assert_eq!(kept(&server, name).await, higher);
    drop(third);

    // Lowered, one by one.
    drop(one);
    one = Node::start(&small, small_config.clone()).await;
    event(&room, "mixed again").stored(&*one.bus).await;
    assert_eq!(kept(&server, name).await, higher, "one node promises more");
    drop(other);
    other = Node::start(&small, small_config).await;
    until("the streams keep what all say", async || {
        kept(&server, name).await == lower
    })
    .await;
    let member = Recorder::new(0);
    let head = other.bus.subscribe(&room, member.clone()).await.unwrap();
    assert_eq!(head.epoch, epoch, "no history began anew");
    event(&room, "end").stored(&*one.bus).await;
    member.wait_for(1).await;
    let page = other
        .bus
        .history(&room, crate::bus::Page::Newest, crate::bus::conformance::ALL)
        .await
        .unwrap();
    assert_eq!(page.events.len(), 8, "nothing was lost on the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_events_can_be_changed_rolling() {
    let change: Change = |_, config| with_events(config, 900);
    rolls("events", change, |lower, higher| lower.events < higher.events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_events_can_be_changed_rolling() {
    let change: Change = |_, config| {
        *config = keeping(HistoryLimits {
            age_max: Duration::from_secs(3600),
            ..HistoryLimits::default()
        });
    };
    rolls("age", change, |lower, higher| lower.age < higher.age).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_streams_can_be_changed_rolling() {
    let change: Change = |nats, _| nats.stream_bytes_max *= 2;
    rolls("bytes", change, |lower, higher| lower.bytes < higher.bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_of_keys_can_be_changed_rolling() {
    let change: Change = |nats, _| nats.idempotency_window *= 2;
    rolls("window", change, |lower, higher| lower.window < higher.window).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_last_values_can_be_changed_rolling() {
    let change: Change = |_, config| config.last_value_age_max *= 2;
    rolls("values", change, |lower, higher| lower.values_age < higher.values_age).await;
}

/// A running node that finds another cluster's settings in the record accepts and serves nothing, and continues when
/// they are right again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_whose_record_says_otherwise_stands_aside() {
    let server = NatsServer::start().await;
    let (nats, config) = with(&server, "d", |_, _| {});
    let node = Node::start(&nats, config).await;
    let room = room("r");
    event(&room, "before").stored(&*node.bus).await;
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let records = context.get_stream("d-m").await.unwrap();
    let record = records.get_last_raw_message_by_subject("d.m.settings").await.unwrap();
    // The record of a cluster with more partitions: its number is the only 4 that stands alone.
    let foreign = with(&server, "e", |nats, _| nats.partitions = 7);
    let elsewhere = Node::start(&foreign.0, foreign.1).await;
    let other = context.get_stream("e-m").await.unwrap();
    let other = other.get_last_raw_message_by_subject("e.m.settings").await.unwrap();
    context
        .publish("d.m.settings", other.payload)
        .await
        .unwrap()
        .await
        .unwrap();
    until("it says so", async || {
        let trouble = node.bus.trouble().unwrap_or_default();
        trouble.contains("nats.partitions is 4 on this node and 7 in the cluster")
    })
    .await;
    assert!(!node.bus.is_checked());
    assert!(event(&room, "no").send(&*node.bus).await.is_err());
    assert!(node.bus.head(&crate::bus::conformance::room("cold")).await.is_err());
    context
        .publish("d.m.settings", record.payload)
        .await
        .unwrap()
        .await
        .unwrap();
    until("it goes on", async || {
        node.bus.trouble().is_none() && node.bus.is_checked()
    })
    .await;
    event(&room, "after").stored(&*node.bus).await;
    drop(elsewhere);
}
