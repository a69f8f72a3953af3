//! Publishing over gRPC, as a backend does.
//!
//! Rooms are shared out over lanes. A lane publishes its events one call after the other, so that the events of a room
//! keep their order, and with a stream without waiting for answers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::ValueEnum;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Burst, Counts, Style};
use crate::crowd::room_name;
use crate::stamp::Stamp;
use crate::target::Api;
use roomcast::cli::failure::{Failure, chain};
use roomcast::cli::publish::{bearer, channel};
use roomcast::proto::v1::publish_batch_result::Outcome as BatchOutcome;
use roomcast::proto::v1::publish_service_client::PublishServiceClient;
use roomcast::proto::v1::publish_stream_response::Outcome;
use roomcast::proto::v1::{
    Payload, Position, PublishBatchRequest, PublishRequest, PublishStreamRequest, PublishStreamResponse, Target,
    payload, target,
};

/// Bursts of a lane that wait until it is their turn.
const WAITING_MAX: usize = 1024;

/// The most events of one batch, as the contract says.
const BATCH_MAX: u64 = 100;

/// Events on their way into a stream: as many as the gateway takes without answering.
const STREAM_WAITING_MAX: usize = 64;

/// The deadline of connecting, and of one call.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The method a burst is published with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum With {
    /// One `Publish` for each event
    Unary,
    /// One `PublishBatch` for each burst
    Batch,
    /// One `PublishStream` for all
    Stream,
}

impl With {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Batch => "batch",
            Self::Stream => "stream",
        }
    }
}

/// The lanes, on a runtime of their own.
pub(super) struct Grpc {
    lanes: Vec<mpsc::Sender<Burst>>,
    thread: JoinHandle<()>,
}

impl Grpc {
    pub(super) fn start(api: Api, style: Style, counts: Arc<Counts>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Undone(format!("cannot publish: {error}"));
        let token = api.token.as_deref().map(bearer).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let (lanes, waiting): (Vec<_>, Vec<_>) = (0..style.lanes).map(|_| mpsc::channel(WAITING_MAX)).unzip();
        let thread = thread::Builder::new().name("grpc".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(async {
                let style = Arc::new(style);
                let channel = match channel(&api.url, TIMEOUT) {
                    Ok(channel) => channel,
                    Err(failure) => return counts.breaks(failure.to_string()),
                };
                let lanes = waiting.into_iter().map(|bursts| {
                    let lane = Lane {
                        channel: channel.clone(),
                        token: token.clone(),
                        style: style.clone(),
                        counts: counts.clone(),
                    };
                    lane.run(bursts)
                });
                let mut lanes: tokio::task::JoinSet<()> = lanes.collect();
                while lanes.join_next().await.is_some() {}
            });
        });
        Ok(Self {
            lanes,
            thread: thread.map_err(failed)?,
        })
    }

    pub(super) fn send(&self, burst: Burst) -> Result<(), String> {
        let lane = &self.lanes[burst.room as usize % self.lanes.len()];
        lane.blocking_send(burst).map_err(|_| "publishing broke off".to_owned())
    }

    pub(super) fn finish(self) {
        drop(self.lanes);
        // A panic has told about itself.
        let _ = self.thread.join();
    }
}

/// A share of the rooms.
pub(super) struct Lane {
    pub(super) channel: Channel,
    pub(super) token: Option<MetadataValue<Ascii>>,
    pub(super) style: Arc<Style>,
    pub(super) counts: Arc<Counts>,
}

impl Lane {
    pub(super) async fn run(self, bursts: mpsc::Receiver<Burst>) {
        let done = match self.style.with {
            With::Unary => self.unary(bursts).await,
            With::Batch => self.batches(bursts).await,
            With::Stream => self.stream(bursts).await,
        };
        if let Err(status) = done {
            self.counts.breaks(format!("publishing broke off: {}", chain(&status)));
        }
    }

    fn client(&self) -> PublishServiceClient<Channel> {
        PublishServiceClient::new(self.channel.clone())
    }

    fn call<T>(&self, message: T, timeout: Option<Duration>) -> tonic::Request<T> {
        let mut call = tonic::Request::new(message);
        if let Some(token) = &self.token {
            call.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(timeout) = timeout {
            call.set_timeout(timeout);
        }
        call
    }

    async fn unary(&self, mut bursts: mpsc::Receiver<Burst>) -> Result<(), Status> {
        let mut client = self.client();
        while let Some(burst) = bursts.recv().await {
            for request in self.style.requests(&burst) {
                match client.publish(self.call(request, Some(TIMEOUT))).await {
                    Ok(_) => self.acknowledged(1),
                    Err(status) => self.counts.refuses(1, chain(&status)),
                }
            }
        }
        Ok(())
    }

    async fn batches(&self, mut bursts: mpsc::Receiver<Burst>) -> Result<(), Status> {
        let mut client = self.client();
        while let Some(burst) = bursts.recv().await {
            let end = burst.first + burst.count;
            let mut first = burst.first;
            while first < end {
                let count = (end - first).min(BATCH_MAX);
                let part = Burst {
                    first,
                    count,
                    ..burst.clone()
                };
                let requests = self.style.requests(&part).collect();
                let call = self.call(PublishBatchRequest { requests }, Some(TIMEOUT));
                for result in client.publish_batch(call).await?.into_inner().results {
                    match result.outcome {
                        Some(BatchOutcome::Error(refusal)) => self.counts.refuses(1, refusal.message),
                        Some(BatchOutcome::Response(_)) | None => self.acknowledged(1),
                    }
                }
                first += count;
            }
        }
        Ok(())
    }

    async fn stream(&self, mut bursts: mpsc::Receiver<Burst>) -> Result<(), Status> {
        let (requests, outgoing) = mpsc::channel(STREAM_WAITING_MAX);
        let call = self.call(ReceiverStream::new(outgoing), None);
        let mut client = self.client();
        let style = self.style.clone();
        let send = async move {
            while let Some(burst) = bursts.recv().await {
                for request in style.requests(&burst) {
                    let request = PublishStreamRequest {
                        sequence: burst.first,
                        request: Some(request),
                    };
                    if requests.send(request).await.is_err() {
                        return;
                    }
                }
            }
        };
        let receive = async { self.receive(client.publish_stream(call).await?.into_inner()).await };
        let ((), received) = tokio::join!(send, receive);
        received
    }

    async fn receive(&self, mut answers: Streaming<PublishStreamResponse>) -> Result<(), Status> {
        while let Some(answer) = answers.message().await? {
            match answer.outcome {
                Some(Outcome::Error(refusal)) => self.counts.refuses(1, refusal.message),
                Some(Outcome::Response(_)) | None => self.acknowledged(1),
            }
        }
        Ok(())
    }

    fn acknowledged(&self, count: u64) {
        self.counts.acknowledged.fetch_add(count, Ordering::Release);
    }
}

/// Publishes these events into the first room, one call after the other, and says where the room is then.
pub(crate) fn publish_each(api: &Api, style: &Style, numbers: Range<u64>, due_us: u64) -> Result<Position, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Undone(format!("cannot publish: {error}")))?;
    runtime.block_on(async {
        let lane = Lane {
            channel: channel(&api.url, TIMEOUT)?,
            token: api.token.as_deref().map(bearer).transpose()?,
            style: Arc::new(style.clone()),
            counts: Arc::default(),
        };
        let mut position = None;
        for number in numbers {
            let stamp = Stamp {
                number,
                due_us,
                room: 0,
            };
            let call = lane.call(style.request(stamp), Some(TIMEOUT));
            let answer = lane.client().publish(call).await;
            let answer = answer.map_err(|status| Failure::No(chain(&status)))?.into_inner();
            position = answer.results.into_iter().next().and_then(|result| result.position);
        }
        position.ok_or_else(|| Failure::No("a reliable event got no position".to_owned()))
    })
}

impl Style {
    fn requests(&self, burst: &Burst) -> impl Iterator<Item = PublishRequest> {
        let numbers = burst.first..burst.first + burst.count;
        let (room, due_us) = (burst.room, burst.due_us);
        numbers.map(move |number| self.request(Stamp { number, due_us, room }))
    }

    fn request(&self, stamp: Stamp) -> PublishRequest {
        let content = payload::Content::Json(stamp.payload(self.payload_bytes));
        PublishRequest {
            tenant: self.tenant.clone(),
            targets: vec![Target {
                target: Some(target::Target::Room(room_name(&self.run, stamp.room))),
            }],
            event_name: "bench".to_owned(),
            payload: Some(Payload { content: Some(content) }),
            retention: self.retention.into(),
            ..PublishRequest::default()
        }
    }
}
