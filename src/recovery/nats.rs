//! Session records over NATS: one message for each session in the stream `d-s`, written by compare-and-set. They outlive a node.

mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message as _;

use super::{Record, RecordKey, Store, StoreUnavailable, Stored};
use crate::nats::records;
use crate::nats::request::RequestFailed;
use crate::nats::{Nats, NatsError, streams};
use crate::proto::node_v1::SessionRecord;

/// The age from which a record of a session that lives is written again. Its stream keeps it for twice as long, besides the time for
/// which a client may be away: 100,000 sessions are 55 writes in a second.
const REFRESH_AFTER: Duration = Duration::from_secs(30 * 60);

/// The longest a client that connects or joins waits for a record.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The records of a deployment.
#[derive(Debug)]
pub struct NatsStore {
    nats: Arc<Nats>,
    away_max: Duration,
}

impl NatsStore {
    /// Makes the stream, unless it is there. A record is kept for so long, at least, after its session has ended.
    ///
    /// # Errors
    /// [`NatsError::Refused`] and [`NatsError::JetStream`].
    pub async fn start(nats: Arc<Nats>, away_max: Duration) -> Result<Self, NatsError> {
        let store = Self { nats, away_max };
        store.make_stream().await?;
        Ok(store)
    }

    async fn make_stream(&self) -> Result<(), NatsError> {
        let (config, subjects) = (self.nats.config(), self.nats.subjects());
        let shape = stream::Config {
            max_messages_per_subject: 1,
            max_age: self.away_max + REFRESH_AFTER * 2,
            max_bytes: streams::bytes(streams::SESSIONS_BYTES_MAX),
            ..streams::common(config, subjects.stream_of('s'), subjects.all_of('s'))
        };
        streams::ensure(&self.nats.jetstream_to_make_streams(), config, shape).await
    }

    async fn read_now(&self, key: RecordKey) -> Result<Option<Stored>, RequestFailed> {
        let (subject, stream) = (self.nats.subjects().session(&key), self.nats.subjects().stream_of('s'));
        let stored = match records::read(&self.nats.jetstream(), &stream, &subject).await {
            // Without its stream there is no record.
            Err(RequestFailed::NoStream) => None,
            read => read?,
        };
        Ok(stored.and_then(|stored| {
            // Nothing stands in place of one that was removed, and one of a later release is none.
            let record = SessionRecord::decode(stored.payload).ok().and_then(wire::record)?;
            let revision = stored.seq;
            Some(Stored { record, revision })
        }))
    }

    async fn write_now(&self, key: RecordKey, content: Vec<u8>, over: u64) -> Result<Option<u64>, RequestFailed> {
        let (context, subject, content) = (
            self.nats.jetstream(),
            self.nats.subjects().session(&key),
            Bytes::from(content),
        );
        let written = records::put(&context, subject.clone(), over, content.clone()).await;
        if !matches!(written, Err(RequestFailed::NoStream)) {
            return written;
        }
        // The stream was deleted. Records of open sessions are written again at their next refresh.
        let made = Box::pin(self.make_stream()).await;
        made.map_err(RequestFailed::unavailable)?;
        records::put(&context, subject, over, content).await
    }
}

/// Waits for an answer of the stream, for a bounded time.
async fn answered<T>(asking: impl Future<Output = Result<T, RequestFailed>>) -> Result<T, StoreUnavailable> {
    let answer = tokio::time::timeout(ANSWER_MAX, asking).await;
    answer.ok().and_then(Result::ok).ok_or(StoreUnavailable)
}

impl Store for NatsStore {
    fn read(self: Arc<Self>, key: RecordKey) -> BoxFuture<'static, Result<Option<Stored>, StoreUnavailable>> {
        Box::pin(async move { answered(self.read_now(key)).await })
    }

    fn write(
        self: Arc<Self>,
        key: RecordKey,
        record: Record,
        over: u64,
    ) -> BoxFuture<'static, Result<Option<u64>, StoreUnavailable>> {
        let content = wire::session(&record).encode_to_vec();
        Box::pin(async move { answered(self.write_now(key, content, over)).await })
    }

    fn remove(self: Arc<Self>, key: RecordKey, revision: u64) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // One that cannot be removed ends with its time. Its client has no reason to come back.
            let _ = answered(self.write_now(key, Vec::new(), revision)).await;
        })
    }

    /// Nothing: the stream drops it by its age. A node that was killed could not have noted it either.
    fn left(&self, _: RecordKey, _: u64) {}

    fn refresh_after(&self) -> Option<Duration> {
        Some(REFRESH_AFTER)
    }
}
