//! A room with members on this node: its chain, what is kept of it, its subscribers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::AbortHandle;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use super::chain::{Chain, Output};
use super::partition::lock;
use super::ring::Ring;
use super::values::Values;
use crate::bus::history::HistoryLimits;
use crate::bus::{Delivery, Subscriber};
use crate::event::{Event, Retention, Timestamp};
use crate::nats::trace;
use crate::position::{Epoch, Link, Offset, Position};
use crate::room::Room;

/// An event that came.
#[derive(Debug)]
pub(super) struct Arrival {
    pub event: Event,
    /// The publisher's trace; empty for none.
    pub traceparent: String,
}

/// A room with members on this node.
pub(super) struct LiveRoom {
    pub room: Room,
    pub partition: u16,
    pub limits: Arc<HistoryLimits>,
    /// Set once the subscription is in effect and the head is known.
    pub joined: OnceCell<()>,
    /// One at a time reads what came before.
    pub backfill: tokio::sync::Mutex<()>,
    state: Mutex<RoomState>,
}

/// What changes. Everything that happens to the room happens under its lock, deliveries included.
pub(super) struct RoomState {
    pub chain: Chain<Arrival>,
    pub ring: Ring,
    pub values: Values,
    pub epoch: Epoch,
    pub subscribers: Vec<Arc<dyn Subscriber>>,
    /// Calls of `subscribe` that are under way: the room is not forgotten.
    pub joins: usize,
    /// Ends the subscription in NATS.
    pub feed: Option<AbortHandle>,
    /// Whether it is in line to be repaired.
    pub queued: bool,
    /// The newest sequence of the room that this node was answered.
    pub acked: u64,
    /// Through where sweeps have found nothing of the room that was not delivered.
    pub clear: u64,
    /// The number of the sweep at which the ring was last compared with the stream.
    pub compared: u32,
    /// Whether a live event came since the last sweep.
    pub heard: bool,
    /// Sweeps in a row that found something that had not come live.
    pub behind: u8,
    /// The chain was restarted: its members have to be told where it goes on.
    pub reset: bool,
}

impl LiveRoom {
    pub(super) fn new(room: Room, partition: u16, limits: Arc<HistoryLimits>, epoch: Epoch, held_max: usize) -> Self {
        Self {
            room,
            partition,
            joined: OnceCell::new(),
            backfill: tokio::sync::Mutex::new(()),
            state: Mutex::new(RoomState {
                chain: Chain::joining(held_max),
                ring: Ring::new(Arc::clone(&limits), Offset::ZERO),
                values: Values::default(),
                epoch,
                subscribers: Vec::new(),
                joins: 0,
                feed: None,
                queued: false,
                acked: 0,
                clear: 0,
                compared: 0,
                heard: false,
                behind: 0,
                reset: false,
            }),
            limits,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RoomState> {
        lock(&self.state)
    }
}

/// What the rooms of a node share when they take events.
#[derive(Debug)]
pub(super) struct Keeping {
    pub history_bytes_max: usize,
    pub last_value_names_max: usize,
    /// Bytes of all rings.
    pub weight: AtomicUsize,
}

impl RoomState {
    /// Adds a subscriber, or replaces the one of the same id.
    pub(super) fn attach(&mut self, subscriber: Arc<dyn Subscriber>) -> Position {
        let id = subscriber.id();
        if let Some(known) = self.subscribers.iter_mut().find(|known| known.id() == id) {
            *known = subscriber;
        } else {
            self.subscribers.reserve_exact(1);
            self.subscribers.push(subscriber);
        }
        self.position(self.chain.last())
    }

    pub(super) const fn position(&self, seq: u64) -> Position {
        Position {
            epoch: self.epoch,
            offset: Offset(seq),
        }
    }

    /// Whether nobody wants the room any more.
    pub(super) const fn is_forgotten(&self) -> bool {
        self.subscribers.is_empty() && self.joins == 0
    }

    /// Whether what is here answers for the room: everything this node knows of was delivered.
    pub(super) fn is_current(&self) -> bool {
        !self.chain.is_joining() && !self.chain.is_suspect() && self.chain.last() >= self.acked
    }

    /// Whether the last event that was delivered is too young to be gone from the stream. Asked when the stream says of a
    /// newer one that it follows on an older one: the last was purged.
    pub(super) fn has_lost_its_last(&self, age_max: Duration, now: Timestamp) -> bool {
        let last = self.ring.at(Offset(self.chain.last()));
        last.is_some_and(|last| last.time.age(now) < age_max)
    }

    /// The head is known, at the beginning or after a restart of the history.
    pub(super) fn join(
        &mut self,
        live: &LiveRoom,
        head: Position,
        permits: &mut Option<OwnedSemaphorePermit>,
        keeping: &Keeping,
    ) {
        let before = self.ring.weight();
        self.epoch = head.epoch;
        self.ring = Ring::new(Arc::clone(&live.limits), head.offset);
        keeping.reweigh(before, 0);
        self.values = Values::default();
        self.acked = 0;
        self.clear = 0;
        if std::mem::take(&mut self.reset) {
            self.tell_reset(&live.room, head);
        }
        let mut out = Vec::new();
        self.chain.joined(head.offset.0, &mut out);
        self.apply(live, out, permits, keeping);
    }

    /// Does what the chain said.
    pub(super) fn apply(
        &mut self,
        live: &LiveRoom,
        out: Vec<Output<Arrival>>,
        permits: &mut Option<OwnedSemaphorePermit>,
        keeping: &Keeping,
    ) {
        for output in out {
            match output {
                Output::Deliver { seq, prev, event } => {
                    let Arrival { mut event, traceparent } = event;
                    event.link = Some(Link {
                        position: self.position(seq),
                        prev: Offset(prev),
                    });
                    self.deliver(Arc::new(event), &traceparent, permits, keeping);
                }
                Output::Reset { head } => {
                    let before = self.ring.weight();
                    self.ring = Ring::new(Arc::clone(&live.limits), Offset(head));
                    keeping.reweigh(before, 0);
                    self.values = Values::default();
                    self.tell_reset(&live.room, self.position(head));
                }
            }
        }
    }

    fn deliver(
        &mut self,
        event: Arc<Event>,
        traceparent: &str,
        permits: &mut Option<OwnedSemaphorePermit>,
        keeping: &Keeping,
    ) {
        if self.is_forgotten() {
            return;
        }
        if event.retention == Retention::LastValue {
            self.values.set(Arc::clone(&event), keeping.last_value_names_max);
        }
        let before = self.ring.weight();
        self.ring.push(Arc::clone(&event));
        self.settle_weight(before, keeping);
        self.hand_out(event, traceparent, permits);
    }

    /// Keeps within the bound over all rooms; the room gives up its own oldest events.
    pub(super) fn settle_weight(&mut self, before: usize, keeping: &Keeping) {
        let others = keeping.weight.load(Ordering::Relaxed).saturating_sub(before);
        while others + self.ring.weight() > keeping.history_bytes_max && self.ring.give_up_oldest() {}
        keeping.reweigh(before, self.ring.weight());
    }

    /// Hands an event to every subscriber.
    pub(super) fn hand_out(&self, event: Arc<Event>, traceparent: &str, permits: &mut Option<OwnedSemaphorePermit>) {
        let Some((last, others)) = self.subscribers.split_last() else {
            return;
        };
        let permit = permits.as_mut().and_then(|permits| permits.split(1));
        let delivery = Delivery::traced(event, permit, |span| trace::adopt(span, traceparent));
        for subscriber in others {
            subscriber.deliver(Arc::clone(&delivery));
        }
        last.deliver(delivery);
    }

    fn tell_reset(&self, room: &Room, head: Position) {
        for subscriber in &self.subscribers {
            subscriber.reset(room.clone(), head);
        }
    }
}

impl Keeping {
    pub(super) fn reweigh(&self, before: usize, after: usize) {
        let change = after.wrapping_sub(before);
        if change != 0 {
            self.weight.fetch_add(change, Ordering::Relaxed);
        }
    }
}
