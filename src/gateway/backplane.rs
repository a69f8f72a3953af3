//! Tells clients and probes whether the cluster behind this node can be heard.

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

/// How often the lease is looked at: it lapses by itself, without a word.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a connection may be away before anybody is told: one that moves from a server to another is back before.
const TOLERANCE: Duration = Duration::from_millis(500);

/// What says whether the node can do its work.
pub(super) struct Backplane {
    pub nats: Arc<Nats>,
    pub nodes: Arc<Nodes>,
    pub bus: Arc<NatsBus>,
    pub lease: Lease,
    pub shards: Shards,
    pub health: Health,
}

/// What was told last.
struct Told {
    serving: bool,
    degraded: bool,
}

impl Backplane {
    /// While both connections stand, the node hears itself and holds its lease, and the bus has no trouble of its own, it is
    /// healthy; when that ends, health says `NOT_SERVING` and clients are told `degraded`. Clients are told that all is well again once every room was looked
    /// at; and that it is not, too, while some of the streams do not answer. Until `stop`.
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
