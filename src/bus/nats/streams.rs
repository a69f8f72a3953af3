//! The streams of a deployment: created or updated at the start.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{self, Republish};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::Config;
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::digest::Digest;
use crate::nats::agreement::{Agreement, Rule, Setting, Value};
use crate::nats::{self, NatsError, Storage, Subjects};
use crate::room::RoomPattern;

/// The time that streams keep events beyond the longest history, so that clocks and sweeps need not be exact.
const AGE_MARGIN: Duration = Duration::from_secs(60);

/// The number of streams that are created concurrently: each is a proposal to the metadata leader, one after the other.
const AT_ONCE: usize = 8;

const PARTITIONS: &str = "nats.partitions";
const STORAGE: &str = "nats.storage";
const REPLICAS: &str = "nats.replicas";
const STREAM_BYTES: &str = "nats.stream_bytes_max";
const WINDOW: &str = "nats.idempotency_window";
const LEASE: &str = "nats.lease";
const EVENTS: &str = "history.events_max";
const AGE: &str = "history.age_max";
const ROOMS: &str = "history.rooms";
const VALUES_AGE: &str = "bus.last_value_age_max";
const VALUE_NAMES: &str = "bus.last_value_names_max";

/// The instruction to change the number of partitions.
const BEGIN_ANEW: &str = "to change it, end all nodes, delete the stream of records (DEPLOYMENT-m) and start them: every room \
                          begins a new history";

/// The instruction to change the storage.
const MOVE: &str = "to change it, end all nodes, delete all streams of the deployment and start them: every room begins a new \
                    history";

/// The settings of the bus that all nodes share.
#[must_use]
pub fn shared_settings(nats: &nats::Config, config: &Config) -> Vec<Setting> {
    let (events, age) = config.history.largest();
    let storage = match nats.storage {
        Storage::File => "file",
        Storage::Memory => "memory",
    };
    let count = |number: usize| Value::Count(u64::try_from(number).unwrap_or(u64::MAX));
    vec![
        Setting::new(
            PARTITIONS,
            Value::Count(nats.partitions.into()),
            Rule::Equal(BEGIN_ANEW),
        ),
        Setting::new(STORAGE, Value::Text(storage.to_owned()), Rule::Equal(MOVE)),
        Setting::new(REPLICAS, count(nats.replicas), Rule::Largest),
        Setting::new(STREAM_BYTES, Value::Bytes(nats.stream_bytes_max), Rule::Largest),
        Setting::new(WINDOW, Value::Time(nats.idempotency_window), Rule::Largest),
        // A lease record says its own length, which the other nodes wait for.
        Setting::new(LEASE, Value::Time(nats.lease), Rule::Own),
        Setting::new(EVENTS, count(events), Rule::Largest),
        Setting::new(AGE, Value::Time(age), Rule::Largest),
        Setting::new(ROOMS, Value::Text(summary(&config.history)), Rule::Own),
        Setting::new(VALUES_AGE, Value::Time(config.last_value_age_max), Rule::Largest),
        Setting::new(VALUE_NAMES, count(config.last_value_names_max), Rule::Own),
    ]
}

/// Summarizes the limits of all rooms in one short text: equal limits have equal texts.
fn summary(history: &HistoryRules) -> String {
    let mut patterns = 0_usize;
    let mut digest = Digest::default();
    for (pattern, limits) in history.all() {
        patterns += usize::from(pattern.is_some());
        let HistoryLimits {
            events_max,
            age_max,
            bytes_max,
        } = limits;
        let pattern = pattern.map_or("", RoomPattern::as_str);
        digest.add(format!("{pattern} {events_max} {} {bytes_max};", age_max.as_millis()).as_bytes());
    }
    format!("{patterns} patterns ({:08x})", digest.value() >> 32)
}

/// The limits in force in the cluster, which decide what the streams keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    replicas: usize,
    stream_bytes_max: u64,
    window: Duration,
    /// The most events of a room.
    pub events_max: usize,
    /// The longest age of an event.
    pub age_max: Duration,
    values_age_max: Duration,
}

impl Shape {
    pub(super) fn in_force(agreement: &Agreement) -> Self {
        let time = |key| Duration::from_millis(agreement.amount(key));
        let count = |key| usize::try_from(agreement.amount(key)).unwrap_or(usize::MAX);
        let window = time(WINDOW);
        Self {
            replicas: count(REPLICAS),
            stream_bytes_max: agreement.amount(STREAM_BYTES),
            window,
            // One more than the largest history, so that the event before the oldest answered one proves that nothing lies
            // between.
            events_max: count(EVENTS).saturating_add(1),
            age_max: time(AGE).max(window) + AGE_MARGIN,
            values_age_max: time(VALUES_AGE),
        }
    }
}

/// Returns the configuration of a partition's stream of histories.
fn partition(nats: &nats::Config, subjects: &Subjects, shape: &Shape, number: u16) -> stream::Config {
    let name = subjects.stream_of_partition(number);
    stream::Config {
        max_messages_per_subject: i64::try_from(shape.events_max).unwrap_or(i64::MAX),
        max_age: shape.age_max,
        max_bytes: nats::streams::bytes(shape.stream_bytes_max),
        duplicate_window: shape.window,
        num_replicas: shape.replicas,
        republish: Some(Republish {
            source: subjects.histories(number),
            destination: subjects.republished(),
            headers_only: false,
        }),
        ..nats::streams::common(nats, name, subjects.histories(number))
    }
}

/// Returns the configuration of the stream of last values.
fn last_values(nats: &nats::Config, subjects: &Subjects, shape: &Shape) -> stream::Config {
    let bytes_max = nats::Config::values_bytes_max(shape.stream_bytes_max);
    stream::Config {
        max_messages_per_subject: 1,
        max_age: shape.values_age_max,
        max_bytes: nats::streams::bytes(bytes_max),
        duplicate_window: shape.window.min(shape.values_age_max),
        num_replicas: shape.replicas,
        ..nats::streams::common(nats, subjects.stream_of('v'), subjects.all_of('v'))
    }
}

/// Creates all streams, or updates those that exist.
pub(super) async fn ensure_all(
    context: &Context,
    nats: &nats::Config,
    subjects: &Subjects,
    shape: &Shape,
) -> Result<(), NatsError> {
    ensure_last_values(context, nats, subjects, shape).await?;
    let each = |number| nats::streams::ensure(context, nats, partition(nats, subjects, shape, number));
    let made = futures_util::stream::iter((0..nats.partitions).map(each)).buffered(AT_ONCE);
    made.try_collect().await
}

/// Creates the stream of last values, or updates it.
pub(super) async fn ensure_last_values(
    context: &Context,
    nats: &nats::Config,
    subjects: &Subjects,
    shape: &Shape,
) -> Result<(), NatsError> {
    nats::streams::ensure(context, nats, last_values(nats, subjects, shape)).await
}
