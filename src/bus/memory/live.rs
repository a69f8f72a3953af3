//! A room in memory: its history and its subscribers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::clock::Now;
use super::log::RoomLog;
use super::shared::MemoryBusInner;
use crate::bus::{Delivery, Subscriber};
use crate::event::{Event, Publish};
use crate::position::{ChainLink, Offset};
use crate::room::Room;

/// A room in memory.
pub(super) struct LiveRoom {
    /// Shared with its events.
    room: Room,
    pub log: RoomLog,
    subscribers: Vec<Arc<dyn Subscriber>>,
    touched_ms: u64,
}

impl LiveRoom {
    pub(super) const fn new(room: Room, log: RoomLog, now_ms: u64) -> Self {
        Self {
            room,
            log,
            subscribers: Vec::new(),
            touched_ms: now_ms,
        }
    }

    pub(super) const fn room(&self) -> &Room {
        &self.room
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// Reports whether a subscriber keeps the room in memory.
    pub(super) fn is_held(&self) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.holds_room())
    }

    /// Drops a subscriber that did not hold the room.
    pub(super) fn drop_subscriber(&mut self, id: u16) {
        self.subscribers.retain(|known| known.id() != id);
    }

    /// Adds a subscriber, or replaces the one of the same id.
    pub(super) fn subscribe(&mut self, subscriber: Arc<dyn Subscriber>) {
        let id = subscriber.id();
        if let Some(known) = self.subscribers.iter_mut().find(|known| known.id() == id) {
            *known = subscriber;
        } else {
            // Reserve exactly one: most rooms have one subscriber, and the default growth would allocate four.
            self.subscribers.reserve_exact(1);
            self.subscribers.push(subscriber);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: u16, now_ms: u64) {
        self.subscribers.retain(|known| known.id() != id);
        self.touched_ms = now_ms;
    }

    /// Returns the delivery of an event, or `None` without subscribers.
    pub(super) fn delivery(&self, event: Arc<Event>, in_flight: OwnedSemaphorePermit) -> Option<Arc<Delivery>> {
        self.has_subscribers().then(|| Delivery::new(event, Some(in_flight)))
    }

    /// Delivers an event to every subscriber.
    pub(super) fn deliver(&self, delivery: Arc<Delivery>) {
        let Some((last, others)) = self.subscribers.split_last() else {
            return;
        };
        for subscriber in others {
            subscriber.deliver(Arc::clone(&delivery));
        }
        last.deliver(delivery);
    }

    /// Appends the room's next event. While memory is full, the room gives up its own oldest events.
    pub(super) fn append(&mut self, shared: &MemoryBusInner, event: Arc<Event>, offset: Offset, now: Now) {
        let before = self.log.weight();
        let names_max = shared.config.last_value_names_max;
        self.log.append(event, offset, now.ms, names_max);
        let others = shared.weight.load(Ordering::Relaxed).saturating_sub(before);
        while others + self.log.weight() > shared.config.history_bytes_max && self.log.drop_oldest() {}
        shared.reweigh(before, self.log.weight());
        self.touched_ms = now.ms;
    }

    /// Drops expired events, so that a read sees what the limits allow.
    pub(super) fn expire(&mut self, shared: &MemoryBusInner, now_ms: u64) {
        let before = self.log.weight();
        self.log.trim(now_ms);
        self.log.trim_last_values(shared.config.last_value_age_max, now_ms);
        shared.reweigh(before, self.log.weight());
    }

    /// Reports whether the room can leave memory: unused for `idle_max`, without subscribers and without history.
    pub(super) fn is_idle(&self, idle_max: Duration, now_ms: u64) -> bool {
        let idle = u128::from(now_ms.saturating_sub(self.touched_ms)) >= idle_max.as_millis();
        idle && !self.is_held() && self.log.is_empty()
    }
}

/// Builds the event of a publish.
pub(super) fn ordered(publish: Publish, room: Room, link: Option<ChainLink>, now: Now) -> Arc<Event> {
    Arc::new(Event {
        room,
        id: publish.id,
        name: publish.name,
        retention: publish.retention,
        link,
        time: now.wall,
        actor: publish.actor,
        except: publish.except,
        payload: publish.payload,
    })
}
