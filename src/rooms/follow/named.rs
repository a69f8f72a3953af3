//! Followers of named rooms: a subscription and a position for each.
//!
//! A room is *live* once it is subscribed and everything from its position on was recovered. Until then the queue's events
//! of it are dropped: the recovery finds them in the history. An event that does not follow its room's position makes the
//! room wait for a recovery again.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::tail::{Item, Tail};
use super::{FollowBounds, Resync, Step, TooSlow};
use crate::bus::parts::Place;
use crate::bus::{Bus, BusUnavailable, ReadBounds, Recovery};
use crate::event::Event;
use crate::position::Position;
use crate::room::Room;

/// The number of rooms that are subscribed and recovered concurrently. Each may hold a whole history.
const AT_ONCE: usize = 16;

/// The pause after the bus was not available.
const RETRY: Duration = Duration::from_millis(250);

/// A room's history bounds its recovery: what is kept is delivered, however much it is.
const EVERYTHING: ReadBounds = ReadBounds {
    events_max: usize::MAX,
    bytes_max: usize::MAX,
};

/// One of the rooms.
#[derive(Debug)]
struct Followed {
    room: Room,
    position: Position,
    is_live: bool,
}

/// The recovered part of a room, on its way to the reader.
#[derive(Debug)]
struct Backlog {
    room: usize,
    /// The room begins anew here.
    lost: Option<Position>,
    events: vec::IntoIter<Arc<Event>>,
}

/// Ends the subscriptions of a follower when it is dropped.
struct Subscribed {
    bus: Arc<dyn Bus>,
    tail: Tail,
    rooms: Vec<Room>,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        for room in &self.rooms {
            self.bus.unsubscribe(room, self.tail.id());
        }
    }
}

/// A follower of named rooms.
pub(super) struct NamedRooms {
    subscribed: Subscribed,
    rooms: Vec<Followed>,
    index: HashMap<Room, usize>,
    /// Rooms that are not live.
    waiting: VecDeque<usize>,
    /// The last step began with a recovery.
    recovered_last: bool,
    backlog: VecDeque<Backlog>,
    taken: VecDeque<Item>,
    bounds: FollowBounds,
}

impl NamedRooms {
    /// Subscribes to every room, and begins at its head.
    pub(super) async fn from_now(
        bus: Arc<dyn Bus>,
        tail: Tail,
        rooms: Vec<Room>,
        bounds: FollowBounds,
    ) -> Result<Self, BusUnavailable> {
        let subscribed = Subscribed { bus, tail, rooms };
        let subscribe = |room| subscribed.bus.subscribe(room, subscribed.tail.subscriber());
        // Made first: a closure inside of the stream would have to be good for every lifetime.
        let heads: Vec<_> = subscribed.rooms.iter().map(subscribe).collect();
        let heads: Vec<Position> = stream::iter(heads).buffered(AT_ONCE).try_collect().await?;
        Ok(Self::new(subscribed, &heads, true, bounds))
    }

    /// Begins at these positions. Rooms are subscribed as the reader proceeds.
    pub(super) fn from_positions(
        bus: Arc<dyn Bus>,
        tail: Tail,
        rooms: Vec<Room>,
        since: &[Place],
        bounds: FollowBounds,
    ) -> Self {
        let since: Vec<Position> = since.iter().map(|place| place.position).collect();
        Self::new(Subscribed { bus, tail, rooms }, &since, false, bounds)
    }

    fn new(subscribed: Subscribed, positions: &[Position], is_live: bool, bounds: FollowBounds) -> Self {
        let count = subscribed.rooms.len();
        assert_eq!(count, positions.len(), "there is a position for each room");
        let rooms = subscribed.rooms.iter().zip(positions);
        let rooms = rooms.map(|(room, position)| Followed {
            room: room.clone(),
            position: *position,
            is_live,
        });
        Self {
            rooms: rooms.collect(),
            index: subscribed.rooms.iter().cloned().zip(0..).collect(),
            waiting: if is_live { VecDeque::new() } else { (0..count).collect() },
            recovered_last: false,
            backlog: VecDeque::new(),
            taken: VecDeque::new(),
            subscribed,
            bounds,
        }
    }

    /// Waits for the next step.
    pub(super) async fn next(&mut self) -> Result<Step, TooSlow> {
        let until = Instant::now() + self.bounds.idle_max;
        // By turns: rooms that are never quiet must not keep others from their recovery, nor the other way round.
        let mut recover_now = !std::mem::replace(&mut self.recovered_last, false);
        loop {
            if recover_now && !self.waiting.is_empty() && self.backlog.is_empty() && self.taken.is_empty() {
                self.recovered_last = true;
                if let Err(error) = self.recover().await {
                    tracing::debug!(%error, "subscription recovery failed");
                    self.subscribed.tail.wait(until.min(Instant::now() + RETRY)).await;
                }
            }
            let mut step = Step::default();
            self.fill(&mut step)?;
            if !step.is_empty() || Instant::now() >= until {
                return Ok(step);
            }
            if self.waiting.is_empty() {
                self.subscribed.tail.wait(until).await;
            }
            recover_now = true;
        }
    }

    pub(super) async fn overflowed(&self) {
        self.subscribed.tail.overflowed().await;
    }

    pub(super) fn places(&self) -> impl ExactSizeIterator<Item = Place> {
        self.rooms.iter().map(|followed| Place::at(followed.position))
    }

    /// Moves what is at hand into a step: the backlog first, which precedes everything in the queue.
    fn fill(&mut self, step: &mut Step) -> Result<(), TooSlow> {
        while !step.is_full(self.bounds.step) {
            if !self.backlog.is_empty() {
                if !self.fill_from_backlog(step) {
                    break;
                }
                continue;
            }
            if self.taken.is_empty() {
                self.taken = self.subscribed.tail.take(self.bounds.step.events_max)?;
            }
            let Some(item) = self.taken.pop_front() else { break };
            if let Some(item) = self.judge(item, step) {
                self.taken.push_front(item);
                break;
            }
        }
        Ok(())
    }

    /// Moves the next event of the backlog; `false` when it has to wait for the next step.
    fn fill_from_backlog(&mut self, step: &mut Step) -> bool {
        let Some(backlog) = self.backlog.front_mut() else {
            return true;
        };
        let followed = &mut self.rooms[backlog.room];
        if let Some(head) = backlog.lost {
            if !step.takes_resync_of(&followed.room) {
                return false;
            }
            backlog.lost = None;
            followed.resync(head, step);
        }
        match backlog.events.next() {
            Some(event) => followed.deliver(event, step),
            None => drop(self.backlog.pop_front()),
        }
        true
    }

    /// Moves an item of the queue, or returns it if it has to wait for the next step.
    fn judge(&mut self, item: Item, step: &mut Step) -> Option<Item> {
        let room = match &item {
            Item::Event(event) | Item::OfPart(_, event) => &event.room,
            Item::Reset(room, _) => room,
            Item::Detached(_) => return None,
        };
        let number = *self.index.get(room)?;
        let followed = &mut self.rooms[number];
        match item {
            // The recovery reports more of it.
            _ if !followed.is_live => None,
            Item::Reset(_, head) if followed.is_at_or_after(head) => None,
            Item::Reset(_, head) if step.takes_resync_of(&followed.room) => {
                followed.resync(head, step);
                None
            }
            Item::Reset(..) => Some(item),
            Item::Detached(_) => None,
            Item::Event(event) | Item::OfPart(_, event) => {
                match event.link {
                    None => step.push(event),
                    Some(link) if followed.is_at_or_after(link.position) => {}
                    Some(link) => {
                        let follows =
                            link.position.epoch == followed.position.epoch && link.prev <= followed.position.offset;
                        if follows {
                            followed.deliver(event, step);
                        } else {
                            // The history decides whether something was missed.
                            followed.is_live = false;
                            self.waiting.push_back(number);
                        }
                    }
                }
                None
            }
        }
    }

    /// Subscribes to the next rooms that are not live, and recovers them from their positions.
    ///
    /// # Cancel safety
    /// A dropped future has changed nothing but subscriptions; the rooms still wait.
    async fn recover(&mut self) -> Result<(), BusUnavailable> {
        let numbers: Vec<usize> = self.waiting.iter().take(AT_ONCE).copied().collect();
        let subscribed = &self.subscribed;
        let reads = numbers.iter().map(|number| {
            let Followed { room, position, .. } = &self.rooms[*number];
            read(subscribed, room, *position)
        });
        let reads = stream::iter(reads.collect::<Vec<_>>()).buffered(AT_ONCE);
        let read: Vec<(Option<Position>, Vec<Arc<Event>>)> = reads.try_collect().await?;
        self.waiting.drain(..numbers.len());
        for (room, (lost, events)) in numbers.into_iter().zip(read) {
            self.rooms[room].is_live = true;
            self.backlog.push_back(Backlog {
                room,
                lost,
                events: events.into_iter(),
            });
        }
        Ok(())
    }
}

/// Subscribes to a room, then reads what follows a position; or else the room's head, where it begins anew.
async fn read(
    subscribed: &Subscribed,
    room: &Room,
    since: Position,
) -> Result<(Option<Position>, Vec<Arc<Event>>), BusUnavailable> {
    let bus = &subscribed.bus;
    // The subscription goes before the read: an event between the two would be in neither.
    bus.subscribe(room, subscribed.tail.subscriber()).await?;
    match bus.recover(room, since, EVERYTHING).await? {
        Recovery::Exact(events) => Ok((None, events)),
        Recovery::Lost => Ok((Some(bus.head(room).await?), Vec::new())),
    }
}

impl Followed {
    fn is_at_or_after(&self, position: Position) -> bool {
        position.epoch == self.position.epoch && position.offset <= self.position.offset
    }

    fn deliver(&mut self, event: Arc<Event>, step: &mut Step) {
        if let Some(link) = event.link {
            self.position = link.position;
        }
        step.push(event);
    }

    fn resync(&mut self, head: Position, step: &mut Step) {
        self.position = head;
        step.resyncs.push(Resync {
            room: self.room.clone(),
            head,
        });
    }
}

impl fmt::Debug for NamedRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedRooms")
            .field("rooms", &self.rooms.len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}
