//! The bounded queue between the bus and one follower.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::TooSlow;
use super::ids::{SubscriberId, SubscriberIds};
use crate::bus::parts::{Follower, RoomSet};
use crate::bus::{BusUnavailable, Delivery, ReadBounds, Subscriber};
use crate::event::Event;
use crate::position::Position;
use crate::room::Room;
use crate::sync::lock;

/// The estimated cost of a waiting event beside its payload.
const EVENT_BYTES: usize = 256;

/// An entry of the queue.
#[derive(Debug)]
pub(super) enum Item {
    /// The next event of a room.
    Event(Arc<Event>),
    /// The continuity of a room is lost: it goes on at a head.
    Reset(Room, Position),
    /// The next event of a part.
    OfPart(u16, Arc<Event>),
    /// The continuity of a part is not known any more.
    Detached(u16),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(event) | Self::OfPart(_, event) => EVENT_BYTES + event.payload.bytes_len(),
            Self::Reset(..) | Self::Detached(_) => EVENT_BYTES,
        }
    }
}

/// The reader's end. The bus keeps the other end for as long as a subscription lasts.
pub(in crate::rooms) struct Tail {
    id: SubscriberId,
    queue: Arc<Queue>,
}

struct Queue {
    subscriber_id: u16,
    bounds: ReadBounds,
    waiting: Mutex<Waiting>,
    grown: Notify,
    overflow: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    overflowed: bool,
}

impl Tail {
    /// Opens an empty queue with a number of its own.
    ///
    /// # Errors
    /// [`BusUnavailable`] when there is no number left.
    pub(in crate::rooms) fn open(ids: &Arc<SubscriberIds>, bounds: ReadBounds) -> Result<Self, BusUnavailable> {
        let id = ids.take().ok_or(BusUnavailable("too many subscriptions"))?;
        let queue = Queue {
            subscriber_id: id.number(),
            bounds,
            waiting: Mutex::default(),
            grown: Notify::new(),
            overflow: CancellationToken::new(),
        };
        Ok(Self {
            id,
            queue: Arc::new(queue),
        })
    }

    pub(super) const fn id(&self) -> u16 {
        self.id.number()
    }

    /// Returns the bus's end.
    pub(super) fn subscriber(&self) -> Arc<dyn Subscriber> {
        Arc::clone(&self.queue) as Arc<dyn Subscriber>
    }

    /// Returns the bus's end for the rooms of a set.
    pub(super) fn follower(&self, rooms: RoomSet) -> Arc<dyn Follower> {
        let queue = Arc::clone(&self.queue);
        Arc::new(PartQueue { queue, rooms })
    }

    /// Takes at most so many of the oldest items.
    ///
    /// # Errors
    /// [`TooSlow`] once the queue was full.
    pub(super) fn take(&self, items_max: usize) -> Result<VecDeque<Item>, TooSlow> {
        let mut waiting = lock(&self.queue.waiting);
        if waiting.overflowed {
            return Err(TooSlow);
        }
        let count = waiting.items.len().min(items_max.max(1));
        let rest = waiting.items.split_off(count);
        let taken = std::mem::replace(&mut waiting.items, rest);
        waiting.bytes -= taken.iter().map(Item::bytes).sum::<usize>();
        if waiting.items.is_empty() {
            // A burst must not leave its memory behind.
            waiting.items = VecDeque::new();
        }
        Ok(taken)
    }

    /// Waits until the queue was full.
    pub(super) async fn overflowed(&self) {
        self.queue.overflow.cancelled().await;
    }

    /// Waits until something was added since the last wait, at most until then.
    pub(super) async fn wait(&self, until: Instant) {
        // An elapsed deadline is no failure: the caller looks at its clock.
        let _ = timeout_at(until, self.queue.grown.notified()).await;
    }
}

impl Queue {
    fn push(&self, item: Item) {
        let mut waiting = lock(&self.waiting);
        if waiting.overflowed {
            return;
        }
        let bytes = waiting.bytes + item.bytes();
        // One event always fits, whatever its size.
        let fits = waiting.items.len() < self.bounds.events_max && bytes <= self.bounds.bytes_max;
        if fits || waiting.items.is_empty() {
            waiting.bytes = bytes;
            waiting.items.push_back(item);
        } else {
            // The reader goes on from its positions, so nothing of the queue is needed any more.
            *waiting = Waiting {
                overflowed: true,
                ..Waiting::default()
            };
            self.overflow.cancel();
        }
        drop(waiting);
        self.grown.notify_one();
    }
}

impl Subscriber for Queue {
    fn id(&self) -> u16 {
        self.subscriber_id
    }

    // Keeps the event and releases the delivery: a slow reader must hold no permit that publishers wait for.
    fn deliver(&self, delivery: Arc<Delivery>) {
        self.push(Item::Event(Arc::clone(&delivery.event)));
    }

    fn reset(&self, room: Room, head: Position) {
        self.push(Item::Reset(room, head));
    }
}

/// The bus's end of a follower by pattern.
struct PartQueue {
    queue: Arc<Queue>,
    rooms: RoomSet,
}

impl Follower for PartQueue {
    fn id(&self) -> u16 {
        self.queue.subscriber_id
    }

    fn rooms(&self) -> &RoomSet {
        &self.rooms
    }

    fn deliver(&self, part: u16, event: Arc<Event>) {
        self.queue.push(Item::OfPart(part, event));
    }

    fn detach(&self, part: u16) {
        self.queue.push(Item::Detached(part));
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("id", &self.id()).finish_non_exhaustive()
    }
}
