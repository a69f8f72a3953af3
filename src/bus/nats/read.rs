//! Reads what was: from the ring of a room with members here when it reaches back far enough, else from the stream.
//!
//! What is answered is exactly what a room keeps by its limits. That nothing is missing between a position and the first
//! event read after it has to be proven from the stream ([`super::proof`]); the limits say nothing of what they were
//! before. A ring knows its events without a gap, but not that an operator has erased some of them: before any is handed
//! out, and once a sweep at most, the leader is asked whether the stream still has the oldest.

use std::sync::Arc;

use super::gate::Gate;
use super::live::LiveRoom;
use super::partition::{Partition, lock};
use super::proof::Run;
use super::ring::{Reach, Ring};
use super::server::{Keep, Silence};
use super::shared::Shared;
use super::stand::Stand;
use crate::bus::{BusUnavailable, HistoryPage, HistoryStats, Page, ReadBounds, Recovery};
use crate::event::Event;
use crate::position::{Link, Offset, Position};
use crate::room::Room;

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

/// What the ring of a room with members here says of the time since a position.
enum Seen<T> {
    /// Everything is in it; and where the room stands.
    Here(Position, T),
    /// Some of it is lost.
    Lost,
    /// More has to be read from the stream.
    Beyond(Position),
    /// It cannot answer: it is behind, or the position is not one of its past.
    Nothing,
}

impl Shared {
    /// See [`crate::bus::Bus::recover`].
    pub(super) async fn recover(
        &self,
        room: &Room,
        since: Position,
        bounds: ReadBounds,
    ) -> Result<Recovery, BusUnavailable> {
        if since.epoch != self.partition_of(room).epoch() {
            return Ok(Recovery::Lost);
        }
        let look = |ring: &Ring| ring.since(since.offset, bounds);
        Ok(match self.reach(room, since.offset, look).await? {
            Some((head, Some(missed))) if head.epoch == since.epoch => Recovery::Exact(missed),
            _ => Recovery::Lost,
        })
    }

    /// Looks at a ring that holds everything after a position, and says where the room stands; `None` when it is not
    /// proven that everything is still there.
    async fn reach<T>(
        &self,
        room: &Room,
        since: Offset,
        look: impl Fn(&Ring) -> T,
    ) -> Result<Option<(Position, T)>, Silence> {
        let partition = self.partition_of(room);
        if let Some(live) = partition.room(room) {
            match self.reach_here(&live, since, &look).await? {
                Seen::Here(head, found) => return Ok(Some((head, found))),
                Seen::Lost => return Ok(None),
                Seen::Beyond(_) | Seen::Nothing => {}
            }
        }
        let read = self.read(partition, room, Some(since)).await?;
        if !read.proven {
            return Ok(None);
        }
        let ring = self.ring(room, &read);
        Ok((ring.reach(since) == Reach::Here).then(|| (read.head, look(&ring))))
    }

    /// The same with the ring of a room with members here, which is made to reach back far enough first.
    async fn reach_here<T>(
        &self,
        live: &LiveRoom,
        since: Offset,
        look: impl Fn(&Ring) -> T,
    ) -> Result<Seen<T>, Silence> {
        self.give_up_erased(live, since).await;
        let see = || {
            let mut state = live.lock();
            let last = state.chain.last();
            if !state.is_current() || since.0 > last {
                return Seen::Nothing;
            }
            self.trim(&mut state);
            let head = state.position(last);
            match state.ring.reach(since) {
                Reach::Here => Seen::Here(head, look(&state.ring)),
                Reach::Lost => Seen::Lost,
                Reach::Beyond => Seen::Beyond(head),
            }
        };
        let seen = see();
        if !matches!(seen, Seen::Beyond(_)) {
            return Ok(seen);
        }
        let _turn = live.backfill.lock().await;
        let seen = see();
        let Seen::Beyond(head) = seen else {
            return Ok(seen);
        };
        let partition = self.partition(live.partition);
        let read = self.read_now(partition, &live.room, Some(since), Some(head)).await?;
        if !read.proven {
            return Ok(Seen::Lost);
        }
        self.extend(live, &read);
        Ok(see())
    }

    /// Gives up those events of a room's ring that the stream does not hold any more, if some after `since` are to be
    /// handed out. Asked once a sweep at most; without an answer they stay, for as long as the node's lease lets it
    /// answer at all.
    async fn give_up_erased(&self, live: &LiveRoom, since: Offset) {
        let partition = self.partition(live.partition);
        let sweep = partition.sweeps();
        let due = || {
            let state = live.lock();
            let (oldest, newest) = state.ring.ends()?;
            (state.compared != sweep && newest > since).then_some((state.epoch, oldest, newest))
        };
        if due().is_none() || !self.server.nats.control().is_connected() {
            return;
        }
        let _turn = live.backfill.lock().await;
        let Some((epoch, oldest, newest)) = due() else { return };
        let subject = self.server.nats.subjects().history(live.partition, &live.room);
        let first = self.server.next(&partition.stream, &subject, oldest.0).await;
        let mut state = live.lock();
        state.compared = sweep;
        match first {
            Ok(first) if state.epoch == epoch => {
                let before = state.ring.weight();
                // What came meanwhile was not asked for.
                let first = first.map_or(newest.0 + 1, |(seq, _)| seq);
                state.ring.lose_before(Offset(first));
                self.keeping.reweigh(before, state.ring.weight());
            }
            Ok(_) => {}
            Err(silence) => tracing::debug!(%silence, "history check against the stream failed"),
        }
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
    ) -> Result<HistoryPage, BusUnavailable> {
        let look = |ring: &Ring| ring.page(page, bounds);
        if let Page::After(offset) = page
            && let Some((_, cut)) = self.reach(room, offset, look).await?
        {
            return Ok(cut);
        }
        let (_, cut) = self.whole(room, look).await?;
        let complete = false;
        Ok(HistoryPage { complete, ..cut })
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
            self.give_up_erased(live, Offset::ZERO).await;
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
        let read = gate.pass(async || self.read_now(partition, room, since, None).await);
        let read = read.await;
        let mut cold = lock(&self.cold);
        // The map and this call: nobody else waits.
        if cold.get(&key).is_some_and(|known| Arc::ptr_eq(known, &gate)) && Arc::<Gate<_>>::strong_count(&gate) <= 2 {
            cold.remove(&key);
        }
        read
    }

    /// `head` is where the room stands, as far as this node knows; otherwise the leader is asked.
    async fn read_now(
        &self,
        partition: &Partition,
        room: &Room,
        since: Option<Offset>,
        head: Option<Position>,
    ) -> ColdRead {
        let stand = match head {
            Some(head) => self.stand_at(partition, head).await?,
            None => self.stand(partition, room).await?,
        };
        if let Some(since) = since
            && let Some(read) = without_a_run(since, &stand)
        {
            return Ok(Arc::new(read));
        }
        let asked = since.unwrap_or_default();
        let want = if stand.is_event { stand.head.offset.0 } else { 0 };
        let max = self.retained_max().saturating_add(1);
        let run = self.run(partition, room, asked.0, want, Keep::Newest { max }).await?;
        let proven = self.is_whole(partition, asked, &run).await?;
        Ok(Arc::new(judge(since, &stand, run, proven)))
    }

    /// Whether a run is everything that came after a position.
    async fn is_whole(&self, partition: &Partition, since: Offset, run: &Run<Event>) -> Result<bool, Silence> {
        let whole = run.has(since.0) || (!run.cut && self.is_unbroken(partition, since.0, run.first).await?);
        Ok(whole)
    }
}

/// What was read after a position, and how its events are linked.
fn judge(since: Option<Offset>, stand: &Stand, run: Run<Event>, proven: bool) -> Read {
    let head = stand.head;
    let asked = since.unwrap_or_default();
    let run = run.events.into_iter().filter(|(seq, _)| *seq > asked.0);
    let run: Vec<_> = run.collect();
    let floor = if proven {
        asked
    } else {
        // What was before the oldest is not known.
        Offset(run.first().map_or(head.offset.0, |(seq, _)| seq - 1))
    };
    let mut prev = floor;
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
