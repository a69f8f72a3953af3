//! Tells clients and probes whether the cluster behind this node can be heard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::Health;
use crate::hub::Shards;
use crate::lease::Lease;
use crate::nats::Nats;
use crate::nats::nodes::Nodes;

/// How often the lease is looked at: it lapses by itself, without a word.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What says whether the node can do its work.
pub(super) struct Backplane {
    pub nats: Arc<Nats>,
    pub nodes: Arc<Nodes>,
    pub lease: Lease,
    pub shards: Shards,
    pub health: Health,
}

impl Backplane {
    /// While both connections stand, the node hears itself and holds its lease, it is healthy. When that ends, clients are
    /// told `degraded` and health says `NOT_SERVING`; when it is so again, the contrary. Until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let (mut control, mut fanout) = (self.nats.control().standing(), self.nats.fanout().standing());
        let mut hearing = self.nodes.hearing();
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_well = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = control.changed() => {}
                Ok(()) = fanout.changed() => {}
                Ok(()) = hearing.changed() => {}
                _ = look.tick() => {}
            }
            let is_well = self.is_well();
            if is_well == was_well {
                continue;
            }
            was_well = is_well;
            self.health.set_serving(is_well).await;
            if self.shards.degraded(!is_well).await.is_err() {
                return;
            }
            if is_well {
                tracing::info!("the cluster is heard again");
            } else {
                tracing::warn!("the cluster cannot be heard; clients stay and are told so");
            }
        }
    }

    fn is_well(&self) -> bool {
        self.nats.control().is_connected()
            && self.nats.fanout().is_connected()
            && *self.nodes.hearing().borrow()
            && self.lease.holds()
    }
}
