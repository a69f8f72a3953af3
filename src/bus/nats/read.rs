//! Reads histories: from the ring of a room with members here when it reaches back far enough, else from the stream.
//!
//! A read returns exactly what a room keeps by its limits. That nothing is missing between a position and the first
//! event after it must be proven from the stream ([`super::proof`]), because the limits may have been others before. A
//! ring holds its events without a gap, but does not know of events that an operator has erased. So before it returns
//! any, and at most once a sweep, the leader is asked whether the stream still has the oldest.

mod cold;

use std::sync::Arc;

use super::live::LiveRoom;
use super::partition::Partition;
use super::proof::Run;
use super::ring::{Reach, Ring};
use super::server::Keep;
use super::shared::NatsBusInner;
use super::stand::ReportedHead;
use crate::bus::{BusUnavailable, HistoryPage, HistoryStats, Page, ReadBounds, Recovery};
use crate::event::Event;
use crate::nats::request::RequestFailed;
use crate::position::{ChainLink, Offset, Position};
use crate::room::Room;
pub(super) use cold::ColdReads;

/// A read of a room from the stream, shared by concurrent callers with the same request.
pub(super) type ColdRead = Result<Arc<Read>, RequestFailed>;

/// The result of a read.
#[derive(Debug)]
pub(super) struct Read {
    /// Everything after this offset is in it.
    floor: Offset,
    /// Events at or before this offset cannot be read any more.
    lost: Offset,
    /// The requested range was proven complete.
    proven: bool,
    events: Vec<Arc<Event>>,
    head: Position,
}

/// The answer of a room's ring to a read from a position.
enum Seen<T> {
    /// Everything after the position, with the room's head.
    Here(Position, T),
    /// Some of it is lost.
    Lost,
    /// The rest has to be read from the stream.
    Beyond(Position),
    /// The ring cannot serve the read: it lags, or the position is not in its past.
    Nothing,
}

impl NatsBusInner {
    /// Implements [`crate::bus::Bus::recover`].
    pub(super) async fn recover(
        &self,
        room: &Room,
        since: Position,
        bounds: ReadBounds,
    ) -> Result<Recovery, BusUnavailable> {
        if since.epoch != self.partitions.of(room).epoch() {
            return Ok(Recovery::Lost);
        }
        let look = |ring: &Ring| ring.since(since.offset, bounds);
        Ok(match self.reach(room, since.offset, look).await? {
            Some((head, Some(missed))) if head.epoch == since.epoch => Recovery::Exact(missed),
            _ => Recovery::Lost,
        })
    }

    /// Applies `look` to a ring that holds everything after a position, and returns the room's head with it. Returns
    /// `None` when it is not proven that everything is still there.
    async fn reach<T>(
        &self,
        room: &Room,
        since: Offset,
        look: impl Fn(&Ring) -> T,
    ) -> Result<Option<(Position, T)>, RequestFailed> {
        let partition = self.partitions.of(room);
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

    /// Does the same with the ring of a room with members here, which is first extended far enough back.
    async fn reach_here<T>(
        &self,
        live: &LiveRoom,
        since: Offset,
        look: impl Fn(&Ring) -> T,
    ) -> Result<Seen<T>, RequestFailed> {
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
        // Single-flight: a caller that waited finds the ring extended.
        let _turn = live.backfill.lock().await;
        let seen = see();
        let Seen::Beyond(head) = seen else {
            return Ok(seen);
        };
        let partition = self.partitions.at(live.partition);
        let read = self.read_now(partition, &live.room, Some(since), Some(head)).await?;
        if !read.proven {
            return Ok(Seen::Lost);
        }
        self.extend(live, &read);
        Ok(see())
    }

    /// Drops those events of a room's ring that the stream no longer holds, if some after `since` are to be returned.
    /// Asks the leader at most once a sweep. Without an answer the events stay, for as long as the node's lease permits
    /// reads at all.
    async fn give_up_erased(&self, live: &LiveRoom, since: Offset) {
        let partition = self.partitions.at(live.partition);
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
                // Later events were not part of the request.
                let first = first.map_or(newest.0 + 1, |(seq, _)| seq);
                state.ring.lose_before(Offset(first));
                self.budget.reweigh(before, state.ring.weight());
            }
            Ok(_) => {}
            Err(failed) => tracing::debug!(
                error = &failed as &dyn std::error::Error,
                "history check against the stream failed"
            ),
        }
    }

    fn trim(&self, state: &mut super::live::RoomState) {
        let before = state.ring.weight();
        state.ring.trim(self.now());
        self.budget.reweigh(before, state.ring.weight());
    }

    fn extend(&self, live: &LiveRoom, read: &Read) {
        let mut state = live.lock();
        // The read and the ring must overlap or adjoin.
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
            self.budget.settle(before, &mut state.ring);
        }
    }

    /// Builds a ring of what the room keeps by its limits, from a read.
    fn ring(&self, room: &Room, read: &Read) -> Ring {
        let limits = self.config.history.limits_of(room);
        let mut ring = Ring::of(limits, read.floor, read.events.clone());
        ring.trim(self.now());
        ring
    }

    /// Implements [`crate::bus::Bus::history`].
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

    /// Implements [`crate::bus::Bus::stats`].
    pub(super) async fn stats_of(&self, room: &Room) -> Result<HistoryStats, BusUnavailable> {
        let (head, (events, bytes)) = self.whole(room, Ring::size).await?;
        Ok(HistoryStats { head, events, bytes })
    }

    /// Applies `look` to everything that a room keeps, and returns the room's head with it.
    async fn whole<T>(&self, room: &Room, look: impl Fn(&Ring) -> T) -> Result<(Position, T), BusUnavailable> {
        let partition = self.partitions.of(room);
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

    /// Reads a room from a position on, or all of it. Concurrent callers with the same request share one read
    /// (single-flight).
    async fn read(&self, partition: &Partition, room: &Room, since: Option<Offset>) -> ColdRead {
        let read = async || self.read_now(partition, room, since, None).await;
        self.cold.share(room, since, read).await
    }

    /// Reads from the stream. `head` is the room's head as far as this node knows it; without it the leader is asked.
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

    /// Reports whether a run is proven to be everything after a position.
    async fn is_whole(&self, partition: &Partition, since: Offset, run: &Run<Event>) -> Result<bool, RequestFailed> {
        let whole = run.has(since.0) || (!run.cut && self.is_unbroken(partition, since.0, run.first).await?);
        Ok(whole)
    }
}

/// Builds the result of a read: the events after a position, linked into a chain.
fn judge(since: Option<Offset>, stand: &ReportedHead, run: Run<Event>, proven: bool) -> Read {
    let head = stand.head;
    let asked = since.unwrap_or_default();
    let run = run.events.into_iter().filter(|(seq, _)| *seq > asked.0);
    let run: Vec<_> = run.collect();
    let floor = if proven {
        asked
    } else {
        // Nothing is known of what was before the oldest event.
        Offset(run.first().map_or(head.offset.0, |(seq, _)| seq - 1))
    };
    let mut prev = floor;
    let link = |(seq, mut event): (u64, Event)| {
        let position = Position {
            offset: Offset(seq),
            ..head
        };
        event.link = Some(ChainLink { position, prev });
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

/// Answers a read by the room's head alone, where that suffices.
fn without_a_run(since: Offset, stand: &ReportedHead) -> Option<Read> {
    let ReportedHead {
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
    // A stream removes older events before newer ones: any event after the position would still be the head.
    (since == head.offset || (is_event && since > head.offset)).then(|| read(true))
}
