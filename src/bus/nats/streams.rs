//! The streams of a deployment: made at the start, or brought into shape.

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{self, DiscardPolicy, Info, Republish, RetentionPolicy};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::Config;
use crate::nats::{self, NatsError, Subjects};

/// What streams keep beyond the longest history, so that clocks and sweeps need not be exact.
const AGE_MARGIN: Duration = Duration::from_secs(60);

/// Epoch records and last values are few; what is above this is a defect.
const RECORDS_BYTES_MAX: i64 = 16 << 20;

/// How long the streams of partitions keep an event.
pub(super) fn age_max(nats: &nats::Config, config: &Config) -> Duration {
    config.history.largest().1.max(nats.idempotency_window) + AGE_MARGIN
}

/// How many events of a room the streams of partitions keep. One more than the largest history, so that the event before
/// the oldest answered one proves that nothing lies between.
pub(super) fn events_max(config: &Config) -> usize {
    config.history.largest().0.saturating_add(1)
}

/// The stream of a partition's histories.
pub(super) fn partition(nats: &nats::Config, subjects: &Subjects, config: &Config, number: u16) -> stream::Config {
    stream::Config {
        max_messages_per_subject: i64::try_from(events_max(config)).unwrap_or(i64::MAX),
        max_age: age_max(nats, config),
        max_bytes: i64::try_from(nats.stream_bytes_max).unwrap_or(i64::MAX),
        duplicate_window: nats.idempotency_window,
        republish: Some(Republish {
            source: subjects.histories(number),
            destination: subjects.republished(),
            headers_only: false,
        }),
        ..common(nats, subjects.stream_of_partition(number), subjects.histories(number))
    }
}

/// The stream of last values.
pub(super) fn last_values(nats: &nats::Config, subjects: &Subjects, config: &Config) -> stream::Config {
    stream::Config {
        max_messages_per_subject: 1,
        max_age: config.last_value_age_max,
        max_bytes: i64::try_from(nats.stream_bytes_max).unwrap_or(i64::MAX),
        duplicate_window: nats.idempotency_window.min(config.last_value_age_max),
        ..common(nats, subjects.stream_of('v'), subjects.all_of('v'))
    }
}

/// The stream of epoch records.
pub(super) fn epochs(nats: &nats::Config, subjects: &Subjects) -> stream::Config {
    stream::Config {
        max_messages_per_subject: 1,
        max_bytes: RECORDS_BYTES_MAX,
        ..common(nats, subjects.stream_of('m'), subjects.all_of('m'))
    }
}

fn common(nats: &nats::Config, name: String, subject: String) -> stream::Config {
    stream::Config {
        name,
        subjects: vec![subject],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: nats.storage.into(),
        num_replicas: nats.replicas,
        allow_direct: true,
        deny_delete: true,
        max_messages: -1,
        max_consumers: -1,
        ..stream::Config::default()
    }
}

/// Makes a stream, or gives the one there is this shape.
pub(super) async fn ensure(context: &Context, config: stream::Config) -> Result<Info, NatsError> {
    let name = config.name.clone();
    let failed = |error: &dyn std::fmt::Display| NatsError::JetStream(format!("stream {name}: {error}"));
    match context.create_stream(config.clone()).await {
        Ok(stream) => Ok(stream.cached_info().clone()),
        Err(error) if exists(&error) => context.update_stream(config).await.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// Whether a stream was not made because there is one of this name.
fn exists(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(refused) if refused.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// The streams that are made at once.
const AT_ONCE: usize = 8;

/// Makes all streams, or gives those there are their shape. Answers how those of the partitions are, in their order.
pub(super) async fn ensure_all(
    context: &Context,
    nats: &nats::Config,
    subjects: &Subjects,
    config: &Config,
) -> Result<Vec<Info>, NatsError> {
    ensure(context, epochs(nats, subjects)).await?;
    ensure(context, last_values(nats, subjects, config)).await?;
    let partitions = (0..nats.partitions).map(|number| ensure(context, partition(nats, subjects, config, number)));
    futures_util::stream::iter(partitions)
        .buffered(AT_ONCE)
        .try_collect()
        .await
}
