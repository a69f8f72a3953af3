//! The conformance suite over NATS.

use std::mem;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::servers::NatsServer;
use super::{Node, keeping, settings};
use crate::bus::Bus;
use crate::bus::conformance::conformance_suite;
use crate::bus::history::HistoryLimits;

/// One server for all; it ends with the test program. Each bus is a deployment of its own.
static SERVER: OnceCell<NatsServer> = OnceCell::const_new();

async fn start(limits: HistoryLimits) -> Arc<dyn Bus> {
    let server = SERVER.get_or_init(NatsServer::start).await;
    let node = Node::start(&settings(server), keeping(limits)).await;
    let bus = Arc::clone(&node.bus);
    // It runs as long as the test's runtime.
    mem::forget(node);
    bus
}

conformance_suite!(start);
