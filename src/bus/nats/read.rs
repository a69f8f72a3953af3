//! Reads what was: from the ring of a room with members here when it reaches back far enough, else from the stream.
//!
//! What is answered is exactly what a room keeps by its limits. That nothing is missing between a position and the first
//! event read after it has to be proven: the event at the position is still there; or the stream still holds everything
//! since, and the room has not had more events than the stream keeps of it.

use std::sync::Arc;
use std::time::Duration;

use super::gate::Gate;
use super::live::LiveRoom;
use super::partition::{Partition, lock};
use super::proof::{Evidence, reaches_back};
use super::ring::{Ring, Since};
use super::server::{Silence, StreamState};
use super::shared::Shared;
use crate::bus::{BusUnavailable, HistoryStats, Page, ReadBounds, Recovery};
use crate::event::Event;
use crate::position::{Link, Offset, Position};
use crate::room::Room;

/// How often a replica is asked again that has not yet what the leader has.
const ATTEMPTS_MAX: u32 = 6;

const PAUSE: Duration = Duration::from_millis(10);

/// What was read of a room, shared by all who asked the same.
pub(super) type ColdRead = Result<Arc<Read>, Silence>;

/// What was read of a room.
#[derive(Debug)]
pub(super) struct Read {
    /// Everything after this is in it.
    floor: Offset,
    /// What was at or before this cannot be read any more.
    lost: Offset,
    /// Whether what was asked for could be proven to be whole.
    proven: bool,
    events: Vec<Arc<Event>>,
    head: Position,
}

/// Where a room stands, by its leader.
#[derive(Debug, Clone)]
pub(super) struct Stand {
    /// Its newest event, or what all its later events come after.
    pub head: Position,
    /// Whether the head is an event.
    pub is_event: bool,
    /// How the stream was before.
    pub state: StreamState,
}

impl Shared {
    /// Where a room stands, by its leader.
    pub(super) async fn stand(&self, partition: &Partition, room: &Room) -> Result<Stand, Silence> {
        let state = partition.states.pass(async || self.state(partition).await).await?;
        self.head_after(partition, room, state).await
    }

    /// The same once every subscription that was made before is in effect.
    pub(super) async fn head_for_members(&self, live: &LiveRoom) -> Result<Position, Silence> {
        let partition = self.partition(live.partition);
        let state = self.state_after_barrier(partition).await?;
        Ok(self.head_after(partition, &live.room, state).await?.head)
    }

    /// How a partition's stream is once every subscription that was made before is in effect.
    pub(super) async fn state_after_barrier(&self, partition: &Partition) -> Result<StreamState, Silence> {
        let ask = async || {
            let passed = self.server.barrier(partition.number).await;
            let state = self.state(partition).await?;
            passed.map(|()| state)
        };
        partition.joins.pass(ask).await
    }

    async fn head_after(&self, partition: &Partition, room: &Room, state: StreamState) -> Result<Stand, Silence> {
        let identity = partition.identity();
        let subject = self.server.nats.subjects().history(partition.number, room);
        let head = self.server.head(&partition.stream, &subject).await?;
        // A history that began anew between the two questions has neither the old one's last sequence nor its epoch.
        if identity.created != state.created || identity != partition.identity() {
            return Err(Silence::Away);
        }
        let epoch = identity.epoch;
        let is_event = head.is_some();
        let offset = Offset(head.map_or(state.last, |stored| stored.seq));
        partition.has(offset.0);
        Ok(Stand {
            head: Position { epoch, offset },
            is_event,
            state,
        })
    }

    /// See [`crate::bus::Bus::recover`].
    pub(super) async fn recover(
        &self,
        room: &Room,
        since: Position,
        bounds: ReadBounds,
    ) -> Result<Recovery, BusUnavailable> {
        let partition = self.partition_of(room);
        if since.epoch != partition.epoch() {
            return Ok(Recovery::Lost);
        }
        let answer = |since: Since| match since {
            Since::Exact(events) => Recovery::Exact(events),
            Since::Lost | Since::Beyond => Recovery::Lost,
        };
        if let Some(live) = partition.room(room)
            && let Some(here) = self.recover_here(&live, since, bounds).await?
        {
            return Ok(answer(here));
        }
        let read = self.read(partition, room, Some(since.offset)).await?;
        if since.epoch != read.head.epoch || !read.proven {
            return Ok(Recovery::Lost);
        }
        let ring = self.ring(room, &read);
        Ok(answer(ring.since(since.offset, bounds)))
    }

    /// From the ring of a room with members here, which is made to reach back far enough first.
    async fn recover_here(
        &self,
        live: &LiveRoom,
        since: Position,
        bounds: ReadBounds,
    ) -> Result<Option<Since>, Silence> {
        let look = || {
            let mut state = live.lock();
            let answers = state.is_current() && state.epoch == since.epoch && since.offset.0 <= state.chain.last();
            answers.then(|| {
                self.trim(&mut state);
                state.ring.since(since.offset, bounds)
            })
        };
        let Some(Since::Beyond) = look() else {
            return Ok(look());
        };
        let _turn = live.backfill.lock().await;
        let Some(Since::Beyond) = look() else {
            return Ok(look());
        };
        let partition = self.partition(live.partition);
        let read = self.read_now(partition, &live.room, Some(since.offset)).await?;
        if !read.proven {
            return Ok(Some(Since::Lost));
        }
        self.extend(live, &read);
        Ok(look().filter(|since| !matches!(since, Since::Beyond)))
    }

    fn trim(&self, state: &mut super::live::RoomState) {
        let before = state.ring.weight();
        state.ring.trim(self.now());
        self.keeping.reweigh(before, state.ring.weight());
    }

    fn extend(&self, live: &LiveRoom, read: &Read) {
        let mut state = live.lock();
        // The two must meet.
        let meets = !state.is_forgotten()
            && state.epoch == read.head.epoch
            && read
                .events
                .last()
                .map_or(read.head.offset, |last| last.offset().unwrap_or_default())
                >= state.ring.floor();
        if meets {
            let before = state.ring.weight();
            state.ring.extend_back(read.floor, read.lost, &read.events);
            state.settle_weight(before, &self.keeping);
        }
    }

    /// What a room keeps by its limits, of what was read.
    fn ring(&self, room: &Room, read: &Read) -> Ring {
        let limits = self.config.history.limits_of(room);
        let mut ring = Ring::of(limits, read.floor, read.events.clone());
        ring.trim(self.now());
        ring
    }

    /// See [`crate::bus::Bus::history`].
    pub(super) async fn history(
        &self,
        room: &Room,
        page: Page,
        bounds: ReadBounds,
    ) -> Result<Vec<Arc<Event>>, BusUnavailable> {
        self.whole(room, |ring| ring.page(page, bounds))
            .await
            .map(|(_, page)| page)
    }

    /// See [`crate::bus::Bus::stats`].
    pub(super) async fn stats_of(&self, room: &Room) -> Result<HistoryStats, BusUnavailable> {
        let (head, (events, bytes)) = self.whole(room, Ring::size).await?;
        Ok(HistoryStats { head, events, bytes })
    }

    /// Reads something of everything that a room keeps, and where the room stands.
    async fn whole<T>(&self, room: &Room, look: impl Fn(&Ring) -> T) -> Result<(Position, T), BusUnavailable> {
        let partition = self.partition_of(room);
        let live = partition.room(room);
        if let Some(live) = &live {
            let mut state = live.lock();
            self.trim(&mut state);
            if state.is_current() && state.ring.is_whole() {
                return Ok((state.position(state.chain.last()), look(&state.ring)));
            }
        }
        let read = self.read(partition, room, None).await?;
        if let Some(live) = &live {
            self.extend(live, &read);
        }
        Ok((read.head, look(&self.ring(room, &read))))
    }

    /// Reads a room from a position on, or all of it. Who asks the same at the same time shares the answer.
    async fn read(&self, partition: &Partition, room: &Room, since: Option<Offset>) -> ColdRead {
        let key = (room.clone(), since.map(|since| since.0));
        let gate = Arc::clone(lock(&self.cold).entry(key.clone()).or_default());
        let read = gate.pass(async || self.read_now(partition, room, since).await).await;
        let mut cold = lock(&self.cold);
        // The map and this call: nobody else waits.
        if cold.get(&key).is_some_and(|known| Arc::ptr_eq(known, &gate)) && Arc::<Gate<_>>::strong_count(&gate) <= 2 {
            cold.remove(&key);
        }
        read
    }

    async fn read_now(&self, partition: &Partition, room: &Room, since: Option<Offset>) -> ColdRead {
        let stand = self.stand(partition, room).await?;
        if let Some(since) = since
            && let Some(read) = without_a_run(since, &stand)
        {
            return Ok(Arc::new(read));
        }
        let from = since.map_or(1, |since| since.0.max(1));
        let max = self.retained_max().saturating_add(1);
        let mut run = Vec::new();
        for attempt in 0..ATTEMPTS_MAX {
            run = self.server.run(partition.number, room, from, max).await?;
            let reached = run.last().map_or(0, |(seq, _)| *seq);
            if !stand.is_event || reached >= stand.head.offset.0 || run.len() >= max {
                break;
            }
            tokio::time::sleep(PAUSE * attempt).await;
        }
        Ok(Arc::new(self.judge(since, &stand, run)))
    }

    /// Whether what was read is everything after a position, and how the events are linked.
    fn judge(&self, since: Option<Offset>, stand: &Stand, run: Vec<(u64, Event)>) -> Read {
        let (head, state) = (stand.head, &stand.state);
        let asked = since.unwrap_or(Offset::ZERO);
        let inclusive = run.first().is_some_and(|(seq, _)| since == Some(Offset(*seq)));
        let run: Vec<_> = run.into_iter().filter(|(seq, _)| *seq > asked.0).collect();
        let evidence = Evidence {
            inclusive,
            events: run.len(),
            retained_max: self.retained_max(),
            nothing_dropped: reaches_back(state.first, asked.0),
        };
        let proven = evidence.is_whole();
        let floor = if proven {
            asked
        } else {
            // What was before the oldest is not known.
            Offset(run.first().map_or(head.offset.0, |(seq, _)| seq - 1))
        };
        let mut prev = if since.is_some() { asked } else { Offset::ZERO };
        let link = |(seq, mut event): (u64, Event)| {
            let position = Position {
                offset: Offset(seq),
                ..head
            };
            event.link = Some(Link { position, prev });
            prev = position.offset;
            Arc::new(event)
        };
        Read {
            lost: if since.is_none() { floor } else { Offset::ZERO },
            floor,
            proven,
            events: run.into_iter().map(link).collect(),
            head,
        }
    }
}

/// What the room's head alone tells of what came after a position.
fn without_a_run(since: Offset, stand: &Stand) -> Option<Read> {
    let Stand {
        head,
        is_event,
        ref state,
    } = *stand;
    let read = |proven| Read {
        floor: since,
        lost: Offset::ZERO,
        proven,
        events: Vec::new(),
        head,
    };
    if since.0 > state.last.max(head.offset.0) {
        return Some(read(false));
    }
    // Older events go before newer ones: had there been any after the position, the head would be one.
    (since == head.offset || (is_event && since > head.offset)).then(|| read(true))
}
