//! The conformance suite over a real server, and what only this bus has to do.

mod faults;
mod figures;
mod losses;
mod nodes;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Config, NatsBus};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::lease::Lease;
use crate::nats::{self, Nats};
use crate::testing::nats as servers;
use servers::NatsServer;

/// The settings of a deployment of its own on a server.
fn settings(server: &NatsServer) -> nats::Config {
    nats::Config {
        servers: vec![server.url()],
        deployment: format!("t{:016x}", rand::random::<u64>()),
        partitions: 4,
        stream_bytes_max: 4 << 20,
        ..nats::Config::default()
    }
}

fn keeping(limits: HistoryLimits) -> Config {
    Config {
        history: HistoryRules::new([], limits),
        ..Config::default()
    }
}

/// A bus that runs.
struct Node {
    bus: Arc<NatsBus>,
    _running: DropGuard,
}

impl Node {
    async fn start(settings: &nats::Config, config: Config) -> Self {
        let nats = Nats::connect(settings).await.unwrap();
        let bus = NatsBus::start(nats, config, Lease::unlimited()).await.unwrap();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(Arc::clone(&bus).run(stop.clone()));
        Self {
            bus,
            _running: stop.drop_guard(),
        }
    }
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
