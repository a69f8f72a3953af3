//! Last values: the newest event of each name, kept beside the history.

use prost::Message as _;

use super::epochs;
use super::publish::Draft;
use super::server::{Keep, Silence};
use super::shared::Shared;
use super::values::Values;
use super::wire;
use crate::event::Event;
use crate::position::{Epoch, Link, Offset, Position};
use crate::proto::node_v1::{LastValue, StoredEvent};
use crate::room::Room;
use std::sync::Arc;

/// How often a value is written anew because somebody else wrote one.
const ATTEMPTS_MAX: usize = 50;

/// How many of a partition's newest events are looked through for values that are stored but not yet kept: their
/// publishers are between the two.
const LOOK_BACK: u64 = 4096;

/// Keeps an event as the last value of its name, unless a newer one is kept.
pub(super) async fn keep(
    shared: &Shared,
    draft: &Draft<'_>,
    stored: &StoredEvent,
    position: Position,
) -> Result<(), Silence> {
    let server = &shared.server;
    let subjects = server.nats.subjects();
    let (stream, subject) = (
        subjects.stream_of('v'),
        subjects.last_value(&draft.publish.room, &draft.publish.name),
    );
    let value = LastValue {
        event: Some(stored.clone()),
        epoch: position.epoch.bits(),
        offset: position.offset.0,
        time_ms: shared.now().0,
    };
    let payload: bytes::Bytes = value.encode_to_vec().into();
    for _ in 0..ATTEMPTS_MAX {
        let kept = server.head(&stream, &subject).await?;
        let over = kept.as_ref().map_or(0, |kept| kept.seq);
        let newer = kept
            .and_then(|kept| LastValue::decode(kept.payload).ok())
            .is_some_and(|kept| kept.epoch == position.epoch.bits() && kept.offset >= position.offset.0);
        if newer || epochs::put(server, subject.clone(), over, payload.clone()).await? {
            return Ok(());
        }
    }
    Err(Silence::Away)
}

/// The last values of a room, oldest first: those that are kept, and those of the newest events; and through where
/// everything is among them.
pub(super) async fn read(shared: &Shared, room: &Room) -> Result<(Vec<Arc<Event>>, Offset), Silence> {
    let server = &shared.server;
    let partition = shared.partition_of(room);
    let subjects = server.nats.subjects();
    let epoch = partition.epoch();
    let state = shared.state(partition).await?;
    let from = state.last.saturating_sub(LOOK_BACK).max(1);
    let max = shared.retained_max();
    let newest = server
        .events(partition.number, room, from, Keep::Newest { max })
        .await?;
    let kept = server
        .heads(&subjects.stream_of('v'), &[subjects.last_values(room)], 1)
        .await?;
    let kept = kept.messages.into_iter().filter_map(|kept| {
        let (event, of, offset) = wire::last_value(room, kept.payload)?;
        (Epoch::from_bits(of) == epoch).then_some((offset, event))
    });
    let newest = newest
        .events
        .into_iter()
        .filter(|(_, event)| event.retention == crate::event::Retention::LastValue);
    let now = shared.now();
    let linked = kept.chain(newest).filter_map(|(offset, mut event)| {
        event.link = Some(Link {
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
