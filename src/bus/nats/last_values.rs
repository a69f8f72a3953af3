//! Last values: the newest event of each name, stored beside the history.
//!
//! They are in a stream of their own, which may be lost, or replaced by an older copy, while histories continue. It has
//! an epoch like a partition, and each value names the epoch it was written in. So the values of an older copy are
//! recognized as out of date and ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;

use super::incarnation::Incarnation;
use super::partition::Partition;
use super::publish::Draft;
use super::server::Keep;
use super::shared::NatsBusInner;
use super::values::Values;
use super::{epochs, streams, wire};
use crate::event::Event;
use crate::nats::records;
use crate::nats::request::RequestFailed;
use crate::position::{ChainLink, Epoch, Offset, Position};
use crate::proto::node_v1::{LastValue, StoredEvent};
use crate::room::Room;

/// The most attempts to write a value that other nodes write at the same time: each is lost only to another's success.
const ATTEMPTS_MAX: usize = 50;

/// The number of a partition's newest events that are searched for values stored in the history but not yet here. Their
/// publishers are between the two writes.
const LOOK_BACK: u64 = 4096;

/// The stream of last values.
#[derive(Debug)]
pub(super) struct ValueStream {
    incarnation: Incarnation,
    /// The connection number for which the stream was last checked.
    looked_connects: AtomicU64,
}

impl ValueStream {
    pub(super) const fn new(incarnation: Incarnation, connects: u64) -> Self {
        Self {
            incarnation,
            looked_connects: AtomicU64::new(connects),
        }
    }
}

/// Checks the stream. A lost one is recreated. One that is another than before, or has gone back, begins a new epoch.
pub(super) async fn look(shared: &NatsBusInner) -> Result<(), RequestFailed> {
    let (own, connects) = (&shared.values.incarnation, shared.connects());
    let known = own.highest();
    let mut state = shared.looked_at(&own.stream).await;
    if matches!(state, Err(RequestFailed::NoStream)) {
        restore(shared).await?;
        state = shared.looked_at(&own.stream).await;
    }
    let state = state?;
    if state.created == own.identity().created && state.last >= known {
        own.has(state.last);
    } else {
        renew(shared).await?;
    }
    shared.values.looked_connects.store(connects, Ordering::SeqCst);
    Ok(())
}

/// Reads the record of the epoch, and raises its sequence to what the stream has reached.
pub(super) async fn follow_epoch(shared: &NatsBusInner) -> Result<(), RequestFailed> {
    let own = &shared.values.incarnation;
    if epochs::raise(&shared.server, own).await? != Some(own.epoch()) {
        renew(shared).await?;
    }
    Ok(())
}

async fn restore(shared: &NatsBusInner) -> Result<(), RequestFailed> {
    let (settings, subjects) = (shared.server.nats.config(), shared.server.nats.subjects());
    let context = shared.server.nats.jetstream_to_make_streams();
    let made = streams::ensure_last_values(&context, settings, subjects, &shared.shape()).await;
    match made {
        Ok(()) => {
            tracing::warn!(stream = shared.values.incarnation.stream, "stream lost, recreated");
            Ok(())
        }
        Err(error) => {
            let stream = &shared.values.incarnation.stream;
            shared.health.unusable(stream, &error.to_string());
            Err(RequestFailed::NoStream)
        }
    }
}

async fn renew(shared: &NatsBusInner) -> Result<(), RequestFailed> {
    let own = &shared.values.incarnation;
    let _turn = own.renewal.lock().await;
    let settled = shared.settle(own).await?;
    if settled.identity != own.identity() {
        own.begin(settled.identity, settled.state.last);
        // The rooms' caches differ from what other nodes read now: all read again.
        for live in shared.partitions.iter().flat_map(Partition::all_rooms) {
            live.lock().values = Values::default();
        }
    }
    own.has(settled.state.last);
    Ok(())
}

/// Stores an event as the last value of its name, unless a newer one is stored.
pub(super) async fn keep(
    shared: &NatsBusInner,
    draft: &Draft<'_>,
    stored: &StoredEvent,
    position: Position,
) -> Result<(), RequestFailed> {
    let (server, own) = (&shared.server, &shared.values.incarnation);
    let subject = server
        .nats
        .subjects()
        .last_value(&draft.publish.room, &draft.publish.name);
    let mut value = LastValue {
        event: Some(stored.clone()),
        epoch: position.epoch.bits(),
        offset: position.offset.0,
        time_ms: shared.now().0,
        values_epoch: 0,
    };
    for _ in 0..ATTEMPTS_MAX {
        value.values_epoch = own.epoch().bits();
        let known = own.highest();
        match attempt(shared, &subject, &value).await {
            Ok(Kept::Newer) => return Ok(()),
            Ok(Kept::At(seq)) if seq > known => {
                own.has(seq);
                return Ok(());
            }
            // The stream has gone back: the value was written with the wrong epoch.
            Ok(Kept::At(_)) | Err(RequestFailed::NoStream) => look(shared).await?,
            Ok(Kept::OtherFirst) => {}
            Err(failed) => return Err(failed),
        }
    }
    Err(RequestFailed::unavailable(
        "other nodes wrote the value at the same time",
    ))
}

/// The outcome of one attempt to store a value.
enum Kept {
    /// Stored, at this sequence.
    At(u64),
    /// A newer value is stored.
    Newer,
    /// Another node wrote one meanwhile.
    OtherFirst,
}

async fn attempt(shared: &NatsBusInner, subject: &str, value: &LastValue) -> Result<Kept, RequestFailed> {
    let server = &shared.server;
    let kept = server.head(&shared.values.incarnation.stream, subject).await?;
    let over = kept.as_ref().map_or(0, |kept| kept.seq);
    let is_newer = |kept: LastValue| {
        let is_current = kept.values_epoch == value.values_epoch && kept.epoch == value.epoch;
        is_current && kept.offset >= value.offset
    };
    if kept
        .and_then(|kept| LastValue::decode(kept.payload).ok())
        .is_some_and(is_newer)
    {
        return Ok(Kept::Newer);
    }
    let payload = value.encode_to_vec().into();
    let written = records::put(&server.context(), subject.to_owned(), over, payload).await?;
    Ok(written.map_or(Kept::OtherFirst, Kept::At))
}

/// Reads the last values of a room, oldest first: the stored ones, and those among the newest events. Also returns the
/// offset through which they are complete.
pub(super) async fn read(shared: &NatsBusInner, room: &Room) -> Result<(Vec<Arc<Event>>, Offset), RequestFailed> {
    let server = &shared.server;
    let partition = shared.partitions.of(room);
    if shared.values.looked_connects.load(Ordering::SeqCst) != shared.connects() {
        look(shared).await?;
    }
    let epoch = partition.epoch();
    let state = shared.state(partition).await?;
    let from = state.last.saturating_sub(LOOK_BACK).max(1);
    let max = shared.retained_max();
    let newest = server
        .events(partition.number, room, from, Keep::Newest { max })
        .await?;
    let subjects = [server.nats.subjects().last_values(room)];
    let stream = &shared.values.incarnation.stream;
    let kept = if let Ok(kept) = server.heads(stream, &subjects, 1).await {
        kept
    } else {
        // A missing stream does not respond, like one without a leader.
        look(shared).await?;
        server.heads(stream, &subjects, 1).await?
    };
    let kept: Vec<LastValue> = kept
        .messages
        .into_iter()
        .filter_map(|kept| LastValue::decode(kept.payload).ok())
        .collect();
    let own = &shared.values.incarnation;
    let is_unknown = |of: Epoch| of != own.epoch() && !own.has_ended(of);
    if kept.iter().any(|kept| is_unknown(Epoch::from_bits(kept.values_epoch))) {
        // Another node was first to find that the stream is another one.
        follow_epoch(shared).await?;
    }
    let values_epoch = own.epoch().bits();
    let kept = kept.into_iter().filter_map(|kept| {
        let counts = kept.values_epoch == values_epoch && kept.epoch == epoch.bits();
        let offset = kept.offset;
        Some((offset, wire::last_value(room, kept)?)).filter(|_| counts)
    });
    let newest = newest
        .events
        .into_iter()
        .filter(|(_, event)| event.retention == crate::event::Retention::LastValue);
    let now = shared.now();
    let linked = kept.chain(newest).filter_map(|(offset, mut event)| {
        event.link = Some(ChainLink {
            position: Position {
                epoch,
                offset: Offset(offset),
            },
            prev: Offset::ZERO,
        });
        (event.time.age(now) < shared.config.last_value_age_max).then(|| Arc::new(event))
    });
    let mut values = Values::default();
    for event in linked {
        values.set(event, shared.config.last_value_names_max);
    }
    Ok((values.into_events(), Offset(state.last)))
}
