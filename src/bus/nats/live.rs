//! A room with members on this node: its chain, its kept events, its subscribers.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::AbortHandle;
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use super::budget::HistoryBudget;
use super::chain::{Chain, Output};
use super::ring::Ring;
use super::values::Values;
use crate::bus::history::HistoryLimits;
use crate::bus::{Delivery, Subscriber};
use crate::event::{Event, Retention, Timestamp};
use crate::nats::trace;
use crate::position::{ChainLink, Epoch, Offset, Position};
use crate::room::Room;
use crate::sync::lock;

/// A received event.
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
    /// Single-flight: one task at a time reads older events.
    pub backfill: tokio::sync::Mutex<()>,
    state: Mutex<RoomState>,
}

/// The mutable part of a room. Everything that happens to the room happens under its lock, deliveries included.
pub(super) struct RoomState {
    pub chain: Chain<Arrival>,
    pub ring: Ring,
    pub values: Values,
    pub epoch: Epoch,
    pub subscribers: Vec<Arc<dyn Subscriber>>,
    /// Running calls of `subscribe`: they keep the room.
    pub joins: usize,
    /// Ends the subscription in NATS.
    pub feed: Option<AbortHandle>,
    /// The room is queued for repair.
    pub queued: bool,
    /// The newest sequence of the room that was acknowledged to this node.
    pub acked: u64,
    /// The watermark through which sweeps have found no undelivered event of the room.
    pub clear: u64,
    /// The number of the sweep at which the ring was last compared with the stream.
    pub compared: u32,
    /// A live event arrived since the last sweep.
    pub heard: bool,
    /// Consecutive sweeps that found an event which had not arrived live.
    pub behind: u8,
    /// The chain was restarted: its members must be notified of the new head.
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

    /// Reports whether the room has neither subscribers nor joins.
    pub(super) const fn is_forgotten(&self) -> bool {
        self.subscribers.is_empty() && self.joins == 0
    }

    /// Reports whether the local state may serve reads of the room: everything this node knows of was delivered.
    pub(super) fn is_current(&self) -> bool {
        !self.chain.is_joining() && !self.chain.is_suspect() && self.chain.last() >= self.acked
    }

    /// Reports whether the last delivered event is too young to have expired from the stream. Checked when the stream
    /// stamps a newer event with an older predecessor: then the last one was purged.
    pub(super) fn has_lost_its_last(&self, age_max: Duration, now: Timestamp) -> bool {
        let last = self.ring.at(Offset(self.chain.last()));
        last.is_some_and(|last| last.time.age(now) < age_max)
    }

    /// Sets the head, after the first join or a restart of the history.
    pub(super) fn join(
        &mut self,
        live: &LiveRoom,
        head: Position,
        permits: &mut Option<OwnedSemaphorePermit>,
        budget: &HistoryBudget,
    ) {
        let before = self.ring.weight();
        self.epoch = head.epoch;
        self.ring = Ring::new(Arc::clone(&live.limits), head.offset);
        budget.reweigh(before, 0);
        self.values = Values::default();
        self.acked = 0;
        self.clear = 0;
        // The reset goes before the held events, which belong to the new history.
        if std::mem::take(&mut self.reset) {
            self.tell_reset(&live.room, head);
        }
        let mut out = Vec::new();
        self.chain.joined(head.offset.0, &mut out);
        self.apply(live, out, permits, budget);
    }

    /// Executes the outputs of the chain.
    pub(super) fn apply(
        &mut self,
        live: &LiveRoom,
        out: Vec<Output<Arrival>>,
        permits: &mut Option<OwnedSemaphorePermit>,
        budget: &HistoryBudget,
    ) {
        for output in out {
            match output {
                Output::Deliver { seq, prev, event } => {
                    let Arrival { mut event, traceparent } = event;
                    event.link = Some(ChainLink {
                        position: self.position(seq),
                        prev: Offset(prev),
                    });
                    self.deliver(Arc::new(event), &traceparent, permits, budget);
                }
                Output::Reset { head } => {
                    let before = self.ring.weight();
                    self.ring = Ring::new(Arc::clone(&live.limits), Offset(head));
                    budget.reweigh(before, 0);
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
        budget: &HistoryBudget,
    ) {
        if self.is_forgotten() {
            return;
        }
        if event.retention == Retention::LastValue {
            self.values.set(Arc::clone(&event), budget.last_value_names_max());
        }
        let before = self.ring.weight();
        self.ring.push(Arc::clone(&event));
        budget.settle(before, &mut self.ring);
        self.hand_out(event, traceparent, permits);
    }

    /// Delivers an event to every subscriber.
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
