//! Follows the record while a node runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::record::Difference;
use super::{Agreement, REPLICAS, lines};
use crate::nats::nodes::Nodes;
use crate::nats::request::RequestFailed;
use crate::nats::{NatsError, Subscription, streams};

/// The interval between comparisons of the record with the node's own settings.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The time all nodes must agree before a limit is lowered. A starting node writes the record some time before its
/// first heartbeat is received.
const SETTLED_AFTER: Duration = Duration::from_secs(6);

impl Agreement {
    /// Compares every two seconds, and whenever another node requests it, until `stop`.
    pub async fn run(self: Arc<Self>, calls: Subscription, nodes: Arc<Nodes>, stop: CancellationToken) {
        // Concurrent, because updating streams may be slow and requests are answered meanwhile.
        tokio::select! {
            () = self.compare(calls, &nodes) => {}
            () = self.follow_replicas() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn compare(&self, mut calls: Subscription, nodes: &Nodes) {
        let mut turn = interval(CHECK_INTERVAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reply = tokio::select! {
                _ = turn.tick() => None,
                Some(call) = calls.next() => {
                    self.called.notify_one();
                    call.reply.clone()
                }
            };
            if self.nats.control().is_connected() {
                self.check(nodes).await;
            }
            if let Some(reply) = reply {
                let client = self.nats.control().client();
                // A lost reply is harmless: the requesting node repeats its request.
                let _ = client.publish(reply, Bytes::new()).await;
            }
        }
    }

    /// Compares the record once.
    async fn check(&self, nodes: &Nodes) {
        let looked = self.look(nodes).await;
        if matches!(looked, Err(RequestFailed::NoStream))
            && let Err(error) = self.make_stream().await
        {
            tracing::debug!(%error, "record stream creation failed");
        }
        let looked = match looked {
            Err(RequestFailed::NoStream) => self.look(nodes).await,
            looked => looked,
        };
        self.lock().trouble = looked.err();
    }

    async fn look(&self, nodes: &Nodes) -> Result<(), RequestFailed> {
        let found = self.read().await?;
        let is_lost = found.is_none();
        let (seq, record) = found.unwrap_or_else(|| (0, self.lock().record.clone()));
        let compared = record.compare(&self.own);
        self.refuse(&compared.refused);
        let settled = record.settled(&self.own);
        let is_alike = nodes.are_set_like(self.digest());
        let next = {
            let mut known = self.lock();
            let waits = settled != record && is_alike && compared.refused.is_empty();
            known.alike_since = waits.then(|| known.alike_since.unwrap_or_else(Instant::now));
            let long = known.alike_since.is_some_and(|since| since.elapsed() >= SETTLED_AFTER);
            if long { settled } else { compared.next }
        };
        let mut in_force = record.clone();
        if (is_lost || next != record) && compared.refused.is_empty() && self.write(seq, &next).await? {
            if is_lost {
                tracing::warn!("cluster settings record lost, rewritten");
            }
            in_force = next;
        }
        let differs = in_force.compare(&self.own).differs;
        let mut known = self.lock();
        known.report(differs);
        let changed = known.record != in_force;
        known.record = in_force;
        drop(known);
        if changed {
            self.revision.send_modify(|revision| *revision += 1);
        }
        Ok(())
    }

    /// Updates the replicas of the stream of records and of the control log to those of the other streams. A failure is
    /// retried.
    async fn follow_replicas(&self) {
        let mut followed = 0;
        let mut turn = interval(CHECK_INTERVAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            let replicas = self.amount(REPLICAS);
            if replicas == followed || !self.holds() || !self.nats.control().is_connected() {
                continue;
            }
            match self.replicate(replicas).await {
                Ok(()) => followed = replicas,
                Err(error) => tracing::debug!(%error, "stream replicas incomplete"),
            }
        }
    }

    async fn replicate(&self, replicas: u64) -> Result<(), NatsError> {
        self.shape_stream().await?;
        let control = self.nats.subjects().stream_of('c');
        streams::replicate(&self.nats.jetstream_to_make_streams(), &control, replicas).await
    }

    /// Stops serving, or resumes it.
    fn refuse(&self, refused: &[Difference]) {
        let mut known = self.lock();
        let why = (!refused.is_empty()).then(|| lines(refused));
        if known.refused == why {
            return;
        }
        if let Some(settings) = &why {
            tracing::error!(%settings, "settings differ from the cluster, not serving");
        } else {
            tracing::info!("settings match the cluster again");
        }
        self.is_refused.store(why.is_some(), Ordering::Relaxed);
        known.refused = why;
    }
}
