//! The task of one subscription, from the follower to the reader.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cursor::Scope;
use super::response;
use crate::api::status::Refusal;
use crate::lease::Lease;
use crate::proto::v1;
use crate::rooms::{Follow, Step, TooSlow};

/// The parts of a running subscription.
pub(super) struct Pump {
    pub(super) follow: Follow,
    pub(super) scope: Scope,
    pub(super) responses: mpsc::Sender<v1::SubscribeResponse>,
    pub(super) lease: Lease,
    pub(super) draining: CancellationToken,
    pub(super) age_max: Duration,
}

impl Pump {
    /// Runs until the caller has gone (`None`), the reader is too slow or the node drains.
    pub(super) async fn run(mut self) -> Option<Refusal> {
        let draining = self.draining.clone();
        let responses = self.responses.clone();
        tokio::select! {
            biased;
            () = draining.cancelled() => Some(Refusal::Draining),
            () = responses.closed() => None,
            ended = self.stream() => ended,
        }
    }

    async fn stream(&mut self) -> Option<Refusal> {
        // The first response says that the subscription is in effect.
        let mut step = Step::default();
        let mut told = self.cursor();
        loop {
            // Checked after the events were taken and before they are written: a lease may have lapsed in between.
            self.lease.held().await;
            let cursor = self.cursor();
            let sending = self.responses.send(response(&step, cursor.clone()));
            tokio::select! {
                biased;
                sent = timeout(self.age_max, sending) => match sent {
                    Ok(Ok(())) => told = cursor,
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(Refusal::SlowSubscriber { cursor: told }),
                },
                // Memory and subscriptions are not held for a reader that has lost already.
                () = self.follow.overflowed() => return Some(Refusal::SlowSubscriber { cursor: told }),
            }
            step = match self.follow.next().await {
                Ok(step) => step,
                Err(TooSlow) => return Some(Refusal::SlowSubscriber { cursor: told }),
            };
        }
    }

    fn cursor(&self) -> String {
        self.scope.cursor(&self.follow.places())
    }
}
