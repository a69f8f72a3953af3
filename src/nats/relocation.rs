//! Moves a link to another server without a break (make-before-break). The new connection is established and has every
//! subscription before the old one is left.
//!
//! 1. Connect elsewhere, subscribe there to everything that is subscribed to here, and call the roll ([`roll_call`]):
//!    over the new connection, answered over the old one. Then each message arrives over the new one, or has arrived
//!    already.
//! 2. Hold publishes and subscriptions, for some milliseconds. Call again, to cover subscriptions made meanwhile; and
//!    over the old connection, so that nothing published there is still in transit.
//! 3. Use the new connection. Every subscription drains the old one, then reads the new one.
//! 4. Close the old connection when its requests are answered.
//!
//! When some nodes or streams do not answer in time, the link moves all the same and counts as reconnected, so missed
//! messages are looked for. When the old connection breaks meanwhile, nothing moves: it reconnects by itself.

use std::sync::Arc;
use std::time::Duration;

use async_nats::ServerAddr;
use rand::seq::SliceRandom as _;
use tokio::time::timeout;

use super::link::LibraryConnection;
use super::nodes::Nodes;
use super::subscription::Move;
use super::{ManagedConnection, NatsError, connect, roll_call};

/// The time to reach another server, over all attempts. A server in lame duck mode waits ten seconds before it cuts
/// clients, unless configured otherwise.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// The time of one attempt.
const CONNECT_EACH: Duration = Duration::from_secs(1);

/// The time to wait for a full queue of commands.
pub(super) const HAND_OVER_MAX: Duration = Duration::from_millis(500);

/// The time of the first call, during which nothing is held.
const CALL_MAX: Duration = Duration::from_secs(1);

/// The time of the last call, which holds publishes and subscriptions: clients notice no more than this.
const LAST_CALL_MAX: Duration = Duration::from_millis(250);

/// The reason why a link did not move.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stuck {
    #[error("no other server is known")]
    Alone,
    #[error("no connection elsewhere: {0}")]
    Nowhere(#[from] NatsError),
    #[error("no connection elsewhere in time")]
    Late,
    #[error("every connection led back to the same server")]
    Same,
    #[error("publishes pending for too long")]
    Busy,
    #[error("a connection broke meanwhile")]
    Broken,
}

/// A move in progress. Withdrawn on drop unless it is settled.
struct UnderWay<'a> {
    link: &'a ManagedConnection,
    its_move: Arc<Move>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.its_move.withdraw() {
            self.link.registry().wake_all();
        }
    }
}

/// Moves to another server. Returns the connection that was left; see [`retire`].
pub(super) async fn relocate(nodes: &Nodes, link: &ManagedConnection) -> Result<Arc<LibraryConnection>, Stuck> {
    let old = link.line();
    let made = old.connects();
    let new = Arc::new(elsewhere(nodes, link, &old).await?);
    let stands = || old.is_connected() && old.connects() == made && new.is_connected() && new.connects() == 1;
    let moved = change_over(nodes, link, (&old, &new), stands).await;
    if moved.is_err() {
        drain(&new).await;
    }
    moved.map(|()| old)
}

/// Switches from the old line to the new one, if both stay established all the time.
async fn change_over(
    nodes: &Nodes,
    link: &ManagedConnection,
    (old, new): (&LibraryConnection, &Arc<LibraryConnection>),
    stand: impl Fn() -> bool,
) -> Result<(), Stuck> {
    let under_way = UnderWay {
        link,
        its_move: Move::to(new.number),
    };
    subscribe(&under_way, new).await?;
    // Answered on the old connection: a message is then read there, or arrives on the new one.
    let mut whole = roll_call::is_answered(nodes, &new.client, &old.client, CALL_MAX).await;
    if !stand() {
        return Err(Stuck::Broken);
    }
    let held = timeout(HAND_OVER_MAX, link.hold()).await.map_err(|_| Stuck::Busy)?;
    subscribe(&under_way, new).await?;
    if whole {
        let arrives = roll_call::is_answered(nodes, &new.client, &old.client, LAST_CALL_MAX);
        let has_arrived = roll_call::is_answered(nodes, &old.client, &new.client, LAST_CALL_MAX);
        whole = futures_util::future::join(arrives, has_arrived).await == (true, true);
    }
    if !stand() {
        return Err(Stuck::Broken);
    }
    if !whole {
        tracing::warn!("nats connection moved without full confirmation, checking for missed events");
    }
    link.change_over(new, &under_way.its_move, whole);
    drop(held);
    Ok(())
}

/// Closes a connection that was left, after its requests are answered.
pub(super) async fn retire(nodes: &Nodes, old: &LibraryConnection) {
    tokio::time::sleep(nodes.nats().config().request_timeout).await;
    drain(old).await;
}

async fn drain(line: &LibraryConnection) {
    if !matches!(timeout(HAND_OVER_MAX, line.client.drain()).await, Ok(Ok(()))) {
        tracing::debug!("unused nats connection not drained");
    }
}

async fn subscribe(under_way: &UnderWay<'_>, new: &LibraryConnection) -> Result<(), Stuck> {
    let registry = under_way.link.registry();
    if registry.offer(&new.client, new.number, &under_way.its_move).await {
        Ok(())
    } else {
        Err(Stuck::Broken)
    }
}

/// Connects to another server than the one to be left; one address may lead to several.
async fn elsewhere(
    nodes: &Nodes,
    link: &ManagedConnection,
    old: &LibraryConnection,
) -> Result<LibraryConnection, Stuck> {
    let servers = known(old).await;
    if servers.len() < 2 {
        return Err(Stuck::Alone);
    }
    let from = old.client.server_info().server_id;
    let connecting = async {
        let mut stuck = Stuck::Same;
        for server in &servers {
            match timeout(CONNECT_EACH, line_to(nodes, link, server)).await {
                Ok(Ok(line)) if is_elsewhere(&line, &from) => return remember(line, &servers).await,
                Ok(Ok(_)) => {}
                Ok(Err(failed)) => stuck = failed.into(),
                Err(_) => stuck = Stuck::Late,
            }
        }
        Err(stuck)
    };
    timeout(CONNECT_MAX, connecting).await.map_err(|_| Stuck::Late)?
}

async fn line_to(nodes: &Nodes, link: &ManagedConnection, server: &ServerAddr) -> Result<LibraryConnection, NatsError> {
    let (nats, told) = (nodes.nats(), (link.name(), link.told()));
    connect::line(nats.config(), nats.subjects(), told, server).await
}

fn is_elsewhere(line: &LibraryConnection, from: &str) -> bool {
    let info = line.client.server_info();
    info.server_id != from && !info.lame_duck_mode
}

/// Gives the new connection the whole pool, for later moves.
async fn remember(line: LibraryConnection, servers: &[ServerAddr]) -> Result<LibraryConnection, Stuck> {
    match line.client.set_server_pool(servers).await {
        Ok(()) => Ok(line),
        Err(_) => Err(Stuck::Broken),
    }
}

/// Returns the servers that this connection could use: shuffled, so that nodes spread, and those with failed attempts
/// last.
async fn known(line: &LibraryConnection) -> Vec<ServerAddr> {
    let Ok(Ok(mut servers)) = timeout(HAND_OVER_MAX, line.client.server_pool()).await else {
        return Vec::new();
    };
    servers.shuffle(&mut rand::rng());
    servers.sort_by_key(|server| server.failed_attempts);
    servers.into_iter().map(|server| server.addr).collect()
}

#[cfg(test)]
mod tests;
