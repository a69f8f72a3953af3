//! Ephemeral events: nobody keeps them, so whoever misses one while something happens has lost it.

use std::time::Duration;

use roomcast::proto::v1;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::load::{ROOM, Seen};
use crate::support::{Caller, Node, draft, to_room};

/// The name of these events.
pub const NAME: &str = "whisper";

/// Between two events of a publisher.
const PAUSE: Duration = Duration::from_millis(1);

/// A publisher at each gateway.
pub struct Whispers {
    stop: CancellationToken,
    publishers: JoinSet<(usize, u64, usize)>,
}

/// What became of the publishes.
#[derive(Debug)]
pub struct Whispered {
    /// How many events each publisher handed over.
    counts: Vec<u64>,
    /// How often one was told that nothing was done.
    pub refused: usize,
}

impl Whispers {
    pub fn start(node: &Node, gateways: usize) -> Self {
        let (stop, mut publishers) = (CancellationToken::new(), JoinSet::new());
        for number in 0..gateways {
            let backend = node.of_several(number).backend();
            publishers.spawn(whisper(backend, number, stop.clone()));
        }
        Self { stop, publishers }
    }

    pub async fn stop(self) -> Whispered {
        self.stop.cancel();
        let mut told = self.publishers.join_all().await;
        told.sort_unstable();
        Whispered {
            counts: told.iter().map(|(_, count, _)| *count).collect(),
            refused: told.iter().map(|(.., refused)| refused).sum(),
        }
    }
}

/// Publishes one after the other; what is refused is tried again.
async fn whisper(backend: Caller, publisher: usize, stop: CancellationToken) -> (usize, u64, usize) {
    let (mut count, mut refused) = (0, 0);
    while !stop.is_cancelled() {
        let request = v1::PublishRequest {
            targets: vec![to_room(ROOM)],
            retention: v1::Retention::Ephemeral.into(),
            ..draft(NAME, json!(format!("{publisher}-{count}")))
        };
        match backend.send(request).await {
            Ok(_) => count += 1,
            Err(_) => refused += 1,
        }
        sleep(PAUSE).await;
    }
    (publisher, count, refused)
}

impl Whispered {
    pub fn all(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Nothing lost, doubled or reordered.
    #[track_caller]
    pub fn assert_heard(&self, seen: &Seen) {
        for (publisher, count) in self.counts.iter().enumerate() {
            let prefix = format!("{publisher}-");
            let numbers = seen.whispers.iter().filter_map(|name| name.strip_prefix(&prefix));
            let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
            for (expected, number) in (0..).zip(&numbers) {
                assert_eq!(expected, *number, "of publisher {publisher}");
            }
            assert_eq!(
                numbers.len() as u64,
                *count,
                "the last of publisher {publisher} are missing"
            );
        }
    }
}
