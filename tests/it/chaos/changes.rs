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

    /// The smaller and the larger setting, as lines of the fleet's configuration.
    const fn lines(self) -> [&'static str; 2] {
        match self {
            Self::Events => ["events_max = 10000 # history", "events_max = 20000 # history"],
            Self::Age => ["age_max = \"10m\" # history", "age_max = \"20m\" # history"],
            Self::Bytes => ["stream_bytes_max = \"48 MiB\"", "stream_bytes_max = \"50 MiB\""],
            Self::Window => [
                "idempotency_window = \"2m\" # nats",
                "idempotency_window = \"4m\" # nats",
            ],
            Self::Lease => ["lease = \"10s\" # nats", "lease = \"20s\" # nats"],
            Self::LastValueAge => ["last_value_age_max = \"1h\" # bus", "last_value_age_max = \"2h\" # bus"],
        }
    }

    /// Raised on one node after the other, and lowered again.
    pub async fn roll(self, fleet: &Fleet) {
        let [small, large] = self.lines();
        for (from, to) in [(small, large), (large, small)] {
            for gateway in &fleet.gateways {
                gateway.configure(from, to);
                gateway.stop().await;
                gateway.restart().await;
            }
        }
        sleep(SETTLED).await;
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
        let [small, _] = self.lines();
        f.write_str(small.split(' ').next().unwrap_or_default())
    }
}
