//! The shards' threads, and their handles for the rest of the gateway.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::hub::Mailbox;
use crate::shard::{Services, ShardEndpoint};
use crate::transport::protocol::Protocols;
use crate::transport::shard::{self, Shard};

/// The most clients and polling requests queued from the client port to a shard: behind it, they hold their places among the
/// handshakes, whose number is bounded.
const VISITS_MAX: usize = 256;

/// The most orders queued to a shard. Each is one call of a backend or one notice; they are taken between passes.
const ORDERS_MAX: usize = 1024;

/// The shards' handles.
pub(super) struct Started {
    pub threads: Vec<JoinHandle<()>>,
    pub mailboxes: Vec<Arc<Mailbox>>,
    pub doors: Vec<mpsc::Sender<shard::Visit>>,
}

pub(super) fn start(config: &Config, services: &Services, node: u64, stop: &CancellationToken) -> io::Result<Started> {
    let (mut threads, mut mailboxes, mut doors) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..u16::try_from(config.shards.max(1)).unwrap_or(u16::MAX) {
        let (mailbox, receiver) = Mailbox::open(
            index,
            config.bus.in_flight_events_max,
            ORDERS_MAX,
            Arc::clone(&services.counters),
        );
        let (door, visits) = mpsc::channel(VISITS_MAX);
        let endpoint = ShardEndpoint {
            mailbox: Arc::clone(&mailbox),
            receiver,
        };
        let serve = ShardThread {
            index,
            config: config.sockets.clone(),
            protocols: config.protocols.clone(),
            services: services.clone(),
            endpoint,
            node,
            visits,
        };
        threads.push(serve.spawn(stop.clone())?);
        mailboxes.push(mailbox);
        doors.push(door);
    }
    Ok(Started {
        threads,
        mailboxes,
        doors,
    })
}

/// The parts that a shard's thread owns.
struct ShardThread {
    index: u16,
    config: shard::Config,
    protocols: Protocols,
    services: Services,
    endpoint: ShardEndpoint,
    node: u64,
    visits: mpsc::Receiver<shard::Visit>,
}

impl ShardThread {
    fn spawn(self, stop: CancellationToken) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("shard-{}", self.index);
        std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(async move {
                match Shard::new(&self.config, self.protocols, self.services, self.endpoint, self.node) {
                    Ok(shard) => shard.run(self.visits, stop).await,
                    Err(error) => tracing::error!(%error, "shard failed to start"),
                }
            });
        })
    }
}
