//! A lock stripe: a share of the rooms behind one lock, which makes their order.

mod follow;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

use super::clock::Now;
use super::config::Config;
use super::heads::{Head, Heads};
use super::keys::{KeyUse, KeyWindow, Seen};
use super::live::{LiveRoom, ordered};
use super::log::RoomLog;
use super::shared::MemoryBusInner;
use crate::bus::{Delivery, HistoryStats, PublishError, Published, Subscriber};
use crate::event::{Publish, Retention};
use crate::position::{ChainLink, Offset, Position};
use crate::room::Room;
use crate::units::millis;
use follow::StripeFollower;

/// The minimum pause between searches for idle rooms while the bus is full. Each search visits every room of the stripe
/// under its lock.
const EVICTION_PAUSE_MS: u64 = 1000;

/// The error of a bus that holds `rooms_max` rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// A publish that is ready to be ordered.
pub(super) struct Request {
    pub publish: Publish,
    pub key: Option<KeyUse>,
    pub room_hash: u64,
    pub in_flight: OwnedSemaphorePermit,
}

/// A share of the rooms and of the idempotency keys.
pub(super) struct Stripe {
    rooms: HashMap<Room, LiveRoom>,
    keys: KeyWindow,
    heads: Heads,
    /// Followers of rooms by a pattern: attached to every room that matches when it comes into memory.
    followers: Vec<Arc<StripeFollower>>,
    evicted_ms: Option<u64>,
}

impl Stripe {
    /// Creates one of `count` equal shares of the configured bounds.
    pub(super) fn share_of(config: &Config, count: usize) -> Self {
        let window_ms = millis(config.idempotency_window);
        Self {
            rooms: HashMap::new(),
            keys: KeyWindow::new(window_ms, config.idempotency_keys_max.div_ceil(count)),
            heads: Heads::new(config.forgotten_rooms_max.div_ceil(count)),
            followers: Vec::new(),
            evicted_ms: None,
        }
    }

    /// Orders, stores and delivers an event, or returns the outcome of its idempotency key's first use.
    pub(super) fn publish(&mut self, shared: &MemoryBusInner, request: Request) -> Result<Published, PublishError> {
        self.order(shared, request, LiveRoom::deliver)
    }

    /// Publishes several events of one room. They are delivered together, so that a subscriber is woken once.
    pub(super) fn publish_run(
        &mut self,
        shared: &MemoryBusInner,
        room: &Room,
        run: impl Iterator<Item = (Request, Span)>,
        outcomes: &mut Vec<Result<Published, PublishError>>,
    ) {
        let mut ready = Vec::with_capacity(run.size_hint().0);
        for (request, span) in run {
            let order = || self.order(shared, request, |_, delivery| ready.push(delivery));
            outcomes.push(span.in_scope(order));
        }
        if let Some(live) = self.rooms.get(room) {
            for delivery in ready {
                live.deliver(delivery);
            }
        }
    }

    fn order(
        &mut self,
        shared: &MemoryBusInner,
        request: Request,
        deliver: impl FnOnce(&LiveRoom, Arc<Delivery>),
    ) -> Result<Published, PublishError> {
        let now = shared.clock.now();
        let key = request.key;
        // The key goes first: a repeated conditional publish is a duplicate, not a version conflict.
        match key.map_or(Seen::Never, |key| self.keys.look_up(key, now.ms)) {
            Seen::Never => {}
            Seen::Before(offset) => return Ok(published(shared, offset, true)),
            Seen::ForAnother => return Err(PublishError::KeyReused),
        }
        let offset = match request.publish.retention {
            Retention::Ephemeral => {
                self.pass_on(shared, request, now, deliver);
                None
            }
            Retention::Reliable | Retention::LastValue => Some(self.store(shared, request, now, deliver)?),
        };
        if let Some(key) = key {
            self.keys.remember(key, offset, now.ms);
        }
        Ok(published(shared, offset, false))
    }

    fn pass_on(
        &mut self,
        shared: &MemoryBusInner,
        request: Request,
        now: Now,
        deliver: impl FnOnce(&LiveRoom, Arc<Delivery>),
    ) {
        let room = &request.publish.room;
        let live = match self.rooms.get(room) {
            Some(live) => live,
            // The event makes no room, except for a follower of rooms like it.
            None if self.followers.iter().any(|follower| follower.follows(room)) => {
                let room = room.clone();
                match self.enter(shared, &room, request.room_hash, now) {
                    Ok(live) => live,
                    Err(Full) => return,
                }
            }
            None => return,
        };
        if live.has_subscribers() {
            let event = ordered(request.publish, live.room().clone(), None, now);
            if let Some(delivery) = live.delivery(event, request.in_flight) {
                deliver(live, delivery);
            }
        }
    }

    fn store(
        &mut self,
        shared: &MemoryBusInner,
        request: Request,
        now: Now,
        deliver: impl FnOnce(&LiveRoom, Arc<Delivery>),
    ) -> Result<Offset, PublishError> {
        let publish = request.publish;
        let live = self
            .enter(shared, &publish.room, request.room_hash, now)
            .map_err(|Full| PublishError::NotStored("too many rooms"))?;
        let head = live.log.head();
        if publish
            .expected
            .is_some_and(|expected| !shared.is_current(head, expected))
        {
            let current = shared.stands_at(head);
            return Err(PublishError::VersionConflict { current });
        }
        let offset = Offset(shared.sequence.fetch_add(1, Ordering::Relaxed) + 1);
        let epoch = shared.epoch;
        let link = ChainLink {
            position: Position { epoch, offset },
            prev: head.bound(),
        };
        let event = ordered(publish, live.room().clone(), Some(link), now);
        live.append(shared, Arc::clone(&event), offset, now);
        if let Some(delivery) = live.delivery(event, request.in_flight) {
            deliver(live, delivery);
        }
        Ok(offset)
    }

    /// Returns the room, loading it into memory if needed.
    fn enter(&mut self, shared: &MemoryBusInner, room: &Room, room_hash: u64, now: Now) -> Result<&mut LiveRoom, Full> {
        if !self.rooms.contains_key(room) {
            self.make_place(shared, now)?;
            let limits = shared.config.history.limits_of(room);
            let log = RoomLog::new(limits, self.heads.take(room_hash));
            let mut live = LiveRoom::new(room.clone(), log, now.ms);
            for follower in self.followers.iter().filter(|follower| follower.follows(room)) {
                live.subscribe(Arc::clone(follower) as Arc<dyn Subscriber>);
            }
            self.rooms.insert(room.clone(), live);
        }
        Ok(self
            .rooms
            .get_mut(room)
            .expect("the room was there or has just been put there"))
    }

    /// Reserves a slot for a room. Evicts idle rooms first where the table would grow or the bus is full.
    fn make_place(&mut self, shared: &MemoryBusInner, now: Now) -> Result<(), Full> {
        let full = shared.rooms.load(Ordering::Relaxed) >= shared.config.rooms_max;
        let pause_over = self
            .evicted_ms
            .is_none_or(|at_ms| now.ms.saturating_sub(at_ms) >= EVICTION_PAUSE_MS);
        if pause_over && (full || self.rooms.len() == self.rooms.capacity()) {
            let idle_max = if full {
                Duration::ZERO
            } else {
                shared.config.room_idle_max
            };
            self.evict(shared, idle_max, now.ms);
        }
        let place = |rooms| (rooms < shared.config.rooms_max).then_some(rooms + 1);
        let placed = shared.rooms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place);
        placed.map(|_| ()).map_err(|_| Full)
    }

    pub(super) fn subscribe(
        &mut self,
        shared: &MemoryBusInner,
        room: &Room,
        room_hash: u64,
        subscriber: Arc<dyn Subscriber>,
    ) -> Result<Position, Full> {
        let now = shared.clock.now();
        let live = self.enter(shared, room, room_hash, now)?;
        live.subscribe(subscriber);
        Ok(shared.stands_at(live.log.head()))
    }

    pub(super) fn unsubscribe(&mut self, shared: &MemoryBusInner, room: &Room, subscriber_id: u16) {
        let Some(live) = self.rooms.get_mut(room) else {
            return;
        };
        live.unsubscribe(subscriber_id, shared.clock.now().ms);
        // Nothing was ever published, so there is nothing to resume from.
        if !live.is_held() && live.log.head() == Head::Known(Offset::ZERO) {
            self.rooms.remove(room);
            shared.rooms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn head(&self, room: &Room, room_hash: u64) -> Head {
        let live = self.rooms.get(room);
        live.map_or_else(|| self.heads.of(room_hash), |live| live.log.head())
    }

    /// Returns the room's log within its limits as of now, if the room is in memory.
    pub(super) fn log(&mut self, shared: &MemoryBusInner, room: &Room) -> Option<&RoomLog> {
        let live = self.rooms.get_mut(room)?;
        live.expire(shared, shared.clock.now().ms);
        Some(&live.log)
    }

    pub(super) fn stats(&mut self, shared: &MemoryBusInner, room: &Room, room_hash: u64) -> HistoryStats {
        let (events, bytes) = self.log(shared, room).map_or((0, 0), RoomLog::size);
        HistoryStats {
            head: shared.stands_at(self.head(room, room_hash)),
            events,
            bytes,
        }
    }

    /// Drops expired keys, events and rooms.
    pub(super) fn sweep(&mut self, shared: &MemoryBusInner) {
        let now_ms = shared.clock.now().ms;
        self.keys.expire(now_ms);
        self.keys.shrink();
        self.evict(shared, shared.config.room_idle_max, now_ms);
        if self.rooms.len() < self.rooms.capacity() / 4 {
            self.rooms.shrink_to_fit();
        }
    }

    fn evict(&mut self, shared: &MemoryBusInner, idle_max: Duration, now_ms: u64) {
        self.evicted_ms = Some(now_ms);
        let before = self.rooms.len();
        let heads = &mut self.heads;
        self.rooms.retain(|room, live| {
            live.expire(shared, now_ms);
            live.log.shrink();
            let idle = live.is_idle(idle_max, now_ms);
            if idle && let Head::Known(head) = live.log.head() {
                remember_head(heads, shared, room, head);
            }
            !idle
        });
        shared.rooms.fetch_sub(before - self.rooms.len(), Ordering::Relaxed);
    }
}

fn remember_head(heads: &mut Heads, shared: &MemoryBusInner, room: &Room, head: Offset) {
    if head != Offset::ZERO {
        heads.remember(shared.hasher.hash_one(room), head);
    }
}

const fn published(shared: &MemoryBusInner, offset: Option<Offset>, duplicate: bool) -> Published {
    let epoch = shared.epoch;
    let position = match offset {
        Some(offset) => Some(Position { epoch, offset }),
        None => None,
    };
    Published { position, duplicate }
}
