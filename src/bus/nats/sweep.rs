//! Anti-entropy: sweeps the heads of all rooms with members here, checks the streams after a connection broke, and
//! follows the epochs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::epochs;
use super::live::LiveRoom;
use super::partition::Partition;
use super::proof::Removal;
use super::server::HEADS_MAX;
use super::shared::NatsBusInner;
use crate::nats::request::RequestFailed;

/// The interval between reads of the epochs' records, which are raised then. A record is needed after the loss of a stream only.
const RECORDS_INTERVAL: Duration = Duration::from_secs(10);

/// The minimum pause between two sweeps, however much is wrong: hundreds of rooms may ask for one at a time.
const PAUSE: Duration = Duration::from_millis(50);

/// The pause after the first failed sweep; it doubles each time, up to the usual interval.
const AGAIN_MIN: Duration = Duration::from_millis(100);

/// The number of partitions that are checked concurrently: a quarter of the default reads in flight, which joins
/// need, too.
const AT_ONCE: usize = 8;

/// The number of consecutive sweeps that may find a room behind while it receives nothing live. Then the room is
/// subscribed again.
const BEHIND_MAX: u8 = 2;

/// Sweeps until `stop`.
pub(super) async fn run(shared: &NatsBusInner, stop: CancellationToken) {
    let every = shared.server.nats.config().sweep_interval;
    let mut turn = interval(every);
    let mut again: Option<Duration> = None;
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut standing = shared.server.nats.fanout().standing();
    let mut revisions = shared.agreement.revisions();
    let mut records_at = Some(Instant::now());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => {}
            () = shared.health.check_wanted() => {}
            () = shared.agreement.called() => records_at = None,
            Ok(()) = revisions.changed() => reshape(shared).await,
            Ok(()) = standing.changed() => {}
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
        }
        if !shared.server.nats.fanout().is_connected() {
            continue;
        }
        if !shared.agreement.holds() {
            suspend(shared);
            continue;
        }
        let records = records_at.is_none_or(|at| at.elapsed() >= RECORDS_INTERVAL);
        if records {
            records_at = Some(Instant::now());
        }
        shared.health.test_permissions(&shared.server.nats).await;
        // Before the rooms: clients are notified of the recovery once these were swept.
        let values = look_at_values(shared, records).await;
        let look = |partition| look(shared, partition, records).boxed();
        let looks: Vec<_> = shared.partitions.iter().map(look).collect();
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        if shared.health.take_lost() || looked.iter().any(is_lost) {
            restore(shared).await;
        }
        shared.health.log_epochs();
        let failed = values.is_err() || looked.iter().any(Result::is_err);
        again = failed.then(|| again.map_or(AGAIN_MIN, |pause| (pause * 2).min(every)));
        tokio::time::sleep(PAUSE).await;
    }
}

async fn restore(shared: &NatsBusInner) {
    match shared.restore_streams().await {
        Ok(()) => {
            tracing::warn!("streams lost, recreated");
            shared.health.restored();
        }
        Err(error) if error.may_pass() => tracing::debug!(%error, "stream creation failed"),
        Err(error) => shared.health.not_restored(&error.to_string()),
    }
}

/// Updates the streams to the limits now in force.
async fn reshape(shared: &NatsBusInner) {
    match shared.restore_streams().await {
        Ok(()) => tracing::info!("stream settings applied"),
        // The next sweep finds what is missing; a start of any node does the rest.
        Err(error) => tracing::warn!(%error, "stream settings not applied"),
    }
}

/// Holds all deliveries: incoming events belong to streams of another layout.
fn suspend(shared: &NatsBusInner) {
    for partition in shared.partitions.iter() {
        partition.doubt();
        for live in partition.all_rooms() {
            live.lock().chain.suspect();
        }
    }
}

async fn look_at_values(shared: &NatsBusInner, records: bool) -> Result<(), RequestFailed> {
    super::last_values::look(shared).await?;
    if records {
        // Checks whether records can be written; their content is checked with each stream.
        shared.looked_at(&shared.server.nats.subjects().stream_of('m')).await?;
        unless_read_only(super::last_values::follow_epoch(shared).await)?;
    }
    Ok(())
}

/// Ignores a read-only stream of records: rooms continue, and it is reported elsewhere.
fn unless_read_only(followed: Result<(), RequestFailed>) -> Result<(), RequestFailed> {
    match followed {
        Err(RequestFailed::ReadOnly) => Ok(()),
        other => other,
    }
}

async fn look(shared: &NatsBusInner, partition: &Partition, records: bool) -> Result<(), RequestFailed> {
    if records {
        unless_read_only(follow_epoch(shared, partition).await)?;
    }
    let connects = shared.connects();
    let long_ago = partition.unswept() > shared.trusted_age();
    let doubted = partition.take_doubt() | !partition.is_verified_for(connects) | long_ago;
    let looked = if doubted {
        verify(shared, partition, connects).await
    } else {
        sweep(shared, partition).await
    };
    // An unanswered sweep proves nothing; what it would have found is left to the next one.
    if is_lost(&looked) || (looked.is_err() && doubted) {
        partition.doubt();
    }
    looked
}

/// Reports whether a stream was found to be lost.
const fn is_lost(looked: &Result<(), RequestFailed>) -> bool {
    matches!(looked, Err(RequestFailed::NoStream))
}

async fn follow_epoch(shared: &NatsBusInner, partition: &Partition) -> Result<(), RequestFailed> {
    shared.state(partition).await?;
    if epochs::raise(&shared.server, &partition.incarnation).await? != Some(partition.epoch()) {
        shared.renew(partition).await?;
    }
    Ok(())
}

/// Holds all deliveries until it is known that nothing was missed, after a connection broke or an inconsistency was
/// seen.
async fn verify(shared: &NatsBusInner, partition: &Partition, connects: u64) -> Result<(), RequestFailed> {
    let rooms = partition.all_rooms();
    for live in &rooms {
        live.lock().chain.suspect();
    }
    let known = partition.sweep_from() - 1;
    shared.state_after_barrier(partition).await?;
    sweep(shared, partition).await?;
    partition.verified_for(connects);
    // The sweep has found everything that the stream has since then. Where the stream has removed too much to be
    // listed, it is trusted that no operator purged a room meanwhile: the limits leave a room's newest event.
    let trusted = !rooms.is_empty() && shared.removal(partition, known, None).await? != Removal::Something;
    for live in rooms {
        let held = live.lock().chain.held();
        let mut permits = shared.deliveries.take(held).await;
        let mut room = live.lock();
        if trusted {
            let mut out = Vec::new();
            room.chain.verified(&mut out);
            room.apply(&live, out, &mut permits, &shared.budget);
        }
        shared.repairs.add_if_needed(&live, &mut room);
    }
    Ok(())
}

/// Reads the heads of all rooms with members here.
async fn sweep(shared: &NatsBusInner, partition: &Partition) -> Result<(), RequestFailed> {
    let (at, from) = (Instant::now(), partition.sweep_from());
    let rooms = partition.all_rooms();
    let mut through: Option<u64> = None;
    for chunk in rooms.chunks(HEADS_MAX) {
        let heads = heads(shared, partition, chunk, from).await?;
        through = match (through, heads) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    partition.swept(through, at);
    for live in &rooms {
        let mut state = live.lock();
        if state.chain.is_settled() {
            state.clear = state.clear.max(through.unwrap_or(0));
        }
        // Includes rooms whose repair was given up.
        shared.repairs.add_if_needed(live, &mut state);
    }
    Ok(())
}

async fn heads(
    shared: &NatsBusInner,
    partition: &Partition,
    rooms: &[Arc<LiveRoom>],
    from: u64,
) -> Result<Option<u64>, RequestFailed> {
    let names = shared.server.nats.subjects();
    let subject_of = |live: &Arc<LiveRoom>| names.history(partition.number, &live.room);
    let subjects: Vec<String> = rooms.iter().map(subject_of).collect();
    let heads = shared.server.heads(&partition.stream, &subjects, from).await?;
    let by_subject: HashMap<&str, &Arc<LiveRoom>> = subjects.iter().map(String::as_str).zip(rooms).collect();
    for message in heads.messages {
        partition.has(message.seq);
        if let Some(live) = by_subject.get(&*message.subject) {
            found(shared, live, message.seq).await;
        }
    }
    Ok(heads.up_to)
}

async fn found(shared: &NatsBusInner, live: &Arc<LiveRoom>, head: u64) {
    let silent = {
        let mut state = live.lock();
        let heard = std::mem::take(&mut state.heard);
        if state.chain.is_joining() || head <= state.chain.last() {
            state.behind = 0;
            false
        } else {
            state.chain.told(head);
            shared.repairs.add_if_needed(live, &mut state);
            state.behind = if heard { 0 } else { state.behind + 1 };
            state.behind >= BEHIND_MAX
        }
    };
    if silent {
        // Something on the way from the stream has lost this room's subscription.
        tracing::warn!("room subscription stale, resubscribing");
        match shared.listen(live).await {
            Ok(()) => live.lock().behind = 0,
            Err(failed) => tracing::debug!(error = &failed as &dyn std::error::Error, "room resubscription failed"),
        }
    }
}
