//! Somebody who publishes, and writes down what it was told.
//!
//! What is not settled is asked for again, with the same key, also at another gateway, until it is.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use roomcast::proto::v1;
use roomcast::proto::v1::publish_batch_result::Outcome as Item;
use roomcast::proto::v1::publish_stream_response::Outcome as Streamed;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Request, Status};

use super::log::{Answer, At, Attempt, Id, Micros};
use super::scene::Scene;
use crate::support::{Caller, draft, reason, to_room};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(3);
/// How long somebody tries to settle an event.
const PERSISTENCE: Duration = Duration::from_secs(90);

/// How somebody publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Unary,
    Batch,
    Stream,
    LastValue,
    Ephemeral,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Unary, Self::Batch, Self::Stream, Self::LastValue, Self::Ephemeral];

    /// How many events are asked for together.
    fn together(self) -> usize {
        match self {
            Self::Unary | Self::LastValue | Self::Ephemeral => 1,
            Self::Batch => 8,
            Self::Stream => 20,
        }
    }

    /// How long after one call the next begins, on average: so that each kind publishes about 60 events a second.
    fn interval(self) -> Duration {
        Duration::from_millis(16 * self.together() as u64)
    }

    fn retention(self) -> v1::Retention {
        match self {
            Self::LastValue => v1::Retention::LastValue,
            Self::Ephemeral => v1::Retention::Ephemeral,
            _ => v1::Retention::Reliable,
        }
    }
}

/// An event that is not settled.
#[derive(Debug, Clone)]
struct Open {
    id: Id,
    room: usize,
    request: v1::PublishRequest,
}

pub struct Publisher {
    scene: Arc<Scene>,
    kind: Kind,
    by: u32,
    random: StdRng,
    gateway: usize,
}

impl Publisher {
    pub fn new(scene: Arc<Scene>, kind: Kind, by: u32) -> Self {
        let mut random = scene.random(&format!("publisher {by}"));
        let gateway = random.random_range(0..scene.backends.len());
        Self {
            scene,
            kind,
            by,
            random,
            gateway,
        }
    }

    /// Publishes until it is told to stop, and settles what it began.
    pub async fn run(mut self) {
        let (mut next, mut due) = (0, Instant::now());
        while !self.scene.stop.is_cancelled() {
            let count = u32::try_from(self.kind.together()).expect("few");
            let open = (next..next + count).map(|n| self.draft(n)).collect();
            next += count;
            self.settle(open).await;
            let interval = self.kind.interval();
            due += self.random.random_range(interval / 2..interval * 3 / 2);
            // Who had to wait for an answer goes on at once, and does not make up for it.
            due = due.max(Instant::now());
            sleep_until(due).await;
        }
    }

    fn draft(&mut self, n: u32) -> Open {
        let id = Id { by: self.by, n };
        let room = self.random.random_range(0..self.scene.size.rooms);
        // Some are large enough to fill what a slow client leaves unread.
        let padding = if self.random.random_ratio(1, 10) { 2000 } else { 50 };
        let key = match self.kind {
            Kind::Ephemeral => String::new(),
            _ => self.scene.key(&format!("{}-{n}", self.by)),
        };
        let request = v1::PublishRequest {
            targets: vec![to_room(&self.scene.room(room))],
            retention: self.kind.retention().into(),
            idempotency_key: key,
            ..draft("n", json!({"by": self.by, "n": n, "pad": "x".repeat(padding)}))
        };
        Open { id, room, request }
    }

    /// Asks until every event is stored, or patience ends. Ephemeral ones are asked for once.
    async fn settle(&mut self, mut open: Vec<Open>) {
        let deadline = Instant::now() + PERSISTENCE;
        loop {
            let answers = self.call(&open).await;
            let settled = |answer: &Answer| matches!(answer, Answer::Stored(_) | Answer::Sent);
            let all = answers.iter().all(settled);
            let mut answers = answers.iter();
            open.retain(|_| !answers.next().is_some_and(settled));
            if all || self.kind == Kind::Ephemeral || Instant::now() > deadline {
                return;
            }
            let wait = self.random.random_range(50..300);
            sleep(Duration::from_millis(wait)).await;
        }
    }

    /// One call. Whoever was not answered well is asked somewhere else the next time.
    async fn call(&mut self, open: &[Open]) -> Vec<Answer> {
        let gateway = self.gateway;
        let backend = self.scene.backends[gateway].clone();
        let called = self.scene.now();
        let mut answers = vec![(Answer::Unknown, called); open.len()];
        let asked = match self.kind {
            Kind::Batch => timeout(CALL, self.batch(backend, open, &mut answers)).await,
            Kind::Stream => timeout(CALL, self.stream(backend, open, &mut answers)).await,
            _ => timeout(CALL, self.unary(backend, open, &mut answers)).await,
        };
        let failed = match asked {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(self.refused(&status)),
            Err(_) => Some(Answer::Unknown),
        };
        let now = self.scene.now();
        for (answer, returned) in answers.iter_mut().filter(|answer| answer.1 == called) {
            *returned = now.max(called + 1);
            *answer = failed.clone().unwrap_or(Answer::Unknown);
        }
        if answers
            .iter()
            .any(|answer| matches!(answer.0, Answer::NotStored | Answer::Unknown))
        {
            self.gateway = self.random.random_range(0..self.scene.backends.len());
        }
        self.note(open, gateway, called, &answers);
        answers.into_iter().map(|answer| answer.0).collect()
    }

    fn note(&self, open: &[Open], gateway: usize, called: Micros, answers: &[(Answer, Micros)]) {
        let via = self.by * 64 + u32::try_from(gateway).expect("few");
        let attempts = open.iter().zip(answers).map(|(open, (answer, returned))| Attempt {
            id: open.id,
            room: open.room,
            via,
            called,
            returned: *returned,
            answer: answer.clone(),
        });
        self.scene.attempts.lock().unwrap().extend(attempts);
    }

    async fn unary(&self, backend: Caller, open: &[Open], answers: &mut [(Answer, Micros)]) -> Result<(), Status> {
        let mut request = Request::new(backend.stamped(open[0].request.clone()));
        request.set_timeout(CALL);
        let response = backend.publishing.clone().publish(request).await?.into_inner();
        answers[0] = (accepted(response), self.scene.now());
        Ok(())
    }

    async fn batch(&self, backend: Caller, open: &[Open], answers: &mut [(Answer, Micros)]) -> Result<(), Status> {
        let requests = open.iter().map(|open| backend.stamped(open.request.clone())).collect();
        let mut request = Request::new(v1::PublishBatchRequest { requests });
        request.set_timeout(CALL);
        let response = backend.publishing.clone().publish_batch(request).await?.into_inner();
        for (answer, result) in answers.iter_mut().zip(response.results) {
            let outcome = result.outcome.expect("each item has an outcome");
            *answer = match outcome {
                Item::Response(response) => (accepted(response), self.scene.now()),
                Item::Error(error) => (self.item(&error), self.scene.now()),
            };
        }
        Ok(())
    }

    async fn stream(&self, backend: Caller, open: &[Open], answers: &mut [(Answer, Micros)]) -> Result<(), Status> {
        let requests: Vec<_> = open
            .iter()
            .zip(0..)
            .map(|(open, sequence)| v1::PublishStreamRequest {
                sequence,
                request: Some(backend.stamped(open.request.clone())),
            })
            .collect();
        let mut service = backend.publishing.clone();
        let stream = service.publish_stream(tokio_stream::iter(requests)).await;
        let mut responses = stream?.into_inner();
        while let Some(response) = responses.message().await? {
            let index = usize::try_from(response.sequence).expect("a sequence of ours");
            answers[index] = match response.outcome.expect("each event has an outcome") {
                Streamed::Response(response) => (accepted(response), self.scene.now()),
                Streamed::Error(error) => (self.item(&error), self.scene.now()),
            };
        }
        Ok(())
    }

    fn refused(&self, status: &Status) -> Answer {
        self.answer(&reason(status), &|| format!("{status:?}"))
    }

    fn item(&self, error: &v1::ItemStatus) -> Answer {
        let infos = error
            .details
            .iter()
            .filter(|any| any.type_url.ends_with("google.rpc.ErrorInfo"));
        let reason = infos
            .filter_map(|any| tonic_types::pb::ErrorInfo::decode(&any.value[..]).ok())
            .map(|info| info.reason)
            .next();
        self.answer(&reason.unwrap_or_default(), &|| format!("{error:?}"))
    }

    /// What a refusal says about the event.
    fn answer(&self, reason: &str, whole: &dyn Fn() -> String) -> Answer {
        match reason {
            "NOT_STORED" | "DRAINING" | "RATE_LIMITED" => Answer::NotStored,
            // The call did not get through, or its answer did not.
            "UNKNOWN_OUTCOME" | "" => Answer::Unknown,
            _ => {
                self.scene.remark(format!("publisher {}: {}", self.by, whole()));
                Answer::Unknown
            }
        }
    }
}

fn accepted(response: v1::PublishResponse) -> Answer {
    let [result] = <[_; 1]>::try_from(response.results).expect("one result for one target");
    result
        .position
        .map_or(Answer::Sent, |at| Answer::Stored(position(&at.epoch, at.offset)))
}

/// A position.
pub fn position(epoch: &str, offset: u64) -> At {
    At {
        epoch: epoch.into(),
        offset,
    }
}

/// Ends a room: an event after all others, stored for certain.
pub async fn end(scene: &Scene, room: usize) -> At {
    let deadline = Instant::now() + PERSISTENCE;
    for attempt in 0.. {
        let backend = &scene.backends[(room + attempt) % scene.backends.len()];
        let mut request = Request::new(backend.stamped(v1::PublishRequest {
            targets: vec![to_room(&scene.room(room))],
            idempotency_key: scene.key(&format!("end-{room}")),
            ..draft("end", json!({}))
        }));
        request.set_timeout(CALL);
        if let Ok(Ok(response)) = timeout(CALL, backend.publishing.clone().publish(request)).await
            && let Answer::Stored(at) = accepted(response.into_inner())
        {
            return at;
        }
        assert!(
            Instant::now() < deadline,
            "room {room} cannot be ended: nothing is stored any more"
        );
        sleep(Duration::from_millis(200)).await;
    }
    unreachable!("the loop has no end")
}
