//! Leaves a server in lame duck mode before it ends.
//!
//! Such a server accepts no new connections and later cuts those it has, one after the other. A node that leaves early
//! chooses the moment, and can connect elsewhere before it leaves (make-before-break): [`relocation`]. Where that is
//! not possible, it reconnects early: connections leave one by one, not together with those of other nodes, and pending
//! work is repeated as after any break.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ManagedConnection;
use super::nodes::Nodes;
use super::relocation::{self, HAND_OVER_MAX, Stuck};

/// The window over which nodes, and the connections of one, spread their moves. Less than any server's grace.
const SPREAD: Duration = Duration::from_millis(500);

/// Leaves servers in lame duck mode until `stop`.
pub(super) async fn run(nodes: &Nodes, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch(nodes, nodes.nats().fanout()) => {}
        () = watch(nodes, nodes.nats().control()) => {}
    }
}

async fn watch(nodes: &Nodes, link: &ManagedConnection) {
    let mut standing = link.standing();
    while standing.wait_for(|standing| standing.lame_duck).await.is_ok() {
        sleep(SPREAD.mul_f64(rand::random())).await;
        // The connection may have been cut and made elsewhere during the delay.
        if !standing.borrow().lame_duck {
            continue;
        }
        let (began, connects) = (Instant::now(), link.connects());
        match relocation::relocate(nodes, link).await {
            Ok(old) => {
                let took_ms = began.elapsed().as_millis();
                tracing::info!(took_ms, "nats server shutting down, connection moved");
                relocation::retire(nodes, &old).await;
            }
            Err(Stuck::Alone) => {
                if standing.changed().await.is_err() {
                    return;
                }
            }
            Err(stuck) => {
                tracing::warn!(%stuck, "nats server shutting down, move failed, reconnecting");
                break_early(link, connects).await;
            }
        }
    }
}

/// Forces a reconnect, unless the connection broke since `connects` was read. Returns once it was made again.
async fn break_early(link: &ManagedConnection, connects: u64) {
    let mut standing = link.standing();
    if link.connects() == connects && link.is_connected() {
        let client = link.client();
        let _ = timeout(HAND_OVER_MAX, client.force_reconnect()).await;
    }
    while link.connects() == connects {
        if standing.changed().await.is_err() {
            return;
        }
    }
}
