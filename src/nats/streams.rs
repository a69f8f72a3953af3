//! Creates the streams of a deployment, and names the setting behind a refusal of NATS.

use std::fmt::Display;

use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{self, Context, ErrorCode};

use super::{Config, NatsError, Subjects};

/// The bound of the stream of records. A record has some 100 bytes, and there is one for each partition.
const RECORDS_BYTES_MAX: u64 = 4 << 20;

/// The bound of the stream of last values, as a multiple of one partition's: it holds the values of all rooms.
const VALUES_SHARE: u64 = 4;

/// The bound of the control log: some 200,000 revocations.
pub const CONTROL_BYTES_MAX: u64 = 64 << 20;

/// The bound of the stream of session records, which there is where sessions are recovered: some 100,000. Beyond, those that were written
/// longest ago go, and their clients begin anew.
pub const SESSIONS_BYTES_MAX: u64 = 64 << 20;

impl Config {
    /// Returns the most bytes of the stream of last values, given those of one partition.
    #[must_use]
    pub const fn values_bytes_max(stream_bytes_max: u64) -> u64 {
        stream_bytes_max.saturating_mul(VALUES_SHARE)
    }

    /// Returns the bytes that each server with all streams reserves. JetStream reserves a stream's bound when the
    /// stream is created.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        let partitions = self.stream_bytes_max.saturating_mul(self.partitions.into());
        let values = Self::values_bytes_max(self.stream_bytes_max);
        partitions + values + RECORDS_BYTES_MAX + CONTROL_BYTES_MAX
    }
}

/// Returns the configuration of the stream of records: epochs and the settings of the cluster.
pub(super) fn records(config: &Config, subjects: &Subjects, replicas: usize) -> stream::Config {
    stream::Config {
        max_messages_per_subject: 1,
        max_bytes: bytes(RECORDS_BYTES_MAX),
        num_replicas: replicas,
        ..common(config, subjects.stream_of('m'), subjects.all_of('m'))
    }
}

/// Returns the configuration common to all streams of events and records.
#[must_use]
pub fn common(config: &Config, name: String, subject: String) -> stream::Config {
    stream::Config {
        name,
        subjects: vec![subject],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        storage: config.storage.into(),
        num_replicas: config.replicas,
        // Batched direct gets need `allow_direct`; `deny_delete` is what the completeness proof of histories rests on.
        allow_direct: true,
        deny_delete: true,
        max_messages: -1,
        max_message_size: -1,
        max_consumers: -1,
        ..stream::Config::default()
    }
}

/// Converts a bound to the server's type.
#[must_use]
pub fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Creates a stream, or updates the existing one to this shape.
///
/// # Errors
/// [`NatsError::Refused`] where a setting has to be changed, else [`NatsError::JetStream`].
pub async fn ensure(context: &Context, config: &Config, shape: stream::Config) -> Result<(), NatsError> {
    let name = shape.name.clone();
    // Looked up first: a server whose storage is fully reserved refuses to create even an existing stream.
    if let Ok(there) = context.get_stream(&name).await {
        return reshape(context, config, &there.cached_info().config, shape).await;
    }
    match context.create_stream(shape.clone()).await {
        Ok(_) => Ok(()),
        // Another node was first.
        Err(error) if exists(&error) => {
            let there = context.get_stream(&name).await;
            let there = there.map_err(|error| NatsError::JetStream(format!("stream {name}: {error}")))?;
            reshape(context, config, &there.cached_info().config, shape).await
        }
        Err(error) => Err(refused(config, &name, &error)),
    }
}

/// Sets the number of servers that hold a stream.
///
/// # Errors
/// [`NatsError::JetStream`], also when the stream is missing.
pub(super) async fn replicate(context: &Context, name: &str, replicas: u64) -> Result<(), NatsError> {
    let there = context
        .get_stream(name)
        .await
        .map_err(|error| unchanged(name, &error))?;
    let there = there.cached_info().config.clone();
    let num_replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    if there.num_replicas == num_replicas || there.sealed {
        return Ok(());
    }
    let replicated = context.update_stream(stream::Config { num_replicas, ..there }).await;
    replicated.map(drop).map_err(|error| unchanged(name, &error))
}

fn unchanged(name: &str, error: &dyn Display) -> NatsError {
    NatsError::JetStream(format!("stream {name}: {error}"))
}

async fn reshape(
    context: &Context,
    config: &Config,
    there: &stream::Config,
    shape: stream::Config,
) -> Result<(), NatsError> {
    let name = shape.name.clone();
    if there.sealed {
        return Err(sealed(&name));
    }
    if there.storage != shape.storage {
        return Err(NatsError::Refused(format!(
            "the stream {name} is kept otherwise than nats.storage says, and that of a stream cannot be changed: set it as it \
             was, or end all nodes and delete the streams {}-*, with all histories",
            config.deployment
        )));
    }
    if is_shaped(there, &shape) {
        return Ok(());
    }
    let updated = context.update_stream(shape).await;
    updated.map(drop).map_err(|error| refused(config, &name, &error))
}

/// Reports whether a stream matches the shape, in every field set here.
fn is_shaped(there: &stream::Config, shape: &stream::Config) -> bool {
    let limits = |config: &stream::Config| {
        (
            config.max_bytes,
            config.max_age,
            config.max_messages_per_subject,
            config.max_messages,
            config.max_message_size,
            config.duplicate_window,
            config.num_replicas,
            (config.discard, config.retention),
            (config.allow_direct, config.deny_delete),
        )
    };
    let is_republished = match (&there.republish, &shape.republish) {
        (Some(there), Some(shape)) => (&there.source, &there.destination) == (&shape.source, &shape.destination),
        (there, shape) => there.is_none() && shape.is_none(),
    };
    limits(there) == limits(shape) && there.subjects == shape.subjects && is_republished
}

/// Returns the error for a stream that is read-only for good.
#[must_use]
pub fn sealed(name: &str) -> NatsError {
    NatsError::Refused(format!(
        "the stream {name} is sealed, so it accepts no messages: delete it, and it is recreated"
    ))
}

/// Reports whether a stream was not created because one of this name exists.
fn exists(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(refused) if refused.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// Explains why a stream cannot be created, with the settings that have to be changed.
#[must_use]
pub fn refused(config: &Config, name: &str, error: &CreateStreamError) -> NatsError {
    let hint = match error.kind() {
        CreateStreamErrorKind::JetStream(refused) => hint(config, &refused),
        _ => None,
    };
    match hint {
        Some(hint) => NatsError::Refused(format!("stream {name}: {error}: {hint}")),
        None => NatsError::JetStream(format!("stream {name}: {error}")),
    }
}

/// Returns the remedy for a refusal that does not go away by itself.
fn hint(config: &Config, refused: &jetstream::Error) -> Option<String> {
    match refused.error_code() {
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => Some(format!(
            "{} are reserved in all, most of it as nats.partitions = {} times nats.stream_bytes_max = {}: lower one of them, or \
             give JetStream more (max_file or max_mem of the server, the limits of the account)",
            size(config.reserved_bytes()),
            config.partitions,
            size(config.stream_bytes_max),
        )),
        ErrorCode::MAXIMUM_STREAMS_LIMIT => Some(format!(
            "nats.partitions = {} needs {} streams: lower it, or raise the limit of the account",
            config.partitions,
            u32::from(config.partitions) + 3,
        )),
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => Some(format!(
            "nats.replicas = {} needs a cluster of NATS servers; a server alone holds 1",
            config.replicas
        )),
        ErrorCode::STREAM_INVALID_CONFIG if refused.to_string().contains("duplicate") => Some(format!(
            "nats.idempotency_window = {} is longer than the server allows",
            humantime::format_duration(config.idempotency_window)
        )),
        ErrorCode::STREAM_SUBJECT_OVERLAP => Some(format!(
            "another stream of the account captures subjects of nats.deployment = {:?}: give one of them another name",
            config.deployment
        )),
        _ => None,
    }
}

/// Formats a size as in the configuration where that is exact, else with one decimal.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, factor)) = UNITS.into_iter().find(|(_, factor)| bytes >= *factor) else {
        return format!("{bytes} B");
    };
    if bytes.is_multiple_of(factor) {
        return format!("{} {unit}", bytes / factor);
    }
    let finer = UNITS
        .into_iter()
        .find(|(_, finer)| *finer < factor && bytes.is_multiple_of(*finer));
    match finer {
        Some((unit, factor)) if bytes / factor < 10_000 => format!("{} {unit}", bytes / factor),
        _ => format!("{}.{} {unit}", bytes / factor, bytes % factor * 10 / factor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_in_the_configuration() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1000, "1000 B"),
            (64 << 10, "64 KiB"),
            (256 << 20, "256 MiB"),
            (3 << 29, "1536 MiB"),
            (2 << 30, "2 GiB"),
            ((1 << 30) + 1, "1.0 GiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn the_default_reserves_little_more_than_two_gibibytes() {
        let reserved = Config::default().reserved_bytes();
        assert!((2 << 30..5 << 29).contains(&reserved), "{}", size(reserved));
    }
}
