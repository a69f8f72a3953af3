//! Followers of all rooms of a tenant that match a pattern: a position for each part of the bus.
//!
//! A part is *attached* once everything from its position on was read. Until then, and again when the bus detaches it, it
//! is read page by page, as the reader proceeds.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use tokio::time::Instant;

use super::tail::{Item, Tail};
use super::{FollowBounds, Resync, Step, TooSlow};
use crate::bus::parts::{Follower, PartPage, Place, RoomSet};
use crate::bus::{Bus, BusUnavailable};
use crate::event::Event;
use crate::position::Position;

/// The pause after the bus was not available.
const RETRY: Duration = Duration::from_millis(250);

/// A page on its way to the reader.
#[derive(Debug)]
struct Backlog {
    part: u16,
    /// Rooms that begin anew, until they were reported.
    head: Option<(Vec<Resync>, bool)>,
    events: vec::IntoIter<Arc<Event>>,
    /// The part's place behind the page.
    through: Place,
}

#[derive(Debug)]
struct Part {
    place: Place,
    is_attached: bool,
}

/// A follower by pattern.
pub(super) struct MatchingRooms {
    bus: Arc<dyn Bus>,
    tail: Tail,
    follower: Arc<dyn Follower>,
    parts: Vec<Part>,
    /// Parts that are not attached.
    waiting: VecDeque<u16>,
    /// The last step began with a page.
    paged_last: bool,
    backlog: Option<Backlog>,
    taken: VecDeque<Item>,
    /// Rooms that cannot be named may miss events; not reported yet.
    partial: bool,
    /// The time at which positions of parts without events were last raised.
    raised: Instant,
    bounds: FollowBounds,
}

impl MatchingRooms {
    /// Follows from these positions on, or from now on. Positions of another number of parts are of another history.
    pub(super) async fn follow(
        bus: Arc<dyn Bus>,
        tail: Tail,
        rooms: RoomSet,
        since: Option<Vec<Place>>,
        bounds: FollowBounds,
    ) -> Result<Self, BusUnavailable> {
        let count = usize::from(bus.parts());
        let partial = since.as_ref().is_some_and(|since| since.len() != count);
        let mut follow = Self {
            follower: tail.follower(rooms),
            tail,
            parts: Vec::with_capacity(count),
            waiting: VecDeque::new(),
            paged_last: false,
            backlog: None,
            taken: VecDeque::new(),
            partial,
            raised: Instant::now(),
            bounds,
            bus,
        };
        match since.filter(|_| !partial) {
            Some(since) => {
                let part = |place| Part {
                    place,
                    is_attached: false,
                };
                follow.parts.extend(since.into_iter().map(part));
                follow.waiting.extend(0..follow.bus.parts());
            }
            None => {
                for part in 0..follow.bus.parts() {
                    let page = follow.bus.follow(part, None, &follow.follower).await?;
                    follow.parts.push(Part {
                        place: page.through,
                        is_attached: page.attached,
                    });
                    follow.waiting.extend((!page.attached).then_some(part));
                }
            }
        }
        Ok(follow)
    }

    /// Waits for the next step.
    pub(super) async fn next(&mut self) -> Result<Step, TooSlow> {
        let until = Instant::now() + self.bounds.idle_max;
        // By turns: parts that are never quiet must not keep others from being read, nor the other way round.
        let mut page_now = !std::mem::replace(&mut self.paged_last, false);
        loop {
            if page_now && self.backlog.is_none() && self.taken.is_empty() && !self.waiting.is_empty() {
                self.paged_last = true;
                if let Err(error) = self.page().await {
                    tracing::debug!(%error, "subscription recovery failed");
                    self.tail.wait(until.min(Instant::now() + RETRY)).await;
                }
            }
            if self.raised.elapsed() >= self.bounds.idle_max {
                self.raise()?;
            }
            let mut step = Step {
                partial: std::mem::take(&mut self.partial),
                ..Step::default()
            };
            self.fill(&mut step)?;
            let is_mere_partial = step.partial && step.resyncs.is_empty() && step.events.is_empty();
            if is_mere_partial && !self.waiting.is_empty() && Instant::now() < until {
                // Said once for all parts, before a cursor beyond it is.
                self.partial = true;
                page_now = true;
                continue;
            }
            if !step.is_empty() || Instant::now() >= until {
                return Ok(step);
            }
            if self.waiting.is_empty() {
                self.tail.wait(until).await;
            }
            page_now = true;
        }
    }

    pub(super) async fn overflowed(&self) {
        self.tail.overflowed().await;
    }

    pub(super) fn places(&self) -> impl ExactSizeIterator<Item = Place> {
        self.parts.iter().map(|part| part.place)
    }

    /// Raises the positions of parts to what was delivered of them, if the reader has all of that. Without this the
    /// position of a part whose rooms do not match would stay, and fall out of the history.
    fn raise(&mut self) -> Result<(), TooSlow> {
        // Before the queue: what is delivered meanwhile lies after these positions.
        let followed: Vec<Option<Position>> = (0..self.bus.parts())
            .map(|part| self.bus.followed(part, self.follower.id()))
            .collect();
        if self.taken.is_empty() {
            self.taken = self.tail.take(self.bounds.step.events_max)?;
        }
        if self.backlog.is_some() || !self.taken.is_empty() {
            return Ok(());
        }
        self.raised = Instant::now();
        for (part, followed) in self.parts.iter_mut().zip(followed) {
            if let Some(followed) = followed.filter(|_| part.is_attached)
                && followed.epoch == part.place.position.epoch
                && followed.offset > part.place.position.offset
            {
                part.place.position = followed;
            }
        }
        Ok(())
    }

    /// Moves what is at hand into a step: the backlog first, which precedes everything in the queue.
    fn fill(&mut self, step: &mut Step) -> Result<(), TooSlow> {
        while !step.is_full(self.bounds.step) {
            if self.backlog.is_some() {
                if !self.fill_from_backlog(step) {
                    break;
                }
                continue;
            }
            if self.taken.is_empty() {
                self.taken = self.tail.take(self.bounds.step.events_max)?;
            }
            let Some(item) = self.taken.pop_front() else { break };
            self.judge(item, step);
        }
        Ok(())
    }

    /// Moves the next event of the backlog; `false` when it has to wait for the next step.
    fn fill_from_backlog(&mut self, step: &mut Step) -> bool {
        let Some(backlog) = &mut self.backlog else { return true };
        if backlog.head.is_some() && !step.events.is_empty() {
            return false;
        }
        if let Some((resyncs, partial)) = backlog.head.take() {
            step.resyncs.extend(resyncs);
            step.partial |= partial;
        }
        let part = &mut self.parts[usize::from(backlog.part)];
        if let Some(event) = backlog.events.next() {
            part.deliver(event, step);
        } else {
            part.place = backlog.through;
            self.backlog = None;
        }
        true
    }

    /// Moves an item of the queue.
    fn judge(&mut self, item: Item, step: &mut Step) {
        match item {
            Item::OfPart(number, event) => {
                let part = &mut self.parts[usize::from(number)];
                // What was read already, or will be read.
                let is_next = event.link.is_none_or(|link| {
                    let position = part.place.position;
                    link.position.epoch == position.epoch && link.position.offset > position.offset
                });
                if part.is_attached && is_next {
                    part.deliver(event, step);
                }
            }
            Item::Detached(number) => {
                let part = &mut self.parts[usize::from(number)];
                if std::mem::replace(&mut part.is_attached, false) {
                    self.waiting.push_back(number);
                }
            }
            Item::Event(_) | Item::Reset(..) => {}
        }
    }

    /// Reads the next page of the first part that is not attached.
    ///
    /// # Cancel safety
    /// A dropped future has changed nothing but attachments; the part still waits.
    async fn page(&mut self) -> Result<(), BusUnavailable> {
        let Some(&number) = self.waiting.front() else {
            return Ok(());
        };
        let part = &mut self.parts[usize::from(number)];
        let page = self.bus.follow(number, Some(part.place), &self.follower).await?;
        let PartPage {
            events,
            through,
            restarts,
            partial,
            attached,
        } = page;
        part.is_attached = attached;
        // A cursor from the middle of the page must know of what is absent from it, too.
        part.place.gapped = through.gapped;
        let through = Place {
            gapped: through.gapped && !attached,
            ..through
        };
        if attached {
            self.waiting.pop_front();
        } else {
            // Another part's turn: one that grows as fast as it is read must not keep the others waiting.
            self.waiting.rotate_left(1);
        }
        let resyncs = restarts.into_iter().map(|(room, head)| Resync { room, head });
        self.backlog = Some(Backlog {
            part: number,
            head: Some((resyncs.collect(), partial)),
            events: events.into_iter(),
            through,
        });
        Ok(())
    }
}

impl Part {
    fn deliver(&mut self, event: Arc<Event>, step: &mut Step) {
        if let Some(link) = event.link {
            self.place.position = link.position;
        }
        step.push(event);
    }
}

impl Drop for MatchingRooms {
    fn drop(&mut self) {
        self.bus.unfollow(self.follower.id());
    }
}

impl fmt::Debug for MatchingRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MatchingRooms")
            .field("rooms", self.follower.rooms())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}
