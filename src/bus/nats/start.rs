//! Prepares the streams when a node starts, before it serves anything.

use futures_util::{StreamExt as _, stream};
use tokio::sync::OnceCell;

use super::epochs::{self, Settled, Wrote};
use super::incarnation::Incarnation;
use super::server::Server;
use super::streams::{self, Shape};
use crate::nats::agreement::Agreement;
use crate::nats::{self, NatsError};

/// The number of partitions that are checked concurrently: a start of many nodes must not flood the metadata leader.
const AT_ONCE: usize = 8;

/// The incarnations of the streams at the start.
pub(super) struct Started {
    pub values: Incarnation,
    /// In order of their numbers.
    pub partitions: Vec<Incarnation>,
}

/// Creates the streams, joins the cluster's agreement on their limits, and settles their epochs.
pub(super) async fn start(server: &Server, agreement: &Agreement) -> Result<Started, NatsError> {
    let settings = server.nats.config();
    let context = server.nats.jetstream_to_make_streams();
    loop {
        let shape = Shape::in_force(agreement);
        streams::ensure_all(&context, settings, server.nats.subjects(), &shape).await?;
        if agreement.commit().await? {
            break;
        }
    }
    let starting = Starting {
        server,
        agreement,
        others: OnceCell::new(),
    };
    let (values, _) = starting.values().await?;
    let partitions = stream::iter(0..settings.partitions)
        .map(|number| starting.partition(number))
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let partitions = partitions.into_iter().collect::<Result<Vec<_>, _>>()?;
    if partitions.iter().any(|(_, wrote)| wrote.is_some()) {
        let reserved = nats::streams::size(settings.reserved_bytes());
        tracing::info!(partitions = settings.partitions, replicas = settings.replicas, %reserved, "streams created");
    }
    Ok(Started {
        values,
        partitions: partitions.into_iter().map(|(incarnation, _)| incarnation).collect(),
    })
}

/// The context of a start.
struct Starting<'a> {
    server: &'a Server,
    agreement: &'a Agreement,
    /// Other nodes run, which may have to write records back.
    others: OnceCell<bool>,
}

impl Starting<'_> {
    async fn values(&self) -> Result<(Incarnation, Option<Wrote>), NatsError> {
        let subjects = self.server.nats.subjects();
        self.known(subjects.stream_of('v'), subjects.values_epoch()).await
    }

    async fn partition(&self, number: u16) -> Result<(Incarnation, Option<Wrote>), NatsError> {
        let subjects = self.server.nats.subjects();
        self.known(subjects.stream_of_partition(number), subjects.epoch(number))
            .await
    }

    /// Settles the epoch of a stream.
    async fn known(&self, stream: String, record: String) -> Result<(Incarnation, Option<Wrote>), NatsError> {
        let others_run = async || *self.others.get_or_init(|| self.agreement.call()).await;
        let settled = epochs::first(self.server, self.agreement, (&stream, &record), others_run).await;
        let settled = settled.map_err(|failed| NatsError::JetStream(format!("epoch of {stream}: {failed}")))?;
        let Settled { identity, state, wrote } = settled;
        Ok((Incarnation::new(stream, record, identity, state.last), wrote))
    }
}
