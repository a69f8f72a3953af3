//! The parts of the bus over NATS: its partitions. A follower reads a partition's stream from its position on, all rooms
//! together, and is attached to the [`super::tap`] at the end.
//!
//! A stored message does not name its room's previous event. So what a page misses is found from the sequences: as long as
//! none is absent, nothing is missing. Behind an absent one, each room of the page is looked up at the leader: a stream
//! removes a room's older events before its newer ones, so an event at or before the position that is still there proves
//! that nothing after it is missing ([`super::proof`]). Otherwise the room begins anew. A room of which nothing is left
//! cannot be named; the page says so once the stream has removed its oldest messages beyond the position.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::NatsBus;
use super::partition::Partition;
use super::server::Stored;
use super::shared::NatsBusInner;
use super::wire;
use crate::bus::BusUnavailable;
use crate::bus::parts::{Follower, PartPage, Parts, Place};
use crate::event::Event;
use crate::nats::Subjects;
use crate::nats::request::RequestFailed;
use crate::position::{ChainLink, Offset, Position};
use crate::room::Room;

/// The most messages of one page, of whatever rooms.
const MESSAGES_MAX: usize = 256;

/// The most bytes of one page.
const BYTES_MAX: usize = 1 << 20;

/// The most reads from a replica that lags behind the leader, and the pause that grows between them.
const ATTEMPTS_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_millis(10);

impl Parts for NatsBus {
    fn parts(&self) -> u16 {
        self.shared.partitions.count()
    }

    fn follow<'a>(
        &'a self,
        part: u16,
        after: Option<Place>,
        follower: &'a Arc<dyn Follower>,
    ) -> BoxFuture<'a, Result<PartPage, BusUnavailable>> {
        Box::pin(async move {
            self.shared.leased()?;
            Ok(follow(&self.shared, part, after, follower).await?)
        })
    }

    fn followed(&self, part: u16, follower_id: u16) -> Option<Position> {
        self.shared.tap.followed(part, follower_id)
    }

    fn unfollow(&self, follower_id: u16) {
        self.shared.tap.close(follower_id);
    }
}

async fn follow(
    shared: &NatsBusInner,
    part: u16,
    after: Option<Place>,
    follower: &Arc<dyn Follower>,
) -> Result<PartPage, RequestFailed> {
    let partition = shared.partitions.at(part);
    let patience = shared.server.nats.config().request_timeout;
    let opened = tokio::time::timeout(patience, shared.tap.open(follower.id())).await;
    opened.map_err(RequestFailed::unavailable)?;
    // Behind the subscription: what is stored after this state arrives live.
    let state = shared.state_after_barrier(partition).await?;
    let epoch = partition.epoch();
    let is_known = |after: &Place| after.position.epoch == epoch && after.position.offset.0 <= state.last;
    let known = after.filter(is_known);
    let Some(after) = known else {
        let (through, attached) = shared.tap.attach(part, epoch, None, state.last, follower);
        return Ok(PartPage {
            events: Vec::new(),
            through: Place::at(Position {
                epoch,
                offset: Offset(through),
            }),
            restarts: Vec::new(),
            partial: after.is_some(),
            attached,
        });
    };
    let from = after.position.offset.0;
    let messages = read(shared, partition, from, state.last).await?;
    let reached = messages.reached;
    let mut page = judge(shared, partition, after, &messages, follower).await?;
    // The first message of the page is not the next one: the stream may have removed its oldest messages.
    if reached > from && messages.stored.first().is_none_or(|first| first.seq > from + 1) {
        let state = shared.state(partition).await?;
        page.partial = state.first > from + 1;
    }
    if partition.epoch() != epoch {
        return Err(RequestFailed::unavailable("the history began anew"));
    }
    let is_everything = u64::try_from(messages.stored.len()).is_ok_and(|count| reached - from == count);
    page.through = Place {
        position: Position {
            epoch,
            offset: Offset(reached),
        },
        gapped: after.gapped || !is_everything,
    };
    if messages.is_end {
        (_, page.attached) = shared.tap.attach(part, epoch, Some(reached), reached, follower);
    }
    Ok(page)
}

/// Messages of a stream from a position on, of whatever rooms.
struct Messages {
    stored: Vec<Stored>,
    /// Nothing is left in the stream up to here.
    reached: u64,
    /// There were no more.
    is_end: bool,
}

/// Reads the messages after a sequence. A replica may serve the read; that there are no more is asked of the leader.
async fn read(shared: &NatsBusInner, partition: &Partition, after: u64, last: u64) -> Result<Messages, RequestFailed> {
    let subject = shared.server.nats.subjects().histories(partition.number);
    if after >= last {
        return Ok(Messages {
            stored: Vec::new(),
            reached: after,
            is_end: true,
        });
    }
    for attempt in 0..ATTEMPTS_MAX {
        tokio::time::sleep(PAUSE * attempt).await;
        let (stored, pending) = shared
            .server
            .page(&partition.stream, &subject, after + 1, (MESSAGES_MAX, BYTES_MAX))
            .await?;
        if let Some(newest) = stored.last() {
            return Ok(Messages {
                reached: newest.seq,
                is_end: pending == 0,
                stored,
            });
        }
        if shared
            .server
            .next(&partition.stream, &subject, after + 1)
            .await?
            .is_none()
        {
            return Ok(Messages {
                stored,
                reached: last,
                is_end: true,
            });
        }
    }
    Err(RequestFailed::unavailable("a replica lags behind"))
}

/// Builds the events of a page, and finds the rooms that begin anew.
async fn judge(
    shared: &NatsBusInner,
    partition: &Partition,
    after: Place,
    messages: &Messages,
    follower: &Arc<dyn Follower>,
) -> Result<PartPage, RequestFailed> {
    let Place {
        position: after,
        gapped,
    } = after;
    let prefix = Subjects::tokens_of(&follower.rooms().tenant);
    let mut events: Vec<(usize, Event)> = Vec::new();
    for (index, stored) in messages.stored.iter().enumerate() {
        let names = shared.server.nats.subjects().partition_and_token(&stored.subject);
        let Some((_, token)) = names.filter(|(_, token)| token.starts_with(&prefix)) else {
            continue;
        };
        let room = Subjects::room_of(token).filter(|room| follower.rooms().contains(room));
        let event = room.and_then(|room| wire::event(&room, stored.payload.clone(), stored.time));
        events.extend(event.map(|event| (index, event)));
    }
    let first = first_of_rooms(&events);
    let mut previous = previous(shared, partition, after.offset.0, first.keys()).await?;
    let mut restarts = Vec::new();
    for (room, index) in first {
        let seq = messages.stored[index].seq;
        // Every sequence between the position and the event is in the page: nothing was removed.
        let is_whole = u64::try_from(index).is_ok_and(|index| seq == after.offset.0 + 1 + index);
        if (is_whole && !gapped) || is_kept(shared, partition, &room, after.offset.0).await? {
            continue;
        }
        previous.insert(room.clone(), seq - 1);
        let offset = Offset(seq - 1);
        restarts.push((room, Position { offset, ..after }));
    }
    let link = |(index, event): (usize, Event)| {
        let seq = messages.stored[index].seq;
        let prev = previous.insert(event.room.clone(), seq).unwrap_or(0);
        let position = Position {
            offset: Offset(seq),
            ..after
        };
        let prev = Offset(prev);
        Arc::new(Event {
            link: Some(ChainLink { position, prev }),
            ..event
        })
    };
    Ok(PartPage {
        events: events.into_iter().map(link).collect(),
        through: Place::at(after),
        restarts,
        partial: false,
        attached: false,
    })
}

/// Returns the index of the first message of each room.
fn first_of_rooms(events: &[(usize, Event)]) -> HashMap<Room, usize> {
    let mut first = HashMap::new();
    for (index, event) in events {
        first.entry(event.room.clone()).or_insert(*index);
    }
    first
}

/// Returns the newest sequence at or before a position of each room that has one.
async fn previous(
    shared: &NatsBusInner,
    partition: &Partition,
    after: u64,
    rooms: impl Iterator<Item = &Room>,
) -> Result<HashMap<Room, u64>, RequestFailed> {
    let names = shared.server.nats.subjects();
    let by_subject: HashMap<String, &Room> = rooms
        .map(|room| (names.history(partition.number, room), room))
        .collect();
    if by_subject.is_empty() || after == 0 {
        return Ok(HashMap::new());
    }
    let subjects: Vec<String> = by_subject.keys().cloned().collect();
    let heads = shared.server.heads_up_to(&partition.stream, &subjects, after).await?;
    let known = heads
        .into_iter()
        .filter_map(|head| Some((Room::clone(by_subject.get(&head.subject)?), head.seq)));
    Ok(known.collect())
}

/// Reports whether the leader still has an event of the room at or before a position.
async fn is_kept(shared: &NatsBusInner, partition: &Partition, room: &Room, after: u64) -> Result<bool, RequestFailed> {
    let subject = shared.server.nats.subjects().history(partition.number, room);
    let first = shared.server.next(&partition.stream, &subject, 1).await?;
    Ok(first.is_some_and(|(first, _)| first <= after))
}
