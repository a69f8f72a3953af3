//! Watches the cluster behind this node, and reports its state to clients and probes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::bus::nats::NatsBus;
use crate::hub::{Shards, ShardsGone, Signal};
use crate::lease::Lease;
use crate::nats::Nats;
use crate::nats::nodes::Nodes;
use crate::readiness::{Readiness, Reasons, Unready};

/// Interval at which the lease is checked: it lapses without a notification.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Time for which a connection may be down before it is reported: one that moves to another server is back earlier.
const TOLERANCE: Duration = Duration::from_millis(500);

/// The reasons that this watcher sets.
const OWN_REASONS: [Unready; 3] = [Unready::NatsUnreachable, Unready::LeaseLapsed, Unready::BusUnusable];

/// The components that decide whether the node can do its work.
pub(super) struct Backplane {
    pub nats: Arc<Nats>,
    pub nodes: Arc<Nodes>,
    pub bus: Arc<NatsBus>,
    pub lease: Lease,
    pub shards: Shards,
    pub readiness: Readiness,
}

/// The state last reported.
struct Told {
    unready: Reasons,
    degraded: bool,
}

impl Backplane {
    /// Watches until `stop`. The node is ready while both connections stand, it hears itself, its lease holds, and the bus
    /// has no trouble. Otherwise the readiness has the reason and clients receive `degraded`. `degraded` ends once every
    /// room was checked. It also begins while some streams do not reply.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let (mut control, mut fanout) = (self.nats.control().standing(), self.nats.fanout().standing());
        let mut hearing = self.nodes.hearing();
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Told {
            unready: Reasons::default(),
            degraded: false,
        };
        let mut well_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = control.changed() => {}
                Ok(()) = fanout.changed() => {}
                Ok(()) = hearing.changed() => {}
                _ = look.tick() => {}
            }
            let trouble = self.bus.trouble();
            let (unready, checked) = (self.unready(trouble.is_some()), self.bus.is_checked());
            let is_well = unready.is_empty() && checked;
            if is_well {
                well_at = Instant::now();
            }
            let tolerated = well_at.elapsed() < TOLERANCE;
            let now = Told {
                unready: if told.unready.is_empty() && tolerated {
                    Reasons::default()
                } else {
                    unready
                },
                degraded: !is_well && (told.degraded || !tolerated),
            };
            if self.tell(&told, &now, trouble).await.is_err() {
                return;
            }
            told = now;
        }
    }

    async fn tell(&self, told: &Told, now: &Told, trouble: Option<String>) -> Result<(), ShardsGone> {
        for reason in OWN_REASONS {
            self.readiness.set(reason, now.unready.contains(reason));
        }
        match (told.unready.is_empty(), now.unready.is_empty()) {
            (true, false) => {
                let reason = trouble.unwrap_or_else(|| now.unready.to_string());
                tracing::warn!(reason, "backplane lost, not serving");
            }
            (false, true) => tracing::info!("backplane recovered, serving again"),
            _ => {}
        }
        if told.degraded != now.degraded {
            self.shards.signal(&Signal::Degraded(now.degraded)).await?;
            if now.degraded {
                tracing::warn!("deliveries degraded, clients notified");
            } else {
                tracing::info!("deliveries recovered, clients notified");
            }
        }
        Ok(())
    }

    /// Returns the reasons that stand at this moment, tolerated or not.
    fn unready(&self, has_trouble: bool) -> Reasons {
        let hears =
            self.nats.control().is_connected() && self.nats.fanout().is_connected() && *self.nodes.hearing().borrow();
        Reasons::default()
            .and(Unready::NatsUnreachable, !hears)
            .and(Unready::LeaseLapsed, !self.lease.holds())
            .and(Unready::BusUnusable, has_trouble)
    }
}
