//! Watches the cluster behind this node, and reports its state to clients and probes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::Health;
use crate::bus::nats::NatsBus;
use crate::hub::{Shards, ShardsGone, Signal};
use crate::lease::Lease;
use crate::nats::Nats;
use crate::nats::nodes::Nodes;

/// Interval at which the lease is checked: it lapses without a notification.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Time for which a connection may be down before it is reported: one that moves to another server is back earlier.
const TOLERANCE: Duration = Duration::from_millis(500);

/// The components that decide whether the node can do its work.
pub(super) struct Backplane {
    pub nats: Arc<Nats>,
    pub nodes: Arc<Nodes>,
    pub bus: Arc<NatsBus>,
    pub lease: Lease,
    pub shards: Shards,
    pub health: Health,
}

/// The state last reported.
struct Told {
    serving: bool,
    degraded: bool,
}

impl Backplane {
    /// Watches until `stop`. The node is healthy while both connections stand, it hears itself, its lease holds, and the bus
    /// has no trouble. Otherwise health reports `NOT_SERVING` and clients receive `degraded`. `degraded` ends once every room
    /// was checked. It also begins while some streams do not reply.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let (mut control, mut fanout) = (self.nats.control().standing(), self.nats.fanout().standing());
        let mut hearing = self.nodes.hearing();
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Told {
            serving: true,
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
            let (hears, checked) = (self.hears() && trouble.is_none(), self.bus.is_checked());
            if hears && checked {
                well_at = Instant::now();
            }
            let tolerated = well_at.elapsed() < TOLERANCE;
            let now = Told {
                serving: hears || (told.serving && tolerated),
                degraded: !(hears && checked) && (told.degraded || !tolerated),
            };
            if self.tell(&told, &now, trouble.as_deref()).await.is_err() {
                return;
            }
            told = now;
        }
    }

    async fn tell(&self, told: &Told, now: &Told, trouble: Option<&str>) -> Result<(), ShardsGone> {
        if told.serving != now.serving {
            self.health.set_serving(now.serving).await;
            if now.serving {
                tracing::info!("backplane recovered, serving again");
            } else {
                let reason = trouble.unwrap_or("nats cannot be heard");
                tracing::warn!(reason, "backplane lost, not serving");
            }
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

    fn hears(&self) -> bool {
        self.nats.control().is_connected()
            && self.nats.fanout().is_connected()
            && *self.nodes.hearing().borrow()
            && self.lease.holds()
    }
}
