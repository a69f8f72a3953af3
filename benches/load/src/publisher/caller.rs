//! Publishing without a schedule: the next call begins when one has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::grpc::{Lane, TIMEOUT};
use super::{Burst, Counts, Style, With};
use crate::target::Api;
use roomcast::cli::publish::{bearer, channel};

/// Calls under way on one thread, until they are stopped.
pub(crate) struct Caller {
    pub(crate) api: Api,
    pub(crate) style: Style,
    pub(crate) connections: usize,
    /// Events of a batch.
    pub(crate) batch: u32,
    /// The next event's number.
    pub(crate) number: Arc<AtomicU64>,
    pub(crate) clock: Instant,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) counts: Arc<Counts>,
}

impl Caller {
    /// Blocks its thread until everything is answered.
    pub(crate) fn run(self) {
        let counts = self.counts.clone();
        if let Err(error) = self.try_run() {
            counts.breaks(error);
        }
    }

    fn try_run(self) -> Result<(), String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let token = self.api.token.as_deref().map(bearer).transpose();
        let token = token.map_err(|failure| said(&failure))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| said(&error))?.block_on(async {
            let channels: Result<Vec<_>, _> = (0..self.connections).map(|_| channel(&self.api.url, TIMEOUT)).collect();
            let channels = channels.map_err(|failure| said(&failure))?;
            let this = Arc::new(self);
            let style = Arc::new(this.style.clone());
            let mut calls = tokio::task::JoinSet::new();
            for (_, channel) in (0..this.style.lanes).zip(channels.iter().cycle()) {
                let lane = Lane {
                    channel: channel.clone(),
                    token: token.clone(),
                    style: style.clone(),
                    counts: this.counts.clone(),
                };
                let (bursts, waiting) = mpsc::channel(1);
                calls.spawn(lane.run(waiting));
                let this = this.clone();
                calls.spawn(async move { this.feed(&bursts).await });
            }
            while calls.join_next().await.is_some() {}
            Ok(())
        })
    }

    /// One burst is always ready, so that a lane never waits for anything but its call.
    async fn feed(&self, bursts: &mpsc::Sender<Burst>) {
        let count = match self.style.with {
            With::Unary => 1,
            With::Batch | With::Stream => u64::from(self.batch),
        };
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(place) = bursts.reserve().await else { return };
            let due_us = u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX);
            place.send(Burst {
                room: 0,
                first: self.number.fetch_add(count, Ordering::Relaxed),
                count,
                due_us,
            });
        }
    }
}
