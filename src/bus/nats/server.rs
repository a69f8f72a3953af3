//! Queries of the server: the state of a stream, the head of a room, the content of a stream.
//!
//! `head`, `next`, `message`, `state` and `removed` are served by the stream's leader and are current. `events` and
//! `heads` may be served by a replica that lags: a caller that needs more compares with the leader.

mod batch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind};
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::wire;
use crate::bus::BusUnavailable;
use crate::event::Timestamp;
use crate::nats::Nats;
use crate::nats::request::RequestFailed;
use crate::sync::lock;
pub(super) use batch::{HEADS_MAX, Keep};

/// The timeout of the first query to a leader before it is repeated; it doubles each time.
const AGAIN_MIN: Duration = Duration::from_millis(200);

/// The cause of a failure without a response.
const UNANSWERED: &str = "no response in time";

impl From<RequestFailed> for BusUnavailable {
    fn from(failed: RequestFailed) -> Self {
        // The cause ends here: callers learn what holds for them.
        tracing::debug!(error = &failed as &dyn std::error::Error, "nats request failed");
        Self(match failed {
            RequestFailed::NoStream => "nats stream lost",
            RequestFailed::ReadOnly => "nats stream sealed",
            RequestFailed::Unavailable(_) => "nats unavailable",
        })
    }
}

/// The state of a stream, as its leader reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamState {
    /// The creation time.
    pub created: String,
    /// The oldest sequence it holds.
    pub first: u64,
    /// The newest sequence it has assigned.
    pub last: u64,
    /// The number of sequences between the two that it no longer holds.
    pub removed: u64,
    /// The stream accepts no more messages.
    pub sealed: bool,
}

impl StreamState {
    pub(super) fn of(info: &Info) -> Self {
        Self {
            created: info.created.unix_timestamp_nanos().to_string(),
            first: info.state.first_sequence,
            last: info.state.last_sequence,
            removed: info.state.deleted_count.unwrap_or(0),
            sealed: info.config.sealed,
        }
    }
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub subject: String,
    pub seq: u64,
    pub time: Timestamp,
    pub payload: Bytes,
}

/// The access to the server.
#[derive(Debug)]
pub(super) struct Server {
    pub nats: Arc<Nats>,
    /// The `JetStream` context, with the number of the control connection's line that it uses.
    context: Mutex<(u64, Context)>,
    /// Bounds the concurrent reads.
    reads: Semaphore,
}

impl Server {
    pub(super) fn new(nats: Arc<Nats>, reads_max: usize) -> Self {
        let line = nats.control().line_number();
        Self {
            context: Mutex::new((line, context(&nats))),
            nats,
            reads: Semaphore::new(reads_max),
        }
    }

    /// Returns the `JetStream` context of the current control connection. Not to be kept: the link may move.
    pub(super) fn context(&self) -> Context {
        let line = self.nats.control().line_number();
        let mut known = lock(&self.context);
        if known.0 != line {
            *known = (line, context(&self.nats));
        }
        known.1.clone()
    }

    fn patience(&self) -> Duration {
        self.nats.config().request_timeout
    }

    /// Repeats an unanswered query. A leader that hands its stream over stops responding; its successor responds.
    async fn again<T>(&self, ask: impl Fn() -> BoxFuture<'static, T>) -> Result<T, RequestFailed> {
        let (until, mut patience) = (Instant::now() + self.patience(), AGAIN_MIN);
        while Instant::now() < until {
            if let Ok(answer) = timeout_at(until.min(Instant::now() + patience), ask()).await {
                return Ok(answer);
            }
            patience *= 2;
        }
        Err(RequestFailed::unavailable(UNANSWERED))
    }

    /// Waits for a read permit, which is released when it is dropped.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, RequestFailed> {
        self.reads.acquire().await.map_err(RequestFailed::unavailable)
    }

    /// Opens a stream to read a message of it, with a read permit.
    async fn open(&self, stream: &str) -> Result<(Stream<()>, SemaphorePermit<'_>), RequestFailed> {
        let turn = self.turn().await?;
        match self.context().get_stream_no_info(stream).await {
            Ok(stream) => Ok((stream, turn)),
            Err(error) => Err(RequestFailed::unavailable(error)),
        }
    }

    /// Returns the state of a stream.
    pub(super) async fn state(&self, stream: &str) -> Result<StreamState, RequestFailed> {
        let ask = || {
            let (context, stream) = (self.context(), stream.to_owned());
            async move { context.get_stream(stream).await }.boxed()
        };
        match self.again(ask).await? {
            Ok(stream) => Ok(StreamState::of(stream.cached_info())),
            Err(error) => Err(match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    RequestFailed::NoStream
                }
                _ => RequestFailed::unavailable(error),
            }),
        }
    }

    /// Returns the state of a stream, with the sequences that it no longer holds.
    pub(super) async fn removed(&self, stream: &str) -> Result<Info, RequestFailed> {
        let ask = || {
            let (context, stream) = (self.context(), stream.to_owned());
            let asking = async move {
                let stream = context.get_stream_no_info(stream).await;
                let stream = stream.map_err(RequestFailed::unavailable)?;
                let info = stream.info_builder().with_deleted(true).fetch().await;
                Ok(info.map_err(RequestFailed::unavailable)?.info)
            };
            asking.boxed()
        };
        self.again(ask).await?
    }

    /// Returns the newest message of a subject.
    pub(super) async fn head(&self, stream: &str, subject: &str) -> Result<Option<Stored>, RequestFailed> {
        let (stream, _turn) = self.open(stream).await?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(Stored {
                seq: message.sequence,
                time: wire::timestamp(message.time)
                    .ok_or_else(|| RequestFailed::unavailable("a message has no time"))?,
                payload: message.payload,
                subject: message.subject.to_string(),
            })),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Err(RequestFailed::NoStream)
                }
                _ => Err(RequestFailed::unavailable(error)),
            },
        }
    }

    /// Returns the message at a sequence; `None` when the stream no longer holds it.
    pub(super) async fn message(&self, stream: &str, seq: u64) -> Result<Option<Bytes>, RequestFailed> {
        let (stream, _turn) = self.open(stream).await?;
        match stream.get_raw_message(seq).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(RequestFailed::unavailable(error)),
            },
        }
    }

    /// Returns the first message of a subject at or after a sequence: its sequence and the identifier under which it
    /// was published.
    pub(super) async fn next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<(u64, Option<String>)>, RequestFailed> {
        let (stream, _turn) = self.open(stream).await?;
        let asking = stream.raw_message_builder().sequence(from).next_by_subject(subject);
        match asking.send().await {
            Ok(message) => {
                let id = message.headers.get(NATS_MESSAGE_ID).map(|id| id.as_str().to_owned());
                Ok(Some((message.sequence, id)))
            }
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(RequestFailed::unavailable(error)),
            },
        }
    }

    /// Waits until the leader of a partition has seen every subscription made on the fan-out connection before. A
    /// publish that the leader refuses is queued behind them on the whole way, and writes nothing.
    pub(super) async fn barrier(&self, partition: u16) -> Result<(), RequestFailed> {
        let subject = self.nats.subjects().barrier(partition);
        let mut headers = HeaderMap::new();
        // No stream of the deployment has this name, so its leader refuses the publish.
        headers.insert(NATS_EXPECTED_STREAM, "-");
        let ask = || {
            let (subject, headers) = (subject.clone(), headers.clone());
            let client = self.nats.fanout().client();
            async move { client.request_with_headers(subject, headers, Bytes::new()).await }.boxed()
        };
        match self.again(ask).await? {
            Ok(_) => Ok(()),
            // Without a leader there is no responder. `state` reports whether the stream exists.
            Err(error) => Err(RequestFailed::unavailable(error)),
        }
    }
}

fn context(nats: &Nats) -> Context {
    let settings = nats.config();
    ContextBuilder::new()
        .timeout(settings.request_timeout)
        .ack_timeout(settings.publish_timeout)
        .max_ack_inflight(settings.publishes_in_flight_max.saturating_mul(2))
        .backpressure_on_inflight(true)
        .build(nats.control().client())
}
