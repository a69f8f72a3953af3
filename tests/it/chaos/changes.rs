//! Settings that change from node to node, and nodes that differ.

use std::fmt::{Display, Formatter};

use tokio::time::{Duration, sleep};

use super::fleet::{Fleet, PARTITIONS};
use crate::support::Gateway;

/// How long limits take to go down once all nodes say the same, and some.
const SETTLED: Duration = Duration::from_secs(10);

/// A setting that may be changed node by node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    Events,
    Age,
    Bytes,
    Window,
    Lease,
    LastValueAge,
}

impl Change {
    pub const ALL: [Self; 6] = [
        Self::Events,
        Self::Age,
        Self::Bytes,
        Self::Window,
        Self::Lease,
        Self::LastValueAge,
    ];

    /// The setting of the fleet and another one, as lines of its configuration. Other limits of history are so small that
    /// they cut what is stored meanwhile, and are then raised: what was cut must not count as recovered.
    const fn lines(self) -> [&'static str; 2] {
        match self {
            Self::Events => ["events_max = 10000 # history", "events_max = 10 # history"],
            Self::Age => ["age_max = \"10m\" # history", "age_max = \"1s\" # history"],
            Self::Bytes => ["stream_bytes_max = \"48 MiB\"", "stream_bytes_max = \"50 MiB\""],
            Self::Window => [
                "idempotency_window = \"2m\" # nats",
                "idempotency_window = \"4m\" # nats",
            ],
            Self::Lease => ["lease = \"10s\" # nats", "lease = \"20s\" # nats"],
            Self::LastValueAge => ["last_value_age_max = \"1h\" # bus", "last_value_age_max = \"2h\" # bus"],
        }
    }

    /// Whether the streams no longer hold everything afterwards.
    pub const fn cuts(self) -> bool {
        matches!(self, Self::Events | Self::Age)
    }

    /// Changed on one node after the other, and changed back once the other value is in force.
    pub async fn roll(self, fleet: &Fleet) {
        let [usual, other] = self.lines();
        for (from, to) in [(usual, other), (other, usual)] {
            for gateway in &fleet.gateways {
                gateway.configure(from, to);
                gateway.stop().await;
                gateway.restart().await;
            }
            sleep(SETTLED).await;
        }
    }
}

/// A node with other partitions tries to come back, ends, and comes back as it was.
pub async fn differ(gateway: &Gateway) {
    let (right, wrong) = (
        format!("\n        partitions = {PARTITIONS}\n"),
        "\n        partitions = 7\n",
    );
    gateway.stop().await;
    gateway.configure(&right, wrong);
    gateway.relaunch();
    gateway.until_ended().await;
    assert!(
        gateway.log().contains("nats.partitions is 7 on this node"),
        "{} does not say why it ended:\n{}",
        gateway.name(),
        gateway.log()
    );
    gateway.configure(wrong, &right);
    gateway.restart().await;
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let [usual, _] = self.lines();
        f.write_str(usual.split(' ').next().unwrap_or_default())
    }
}
