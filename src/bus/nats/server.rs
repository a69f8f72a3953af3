//! What is asked of the server: where a stream and a room stand, and what a stream holds.
//!
//! `head`, `next`, `message`, `state` and `removed` are answered by the stream's leader and say how it is. `events` and
//! `heads` may be answered by a replica that is behind: who needs to know more compares with the leader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_STREAM, NATS_MESSAGE_ID, NATS_SEQUENCE, NATS_SUBJECT};
use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind};
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::partition::lock;
use super::wire;
use crate::bus::BusUnavailable;
use crate::event::{Event, Timestamp};
use crate::nats::Nats;
use crate::room::Room;

/// The most subjects of one request for heads (`nats-server`: 1,024).
pub(super) const HEADS_MAX: usize = 1024;

/// Headers of the end of a batch (NATS ADR-31).
const NUM_PENDING: &str = "Nats-Num-Pending";
const UP_TO_SEQUENCE: &str = "Nats-UpTo-Sequence";

/// How long a leader is waited for before it is asked again, the first time; then ever longer.
const AGAIN_MIN: Duration = Duration::from_millis(200);

/// Why the server did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silence {
    /// There is no such stream.
    #[error("nats has lost a stream")]
    NoStream,
    /// No answer came in time, or one that says "not now".
    #[error("nats does not answer")]
    Away,
}

impl From<Silence> for BusUnavailable {
    fn from(silence: Silence) -> Self {
        Self(match silence {
            Silence::NoStream => "nats has lost a stream",
            Silence::Away => "nats does not answer",
        })
    }
}

/// How a stream is, by its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamState {
    /// When it was made.
    pub created: String,
    /// The oldest sequence it holds.
    pub first: u64,
    /// The newest sequence it has given.
    pub last: u64,
    /// How many sequences between the two it holds no more.
    pub removed: u64,
}

impl StreamState {
    pub(super) fn of(info: &Info) -> Self {
        Self {
            created: info.created.unix_timestamp_nanos().to_string(),
            first: info.state.first_sequence,
            last: info.state.last_sequence,
            removed: info.state.deleted_count.unwrap_or(0),
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

/// The heads of several subjects.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub messages: Vec<Stored>,
    /// Through which sequence the one who answered knew the stream.
    pub up_to: Option<u64>,
}

/// Which end of what was read is kept when there is more than `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// The oldest; nothing more is read then.
    Oldest { max: usize },
    /// The newest; everything is read.
    Newest { max: usize },
}

/// A room's stored events.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// With their sequences, oldest first.
    pub events: Vec<(u64, Event)>,
    /// The newest sequence that was read, also of what no node has written.
    pub reached: u64,
    /// The oldest were left out.
    pub cut: bool,
    /// The newest may have been left out.
    pub full: bool,
}

/// The way to the server.
#[derive(Debug)]
pub(super) struct Server {
    pub nats: Arc<Nats>,
    /// `JetStream` over one line of the control connection.
    context: Mutex<(u64, Context)>,
    /// Bounds the reads that are under way.
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

    /// `JetStream` over the control connection as it is now. Not to be kept: the link may move.
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

    /// Asks again what was not answered: a leader that hands its stream over answers nothing any more, its successor does.
    async fn again<T>(&self, ask: impl Fn() -> BoxFuture<'static, T>) -> Result<T, Silence> {
        let (until, mut patience) = (Instant::now() + self.patience(), AGAIN_MIN);
        while Instant::now() < until {
            if let Ok(answer) = timeout_at(until.min(Instant::now() + patience), ask()).await {
                return Ok(answer);
            }
            patience *= 2;
        }
        Err(Silence::Away)
    }

    /// Waits for a turn to read, which ends when the answer is dropped.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Silence> {
        self.reads.acquire().await.map_err(|_| Silence::Away)
    }

    /// A stream to read a message of, and the turn to do so.
    async fn open(&self, stream: &str) -> Result<(Stream<()>, SemaphorePermit<'_>), Silence> {
        let turn = self.turn().await?;
        match self.context().get_stream_no_info(stream).await {
            Ok(stream) => Ok((stream, turn)),
            Err(_) => Err(Silence::Away),
        }
    }

    /// How a stream is.
    pub(super) async fn state(&self, stream: &str) -> Result<StreamState, Silence> {
        let ask = || {
            let (context, stream) = (self.context(), stream.to_owned());
            async move { context.get_stream(stream).await }.boxed()
        };
        match self.again(ask).await? {
            Ok(stream) => Ok(StreamState::of(stream.cached_info())),
            Err(error) => Err(match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Silence::NoStream
                }
                _ => Silence::Away,
            }),
        }
    }

    /// How a stream is, and which sequences it holds no more.
    pub(super) async fn removed(&self, stream: &str) -> Result<Info, Silence> {
        let ask = || {
            let (context, stream) = (self.context(), stream.to_owned());
            let asking = async move {
                let stream = context.get_stream_no_info(stream).await.ok()?;
                let info = stream.info_builder().with_deleted(true).fetch().await.ok()?;
                Some(info.info)
            };
            asking.boxed()
        };
        self.again(ask).await?.ok_or(Silence::Away)
    }

    /// The newest message of a subject.
    pub(super) async fn head(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Silence> {
        let (stream, _turn) = self.open(stream).await?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(Stored {
                seq: message.sequence,
                time: wire::timestamp(message.time).ok_or(Silence::Away)?,
                payload: message.payload,
                subject: message.subject.to_string(),
            })),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Err(Silence::NoStream)
                }
                _ => Err(Silence::Away),
            },
        }
    }

    /// The message at a sequence; `None` when the stream does not hold it any more.
    pub(super) async fn message(&self, stream: &str, seq: u64) -> Result<Option<Bytes>, Silence> {
        let (stream, _turn) = self.open(stream).await?;
        match stream.get_raw_message(seq).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(Silence::Away),
            },
        }
    }

    /// The first message of a subject at or after a sequence, and under which identifier it was published.
    pub(super) async fn next(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<Option<(u64, Option<String>)>, Silence> {
        let (stream, _turn) = self.open(stream).await?;
        let asking = stream.raw_message_builder().sequence(from).next_by_subject(subject);
        match asking.send().await {
            Ok(message) => {
                let id = message.headers.get(NATS_MESSAGE_ID).map(|id| id.as_str().to_owned());
                Ok(Some((message.sequence, id)))
            }
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(Silence::Away),
            },
        }
    }

    /// Waits until the leader of a partition has seen every subscription that was made on the fan-out connection before:
    /// a publish that it refuses stands in line behind them on the whole way, and writes nothing.
    pub(super) async fn barrier(&self, partition: u16) -> Result<(), Silence> {
        let subject = self.nats.subjects().barrier(partition);
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, "-");
        let ask = || {
            let (subject, headers) = (subject.clone(), headers.clone());
            let client = self.nats.fanout().client();
            async move { client.request_with_headers(subject, headers, Bytes::new()).await }.boxed()
        };
        match self.again(ask).await? {
            Ok(_) => Ok(()),
            // Without a leader nobody responds; whether there is no stream says `state`.
            Err(_) => Err(Silence::Away),
        }
    }

    /// A room's stored events from `from` on, oldest first; what no node has written is left out. The stream may remove
    /// events while it is read.
    pub(super) async fn events(&self, partition: u16, room: &Room, from: u64, keep: Keep) -> Result<Events, Silence> {
        let _turn = self.turn().await?;
        let subjects = self.nats.subjects();
        let stream = subjects.stream_of_partition(partition);
        let subject = subjects.history(partition, room);
        let (Keep::Oldest { max } | Keep::Newest { max }) = keep;
        let mut read = Events {
            reached: from.saturating_sub(1),
            ..Events::default()
        };
        let mut events = VecDeque::new();
        loop {
            let request = json!({"seq": read.reached + 1, "next_by_subj": subject, "batch": max.max(1)});
            let answer = self.direct(&stream, &request).await?;
            let Some(last) = answer.messages.last() else { break };
            read.reached = last.seq;
            events.extend(answer.messages.into_iter().filter_map(|stored| {
                let event = wire::event(room, stored.payload, stored.time)?;
                Some((stored.seq, event))
            }));
            let excess = events.len().saturating_sub(max);
            match keep {
                Keep::Oldest { .. } => read.full = events.len() >= max && answer.pending > 0,
                Keep::Newest { .. } => {
                    read.cut |= excess > 0;
                    events.drain(..excess);
                }
            }
            if answer.pending == 0 || read.full {
                break;
            }
        }
        read.events = events.into();
        Ok(read)
    }

    /// The newest messages of up to [`HEADS_MAX`] subjects, of those that have one at `from` or later.
    pub(super) async fn heads(&self, stream: &str, subjects: &[String], from: u64) -> Result<Heads, Silence> {
        let _turn = self.turn().await?;
        let request = json!({"multi_last": subjects, "seq": from, "batch": HEADS_MAX});
        let answer = self.direct(stream, &request).await?;
        Ok(Heads {
            messages: answer.messages,
            up_to: answer.up_to,
        })
    }

    /// A batched direct get (NATS ADR-31), which the library does not have.
    async fn direct(&self, stream: &str, request: &serde_json::Value) -> Result<Answer, Silence> {
        let client = self.nats.control().client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|_| Silence::Away)?;
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let sent = client
            .publish_with_reply(subject, inbox, request.to_string().into())
            .await;
        sent.map_err(|_| Silence::Away)?;
        let mut answer = Answer::default();
        loop {
            let message = next(&mut answers, self.patience()).await?;
            match message.status {
                None => answer.messages.push(read(message).ok_or(Silence::Away)?),
                Some(StatusCode::NOT_FOUND) => return Ok(answer),
                Some(status) if status.as_u16() == 204 => {
                    let number = |name| message.headers.as_ref().and_then(|headers| wire::number(headers, name));
                    answer.pending = number(NUM_PENDING).unwrap_or(0);
                    answer.up_to = number(UP_TO_SEQUENCE);
                    return Ok(answer);
                }
                Some(StatusCode::NO_RESPONDERS) => return Err(Silence::Away),
                Some(status) => {
                    let said = message.description.unwrap_or_default();
                    tracing::warn!(%status, said, "nats refused a read");
                    return Err(Silence::Away);
                }
            }
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

#[derive(Debug, Default)]
struct Answer {
    messages: Vec<Stored>,
    pending: u64,
    up_to: Option<u64>,
}

async fn next(answers: &mut Subscriber, patience: Duration) -> Result<Message, Silence> {
    match timeout(patience, answers.next()).await {
        Ok(Some(message)) => Ok(message),
        Ok(None) | Err(_) => Err(Silence::Away),
    }
}

fn read(message: Message) -> Option<Stored> {
    let headers = message.headers?;
    Some(Stored {
        subject: headers.get(NATS_SUBJECT)?.as_str().to_owned(),
        seq: wire::number(&headers, NATS_SEQUENCE)?,
        time: wire::time(&headers)?,
        payload: message.payload,
    })
}
