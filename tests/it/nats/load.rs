//! Publishers and members while something happens, and what has to hold of it afterwards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Event, payload::Content};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::whispers;
use crate::support::{Caller, Client, Node, draft, reason, to_room};

pub const ROOM: &str = "r";

/// Between two events of a publisher.
const PAUSE: Duration = Duration::from_millis(5);

/// What became of each publish: its offset, or nothing known.
type Answers = BTreeMap<String, Option<u64>>;

/// What one publisher was told: the answers, how many were not stored, and how long the slowest answer took.
type Report = (Answers, usize, Duration);

/// A publisher at each gateway.
pub struct Load {
    stop: CancellationToken,
    publishers: JoinSet<Report>,
}

/// What the publishers were told.
pub struct Told {
    answers: Answers,
    /// Of those that failed, how many said that nothing was stored.
    pub not_stored: usize,
    /// The longest time until an answer.
    pub slowest: Duration,
}

impl Load {
    pub fn start(node: &Node, gateways: usize) -> Self {
        let (stop, mut publishers) = (CancellationToken::new(), JoinSet::new());
        for number in 0..gateways {
            let backend = node.of_several(number).backend();
            publishers.spawn(publish(backend, number, stop.clone()));
        }
        Self { stop, publishers }
    }

    pub async fn stop(self) -> Told {
        self.stop.cancel();
        let told = self.publishers.join_all().await;
        let not_stored = told.iter().map(|(_, not_stored, _)| not_stored).sum();
        let slowest = told.iter().map(|(.., slowest)| *slowest).max().unwrap_or_default();
        let answers = told.into_iter().flat_map(|(answers, ..)| answers).collect();
        Told {
            answers,
            not_stored,
            slowest,
        }
    }
}

async fn publish(backend: Caller, publisher: usize, stop: CancellationToken) -> Report {
    let (mut answers, mut not_stored) = (Answers::new(), 0);
    let (mut number, mut slowest) = (0, Duration::ZERO);
    while !stop.is_cancelled() {
        number += 1;
        let name = format!("{publisher}-{number}");
        let request = roomcast::proto::v1::PublishRequest {
            targets: vec![to_room(ROOM)],
            ..draft("n", json!(name))
        };
        let began = Instant::now();
        let answer = backend.send(request).await;
        slowest = slowest.max(began.elapsed());
        match answer {
            Ok(mut response) => {
                let position = response.results.remove(0).position.expect("it has a position");
                answers.insert(name, Some(position.offset));
            }
            Err(refused) if reason(&refused) == "NOT_STORED" => not_stored += 1,
            Err(unknown) => {
                assert_eq!(reason(&unknown), "UNKNOWN_OUTCOME", "{unknown:?}");
                answers.insert(name, None);
            }
        }
        sleep(PAUSE).await;
    }
    (answers, not_stored, slowest)
}

/// What a member saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Publishes by name and offset, in the order they came.
    events: Vec<(String, u64)>,
    /// The longest time without an event.
    pub longest_pause: Duration,
    /// What it heard of [`whispers`], in the order it came, and the longest time without one.
    pub whispers: Vec<String>,
    pub longest_silence: Duration,
    /// What it was told of interruptions.
    pub degraded: Vec<bool>,
}

/// Reads until the event `end`.
pub async fn read(client: &mut Client) -> Seen {
    let mut seen = Seen::default();
    let (mut last, mut heard) = (Instant::now(), Instant::now());
    loop {
        match client.push().await {
            Said::Event(event) if event.event_name == "end" => return seen,
            Said::Event(event) if event.event_name == whispers::NAME => {
                seen.longest_silence = seen.longest_silence.max(heard.elapsed());
                heard = Instant::now();
                seen.whispers.push(text(&event));
            }
            Said::Event(event) => {
                seen.longest_pause = seen.longest_pause.max(last.elapsed());
                last = Instant::now();
                let offset = event.offset;
                seen.events.push((text(&event), offset));
            }
            Said::Degraded(degraded) => seen.degraded.push(degraded.active),
            other => panic!("{client} gets {other:?}"),
        }
    }
}

fn text(event: &Event) -> String {
    let content = event.payload.as_ref().and_then(|payload| payload.content.as_ref());
    let Some(Content::Json(json)) = content else {
        panic!("{event:?}")
    };
    serde_json::from_str(json).unwrap()
}

impl Told {
    pub fn acknowledged(&self) -> usize {
        self.answers.values().flatten().count()
    }

    /// Publishes of which nobody knows what became.
    pub fn unknown(&self) -> usize {
        self.answers.len() - self.acknowledged()
    }

    /// Nothing lost, doubled or reordered, and nothing shown that was said not to be stored.
    #[track_caller]
    pub fn assert_seen(&self, seen: &Seen) {
        let mut positions = BTreeMap::new();
        let mut last = 0;
        for (name, offset) in &seen.events {
            assert!(*offset > last, "{name} at {offset} came after {last}");
            last = *offset;
            let before = positions.insert(name, *offset);
            assert_eq!(before, None, "{name} came twice");
            assert!(
                self.answers.contains_key(name),
                "{name} was not stored, so the publisher was told"
            );
        }
        for (name, offset) in &self.answers {
            let shown = positions.get(name).copied();
            assert!(
                offset.is_none() || shown == *offset,
                "{name} at {offset:?} was shown at {shown:?}"
            );
        }
    }
}
