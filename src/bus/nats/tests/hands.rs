//! Interventions of an operator: each kind of stream, under each intervention, with two running nodes.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::jetstream;

use super::faults::{Log, copy};
use super::servers::NatsServer;
use super::{Node, keeping, settings, until};
use crate::bus::PublishError;
use crate::bus::conformance::{Recorder, event, room, store, texts};
use crate::bus::history::HistoryLimits;
use crate::event::Retention;
use crate::nats;
use crate::position::{Epoch, Position};

/// The kind of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// A partition's histories.
    History,
    LastValues,
    /// Epochs, and the settings that all nodes share.
    Records,
}

/// An intervention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hand {
    Deleted,
    /// All messages are removed.
    Emptied,
    /// The messages of one subject are removed.
    Purged,
    /// An older copy of it is restored.
    Older,
    /// It accepts nothing more, for good.
    Sealed,
}

/// A room whose newest value has left the history: it is only in the stream of last values.
const COLD: &str = "cold";

/// Returns histories so short that a value is soon kept in the stream of last values alone.
fn limits() -> HistoryLimits {
    HistoryLimits {
        events_max: 2,
        ..HistoryLimits::default()
    }
}

/// Two nodes and their server.
struct Story {
    server: NatsServer,
    settings: nats::Config,
    nodes: [Node; 2],
    stream: String,
    subject: String,
}

impl Story {
    async fn begin(stream: Stream) -> Self {
        let server = NatsServer::start().await;
        let settings = settings(&server);
        let nodes = [
            Node::start(&settings, keeping(limits())).await,
            Node::start(&settings, keeping(limits())).await,
        ];
        let shared = &nodes[0].bus.shared;
        let (partition, subjects) = (shared.partitions.of(&room("r")), shared.server.nats.subjects());
        let name = crate::event::EventName::parse("price").unwrap();
        let (stream, subject) = match stream {
            Stream::History => (partition.stream.clone(), subjects.history(partition.number, &room("r"))),
            Stream::LastValues => (subjects.stream_of('v'), subjects.last_value(&room(COLD), &name)),
            Stream::Records => (subjects.stream_of('m'), subjects.epoch(partition.number)),
        };
        Self {
            server,
            settings,
            nodes,
            stream,
            subject,
        }
    }

    /// Returns the second node; the first one has the members.
    fn other(&self) -> &Node {
        &self.nodes[1]
    }

    async fn value(&self, value: &str) {
        let room = room(COLD);
        let price = event(&room, value).name("price").retention(Retention::LastValue);
        price.stored(&*self.nodes[0].bus).await;
        // Pushes the value out of the history.
        store(&*self.nodes[0].bus, &room, 4).await;
    }

    async fn lay_on(&self, hand: Hand) {
        let client = async_nats::connect(self.server.url()).await.unwrap();
        let context = jetstream::new(client);
        let stream = context.get_stream(&self.stream).await.unwrap();
        match hand {
            Hand::Deleted => drop(context.delete_stream(&self.stream).await.unwrap()),
            Hand::Emptied => drop(stream.purge().await.unwrap()),
            Hand::Purged => drop(stream.purge().filter(&self.subject).await.unwrap()),
            Hand::Sealed => {
                let config = jetstream::stream::Config {
                    sealed: true,
                    ..stream.cached_info().config.clone()
                };
                context.update_stream(config).await.unwrap();
            }
            Hand::Older => unreachable!("see `story`"),
        }
    }

    fn folder(&self) -> PathBuf {
        self.server.store().join("jetstream/$G/streams").join(&self.stream)
    }

    async fn last_values(&self, node: usize) -> Vec<String> {
        let mut values = None;
        until("last values can be read", async || {
            values = self.nodes[node].bus.last_values(&room(COLD)).await.ok();
            values.is_some()
        })
        .await;
        texts(&values.unwrap())
    }

    /// Checks that both nodes report no fault, and that a room in neither's memory can be joined at both.
    async fn all_is_well(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let fresh = room(&format!("nobody was here {number}"));
            until("a room can be joined", async || {
                let joined = node.bus.subscribe(&fresh, Recorder::new(0)).await;
                joined.is_ok() && node.bus.last_values(&fresh).await.is_ok()
            })
            .await;
            until("nothing is the matter", async || {
                node.bus.trouble().is_none() && node.bus.is_checked()
            })
            .await;
        }
    }

    /// Samples the epochs that both nodes report while something is done. Each node reports the one before until it reports
    /// the new one, and both report the same new one.
    async fn sampled<T>(&self, before: Epoch, done: impl Future<Output = T>) -> T {
        let told = [Mutex::default(), Mutex::default()];
        let sample = async |node: usize| -> Infallible {
            loop {
                if let Ok(head) = self.nodes[node].bus.head(&room("r")).await {
                    let mut told: MutexGuard<'_, Vec<Epoch>> = told[node].lock().unwrap();
                    if told.last() != Some(&head.epoch) {
                        told.push(head.epoch);
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let result = tokio::select! {
            result = done => result,
            never = sample(0) => match never {},
            never = sample(1) => match never {},
        };
        let after = self.epoch().await;
        for (node, told) in told.into_iter().enumerate() {
            let told = told.into_inner().unwrap();
            let is_honest = [&[][..], &[before], &[after], &[before, after]].contains(&&*told);
            assert!(
                is_honest,
                "node {node} reported {told:?} between {before:?} and {after:?}"
            );
        }
        result
    }

    /// Returns the epoch that both nodes report for a room.
    async fn epoch(&self) -> Epoch {
        let mut told = None;
        until("both nodes tell one epoch", async || {
            let heads = [
                self.nodes[0].bus.head(&room("r")).await,
                self.nodes[1].bus.head(&room("r")).await,
            ];
            let [Ok(one), Ok(other)] = heads else { return false };
            told = Some(one.epoch);
            one.epoch == other.epoch
        })
        .await;
        told.unwrap()
    }
}

/// An intervention heals by itself; the epoch ends exactly where positions could be used twice.
async fn heals(which: Stream, hand: Hand) {
    let story = Story::begin(which).await;
    let member = Arc::new(Log::default());
    story.nodes[0].bus.subscribe(&room("r"), member.clone()).await.unwrap();
    story.value("old").await;
    store(&*story.other().bus, &room("r"), 2).await;
    let snapshot = tempfile::tempdir().unwrap();
    if hand == Hand::Older {
        story.server.stop().await;
        copy(&story.folder(), snapshot.path());
        story.server.restart().await;
        story.all_is_well().await;
    }
    store(&*story.other().bus, &room("r"), 2).await;
    story.value("new").await;
    let before = story.epoch().await;
    let healing = async {
        if hand == Hand::Older {
            story.server.kill();
            std::fs::remove_dir_all(story.folder()).unwrap();
            copy(snapshot.path(), &story.folder());
            story.server.restart().await;
        } else {
            story.lay_on(hand).await;
        }
        until("an event is stored", async || {
            event(&room("r"), "after").send(&*story.other().bus).await.is_ok()
        })
        .await;
        story.all_is_well().await;
    };
    Box::pin(story.sampled(before, healing)).await;
    let history_is_lost = which == Stream::History && matches!(hand, Hand::Deleted | Hand::Older);
    assert_eq!(story.epoch().await != before, history_is_lost);
    // Members that were reset to a new history continue from its head: a reset after the event was stored covers it.
    let last = event(&room("r"), "last").stored(&*story.other().bus).await;
    until("it comes to the members", async || {
        let is_delivered = member.seen().last().is_some_and(|text| text == "last");
        let is_covered = |head: &Position| head.epoch == last.epoch && head.offset >= last.offset;
        is_delivered || member.resets().last().is_some_and(is_covered)
    })
    .await;
    let value_is_lost = which == Stream::LastValues;
    if which != Stream::History {
        let expected: &[&str] = if value_is_lost { &[] } else { &["new"] };
        for node in [0, 1] {
            // A node that has not seen the stream at its newest learns of it from the one that has.
            until("values are those of the stream", async || {
                story.last_values(node).await == expected
            })
            .await;
        }
    }
    story.value("newest").await;
    for node in [0, 1] {
        assert_eq!(story.last_values(node).await, ["newest"], "node {node}");
    }
    // A node that starts afterwards reports the same.
    let late = Node::start(&story.settings, keeping(limits())).await;
    assert_eq!(late.bus.head(&room("r")).await.unwrap().epoch, story.epoch().await);
}

macro_rules! healing {
    ($($name:ident: $stream:ident, $hand:ident;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            heals(Stream::$stream, Hand::$hand).await;
        })+
    };
}

healing! {
    deleted_histories_heal: History, Deleted;
    emptied_histories_heal: History, Emptied;
    purged_histories_heal: History, Purged;
    older_histories_heal: History, Older;
    deleted_last_values_heal: LastValues, Deleted;
    emptied_last_values_heal: LastValues, Emptied;
    purged_last_values_heal: LastValues, Purged;
    older_last_values_heal: LastValues, Older;
    deleted_records_heal: Records, Deleted;
    emptied_records_heal: Records, Emptied;
    purged_records_heal: Records, Purged;
    older_records_heal: Records, Older;
}

/// Nodes cannot heal a sealed stream: they report it, and continue once it is deleted.
async fn is_reported(which: Stream) {
    let story = Story::begin(which).await;
    story.value("old").await;
    store(&*story.other().bus, &room("r"), 2).await;
    story.lay_on(Hand::Sealed).await;
    for node in &story.nodes {
        until("it is said", async || {
            node.bus
                .trouble()
                .is_some_and(|trouble| trouble.contains(&story.stream))
        })
        .await;
    }
    if which == Stream::History {
        let refused = event(&room("r"), "no").send(&*story.other().bus).await;
        assert!(matches!(refused, Err(PublishError::NotStored(_))), "{refused:?}");
    }
    story.lay_on(Hand::Deleted).await;
    story.all_is_well().await;
    event(&room("r"), "after").stored(&*story.other().bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_histories_are_reported() {
    is_reported(Stream::History).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_last_values_are_reported() {
    is_reported(Stream::LastValues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_records_are_reported() {
    is_reported(Stream::Records).await;
}

/// Fault 46: a room has one epoch, also on a node that starts while the records are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_without_records_takes_the_epochs_of_those_that_run() {
    let story = Story::begin(Stream::Records).await;
    let before = story.epoch().await;
    for _ in 0..3 {
        let starting = async {
            story.lay_on(Hand::Deleted).await;
            Node::start(&story.settings, keeping(limits())).await
        };
        let late = Box::pin(story.sampled(before, starting)).await;
        let told = late.bus.head(&room("r")).await.unwrap().epoch;
        assert_eq!((told, story.epoch().await), (before, before));
    }
}
