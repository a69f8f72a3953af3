//! The conformance suite over a real server, and the tests of this bus alone.

mod faults;
mod figures;
mod follow;
mod hands;
mod losses;
mod nodes;
mod settings;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Config, NatsBus, shared_settings};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::lease::Lease;
use crate::nats::agreement::Agreement;
use crate::nats::nodes::Nodes;
use crate::nats::{self, Nats, NatsError};
use crate::testing::nats as servers;
use servers::NatsServer;

/// Returns the settings of a new deployment on a server.
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

/// A running bus.
struct Node {
    bus: Arc<NatsBus>,
    _running: DropGuard,
}

impl Node {
    async fn start(settings: &nats::Config, config: Config) -> Self {
        Self::try_start(settings, config).await.unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    async fn try_start(settings: &nats::Config, config: Config) -> Result<Self, NatsError> {
        let nats = Nats::connect(settings).await?;
        let (stop, nodes) = (CancellationToken::new(), Nodes::new(Arc::clone(&nats), "node"));
        let agreement = Agreement::join(Arc::clone(&nats), shared_settings(settings, &config)).await?;
        nodes.set_settings(agreement.digest());
        let bus = NatsBus::start(nats, Arc::clone(&agreement), config, Lease::unlimited()).await?;
        tokio::spawn(Arc::clone(&bus).run(stop.clone()));
        let calls = agreement.listen().await?;
        tokio::spawn(agreement.run(calls, Arc::clone(&nodes), stop.clone()));
        let heartbeats = nodes.listen().await?;
        tokio::spawn(nodes.run(heartbeats, stop.clone()));
        Ok(Self {
            bus,
            _running: stop.drop_guard(),
        })
    }
}

/// Waits until a condition holds.
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
