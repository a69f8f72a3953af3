//! A backend that publishes on a schedule which does not wait for the gateway.
//!
//! The schedule is kept by a thread of its own and each event says when it was due. So what a slow gateway, or a slow
//! generator, delays is counted as late, and not left out (coordinated omission).

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::wire::Stamp;
use crate::cli::failure::{Failure, chain};
use crate::proto::v1::publish_service_client::PublishServiceClient;
use crate::proto::v1::publish_stream_response::Outcome;
use crate::proto::v1::{
    EventClass, Payload, PublishRequest, PublishStreamRequest, PublishStreamResponse, Target, payload, target,
};

/// The most events on their way into the stream, as many as the gateway takes without answering.
const WAITING_MAX: usize = 64;

/// How long the schedule sleeps at most before it looks whether anybody still wants it.
const NAP_MAX: Duration = Duration::from_millis(100);

/// What is published, and when.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) tenant: String,
    pub(super) rooms: Vec<String>,
    /// Events for each room.
    pub(super) events: u64,
    /// Events due at the same time in a room.
    pub(super) burst: u64,
    /// From one burst of a room to the next; none: when the one before is acknowledged.
    pub(super) interval: Option<Duration>,
    pub(super) payload_bytes: usize,
    pub(super) class: EventClass,
    /// The run's clock.
    pub(super) start: Instant,
    /// When the first event is due.
    pub(super) first: Instant,
}

/// One stream of events, into its share of the rooms.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    pub(super) schedule: Arc<Schedule>,
    /// Which rooms: this one and each that is `step` further.
    pub(super) first_room: usize,
    pub(super) step: usize,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) first_refusal: Option<String>,
    /// By how much the schedule was missed at most when an event was handed over.
    pub(super) late_max: Duration,
}

impl Published {
    pub(super) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.first_refusal = self.first_refusal.take().or(other.first_refusal);
        self.late_max = self.late_max.max(other.late_max);
    }
}

impl Publisher {
    /// Publishes everything and waits until everything is answered.
    pub(super) async fn run(self, channel: Channel, token: Option<MetadataValue<Ascii>>) -> Result<Published, Failure> {
        let (requests, outgoing) = mpsc::channel(WAITING_MAX);
        let (answered, answers) = watch::channel(0);
        let mut call = Request::new(ReceiverStream::new(outgoing));
        if let Some(token) = token {
            call.metadata_mut().insert("authorization", token);
        }
        let runtime = Handle::current();
        let pace = spawn_blocking(move || self.pace(&requests, answers, &runtime));
        let mut client = PublishServiceClient::new(channel);
        let stream = client.publish_stream(call).await.map_err(|status| broken(&status))?;
        let mut published = receive(stream.into_inner(), answered).await?;
        published.late_max = pace.await.unwrap_or_default();
        Ok(published)
    }

    /// Hands over every event when it is due; the answer is the greatest delay. Blocks its thread.
    fn pace(
        &self,
        requests: &mpsc::Sender<PublishStreamRequest>,
        mut answers: watch::Receiver<u64>,
        runtime: &Handle,
    ) -> Duration {
        let schedule = &*self.schedule;
        let (mut sent, mut late_max) = (0, Duration::ZERO);
        for burst in 0..schedule.events.div_ceil(schedule.burst) {
            for room in (self.first_room..schedule.rooms.len()).step_by(self.step) {
                let due = schedule.due(burst, room);
                if !wait_until(due, requests) {
                    return late_max;
                }
                for request in schedule.burst(burst, room, due) {
                    if requests.blocking_send(request).is_err() {
                        return late_max;
                    }
                    sent += 1;
                    late_max = late_max.max(due.elapsed());
                }
            }
            let all = runtime.block_on(async {
                schedule.interval.is_some() || answers.wait_for(|answered| *answered >= sent).await.is_ok()
            });
            if !all {
                break;
            }
        }
        late_max
    }
}

impl Schedule {
    /// Rooms take turns within an interval, so that all of them at once is not one large burst.
    fn due(&self, burst: u64, room: usize) -> Instant {
        let Some(interval) = self.interval else {
            return Instant::now();
        };
        let rooms = u32::try_from(self.rooms.len()).unwrap_or(u32::MAX).max(1);
        let turn = interval * u32::try_from(room).unwrap_or(u32::MAX) / rooms;
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        self.first + interval.saturating_mul(burst) + turn
    }

    fn burst(&self, burst: u64, room: usize, due: Instant) -> impl Iterator<Item = PublishStreamRequest> {
        let due = due.saturating_duration_since(self.start).as_micros();
        let due_us = u64::try_from(due).unwrap_or(u64::MAX);
        let numbers = burst * self.burst..((burst + 1) * self.burst).min(self.events);
        numbers.map(move |number| self.request(room, Stamp { number, due_us }))
    }

    fn request(&self, room: usize, stamp: Stamp) -> PublishStreamRequest {
        let content = payload::Content::Json(stamp.payload(self.payload_bytes));
        let event = PublishRequest {
            tenant: self.tenant.clone(),
            targets: vec![Target {
                target: Some(target::Target::Room(self.rooms[room].clone())),
            }],
            event: "bench".to_owned(),
            payload: Some(Payload { content: Some(content) }),
            class: self.class.into(),
            ..PublishRequest::default()
        };
        PublishStreamRequest {
            sequence: stamp.number,
            request: Some(event),
        }
    }
}

/// More exact than the runtime's timer, which counts in milliseconds. False when nobody wants the events any more.
fn wait_until(due: Instant, requests: &mpsc::Sender<PublishStreamRequest>) -> bool {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() || requests.is_closed() {
            return !requests.is_closed();
        }
        thread::park_timeout(left.min(NAP_MAX));
    }
}

async fn receive(
    mut stream: Streaming<PublishStreamResponse>,
    answered: watch::Sender<u64>,
) -> Result<Published, Failure> {
    let mut published = Published::default();
    while let Some(answer) = stream.message().await.map_err(|status| broken(&status))? {
        match answer.outcome {
            Some(Outcome::Response(_)) => published.acknowledged += 1,
            Some(Outcome::Error(refusal)) => {
                published.refused += 1;
                published.first_refusal.get_or_insert(refusal.message);
            }
            None => published.refused += 1,
        }
        answered.send_modify(|answered| *answered += 1);
    }
    Ok(published)
}

fn broken(status: &tonic::Status) -> Failure {
    Failure::Undone(format!("publishing broke off: {}", chain(status)))
}
