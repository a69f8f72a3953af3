//! Leaves a server that has said it will end, before it ends.
//!
//! Such a server takes no new connections and cuts those it has one after the other, later. Who goes early chooses the
//! moment: the connections go one by one, not all with the others', and nothing waits on a server whose streams have left
//! already. What is under way at that moment is repeated as after any other break.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Link, Nats};

/// Nodes, and the connections of one, go at different times within this. Less than any server's grace.
const SPREAD: Duration = Duration::from_millis(800);

/// How long a full queue of commands is waited for.
const HAND_OVER_MAX: Duration = Duration::from_millis(500);

/// Leaves servers that say so until `stop`.
pub(super) async fn run(nats: Arc<Nats>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch(nats.fanout()) => {}
        () = watch(nats.control()) => {}
    }
}

async fn watch(link: &Link) {
    let mut standing = link.standing();
    while standing.wait_for(|standing| standing.lame_duck).await.is_ok() {
        sleep(SPREAD.mul_f64(rand::random())).await;
        // Meanwhile it may have been cut, and made anew elsewhere.
        if standing.borrow().lame_duck && has_others(link).await {
            tracing::info!("a nats server will end; the connection moves to another");
            let connects = link.connects();
            let _ = timeout(HAND_OVER_MAX, link.client().force_reconnect()).await;
            while link.connects() == connects {
                if standing.changed().await.is_err() {
                    return;
                }
            }
        } else if standing.changed().await.is_err() {
            return;
        }
    }
}

/// Whether there is anywhere to go.
async fn has_others(link: &Link) -> bool {
    let known = timeout(HAND_OVER_MAX, link.client().server_pool()).await;
    matches!(known, Ok(Ok(servers)) if servers.len() > 1)
}
