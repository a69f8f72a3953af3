//! Repairs rooms: fetches the gaps of chains, and finds the head of rooms that continue in a new epoch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use super::chain::{Fetch, Fetched};
use super::live::{Arrival, LiveRoom, RoomState};
use super::server::Keep;
use super::shared::NatsBusInner;
use crate::nats::request::RequestFailed;
use crate::position::Epoch;
use crate::sync::lock;

/// The pauses while a replica lags behind the leader, or the server does not respond.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
];

/// Rooms queued for repair, each once.
#[derive(Default)]
pub(super) struct RepairQueue {
    rooms: Mutex<VecDeque<Arc<LiveRoom>>>,
    added: Notify,
}

impl RepairQueue {
    /// Queues a room for repair if it has a gap.
    pub(super) fn add_if_needed(&self, live: &Arc<LiveRoom>, state: &mut RoomState) {
        let needed = state.chain.fetch().is_some() || (state.chain.is_joining() && state.reset);
        if needed && !state.queued {
            state.queued = true;
            lock(&self.rooms).push_back(Arc::clone(live));
            self.added.notify_one();
        }
    }

    fn next(&self) -> Option<Arc<LiveRoom>> {
        lock(&self.rooms).pop_front()
    }

    async fn added(&self) {
        self.added.notified().await;
    }
}

/// Repairs queued rooms, several at once.
pub(super) async fn run(shared: &NatsBusInner) {
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < shared.config.reads_in_flight_max.max(1)
            && let Some(live) = shared.repairs.next()
        {
            under_way.push(repair(shared, live));
        }
        tokio::select! {
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            () = shared.repairs.added() => {}
        }
    }
}

async fn repair(shared: &NatsBusInner, live: Arc<LiveRoom>) {
    let mut pauses = PAUSES.iter();
    loop {
        let (asked, rejoin, epoch) = {
            let mut state = live.lock();
            let rejoin = state.chain.is_joining() && state.reset;
            let asked = state.chain.fetch();
            if state.is_forgotten() || (asked.is_none() && !rejoin) {
                state.queued = false;
                return;
            }
            (asked, rejoin, state.epoch)
        };
        let progress = match asked {
            Some(asked) => fetch(shared, &live, asked, epoch).await,
            None if rejoin => go_on(shared, &live).await,
            None => Ok(()),
        };
        if progress.is_err() {
            let Some(pause) = pauses.next() else {
                // The next sweep queues it again.
                live.lock().queued = false;
                return;
            };
            tokio::time::sleep(*pause).await;
        }
    }
}

async fn fetch(shared: &NatsBusInner, live: &Arc<LiveRoom>, asked: Fetch, epoch: Epoch) -> Result<(), RequestFailed> {
    let fetched = ask(shared, live, asked).await?;
    let (events, confirmed) = match &fetched {
        Fetched::Exact { events, confirmed } => (events.len(), *confirmed),
        Fetched::Broken { .. } => (0, true),
    };
    let held = live.lock().chain.held();
    let mut permits = shared.deliveries.take(events + held).await;
    let mut state = live.lock();
    if state.epoch != epoch || state.chain.is_joining() {
        // The history started afresh meanwhile.
        return Ok(());
    }
    let mut out = Vec::new();
    state.chain.fetched(asked, fetched, &mut out);
    state.apply(live, out, &mut permits, &shared.budget);
    if events == 0 && !confirmed {
        Err(RequestFailed::unavailable("the stream's end is not known yet"))
    } else {
        Ok(())
    }
}

/// Reads the events after the request's position, and decides whether they are complete and confirmed.
async fn ask(shared: &NatsBusInner, live: &LiveRoom, asked: Fetch) -> Result<Fetched<Arrival>, RequestFailed> {
    let partition = shared.partitions.at(live.partition);
    let clear = live.lock().clear;
    let max = shared.retained_max().saturating_add(1);
    let run = shared
        .run(partition, &live.room, asked.after, 0, Keep::Oldest { max })
        .await?;
    // Sweeps have shown that the room has no undelivered event through `clear`.
    let clear = asked.after.max(clear);
    let since = if run.first.is_some_and(|first| first <= clear) {
        asked.after
    } else {
        clear
    };
    let proven = run.has(asked.after) || shared.is_unbroken(partition, since, run.first).await?;
    let later = run.events.into_iter().filter(|(seq, _)| *seq > asked.after);
    // A fetched event starts a trace of its own: its publisher's may be long over.
    let arrival = |(seq, event)| {
        let traceparent = String::new();
        (seq, Arrival { event, traceparent })
    };
    let events: Vec<(u64, Arrival)> = later.map(arrival).collect();
    let reached = events.last().map_or(asked.after, |(seq, _)| *seq);
    if proven && reached >= asked.want && !asked.verify {
        return Ok(Fetched::Exact {
            events,
            confirmed: false,
        });
    }
    let subjects = shared.server.nats.subjects();
    // Read before the head, so that the position of a room without events precedes all its later ones.
    let known = shared.state(partition).await?.last;
    let head = shared
        .server
        .head(&partition.stream, &subjects.history(live.partition, &live.room))
        .await?;
    let head = head.map(|stored| stored.seq);
    if !proven {
        let head = head.unwrap_or(known);
        // A stream removes older events before newer ones: an event that is still there, and not after the position, is
        // the last.
        return Ok(if head <= asked.after && events.is_empty() {
            Fetched::Exact {
                events,
                confirmed: true,
            }
        } else {
            Fetched::Broken { head }
        });
    }
    let confirmed = head.is_none_or(|head| head <= reached);
    Ok(Fetched::Exact { events, confirmed })
}

/// Finds the head of a room whose history started afresh.
async fn go_on(shared: &NatsBusInner, live: &Arc<LiveRoom>) -> Result<(), RequestFailed> {
    // The unread messages of the old subscription may belong to the history that ended.
    shared.listen(live).await?;
    let head = shared.head_for_members(live).await?;
    let held = live.lock().chain.held();
    let mut permits = shared.deliveries.take(held).await;
    let mut state = live.lock();
    if state.chain.is_joining() {
        state.join(live, head, &mut permits, &shared.budget);
    }
    Ok(())
}
