//! Handing items of rooms to their members.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use super::link::{Kind, Link};
use super::sessions::Sessions;
use super::{Frame, Message, PresenceMode};
use crate::bus::Delivery;
use crate::error::CloseReason;
use crate::hub::Inbound;
use crate::hub::batch::Batch;
use crate::hub::local::{CHUNK, Item, Key, RoomKey, Target};
use crate::presence::Change;
use crate::room::Room;

/// The most items that wait in a room for the lease. More changes of presence, and whoever sees them comes back later; events
/// wait in the mailbox.
const LINE_MAX: usize = 4096;

impl<L: Link> Sessions<L> {
    /// Whether anything of a room may be handed to a client now. To be asked after it was taken from wherever it came
    /// from, and before it is written: what comes later than a revocation that has been answered elsewhere is then only
    /// written where that revocation was carried out, or where the process was stopped in between, and what it held
    /// then is older than the revocation.
    pub fn may_deliver(&mut self) -> bool {
        let holds = self.services.lease.holds();
        if holds == self.lapsed {
            self.lapsed = !holds;
            // A node that starts takes its first lease: that is no news.
            let has_held = self.leased;
            self.leased |= holds;
            match (has_held, holds) {
                (true, true) => tracing::info!("lease regained, deliveries resumed"),
                (true, false) => tracing::warn!("lease lapsed, deliveries paused"),
                (false, _) => {}
            }
        }
        holds
    }

    /// Closes those who see a room's presence: the changes they miss cannot be told one by one any more.
    fn send_observers_away(&mut self, room: &Room) {
        let Some(room) = self.local.find(room) else { return };
        for key in self.local.members(room) {
            let membership = self.session(key).and_then(|session| session.membership_mut(room));
            if membership.is_some_and(|membership| membership.presence.is_some()) {
                self.doom(key, CloseReason::Overloaded);
            }
        }
    }

    /// Puts what the bus delivers in line.
    pub(super) fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Event(delivery) => {
                let room = delivery.event.room.clone();
                self.local.enqueue(&room, Item::Event(delivery));
            }
            Inbound::Reset(room, head) => self.local.enqueue(&room, Item::Reset(head)),
        }
    }

    pub(super) fn presence_changed(&mut self, change: Arc<Change>) {
        let room = change.room.clone();
        if self.lapsed && self.local.in_line(&room) >= LINE_MAX {
            return self.send_observers_away(&room);
        }
        self.local.enqueue(&room, Item::Presence(change));
    }

    /// Whether events wait to be handed out.
    #[must_use]
    pub fn has_work(&self) -> bool {
        (self.local.has_work() && !self.lapsed) || self.rechecking.has_work()
    }

    /// Hands events to about [`CHUNK`] members, of one large room or of several small ones. Not without the lease, which is
    /// looked at after they were taken: what is handed out was there before.
    pub fn fan_out(&mut self) {
        if !self.may_deliver() {
            return;
        }
        let mut targets = std::mem::take(&mut self.targets);
        let (mut served, now_ms) = (0, self.now_ms());
        while served < CHUNK {
            let Some(chunk) = self.local.next_chunk(&mut targets) else {
                break;
            };
            for target in &targets {
                self.hand(now_ms, chunk.room, *target, &chunk.batch);
            }
            chunk.batch.handed_to(targets.iter().map(|target| target.from));
            served += targets.len().max(1);
        }
        self.targets = targets;
    }

    fn hand(&mut self, now_ms: u64, room: RoomKey, target: Target, batch: &Rc<Batch>) {
        if let Some(conn) = self.conns.get(target.key as usize) {
            let format = conn.link.protocol().index();
            let encoder = &self.services.encoders[format];
            if let Some(joint) = batch.joint(target.from, format, |event| encoder.event(event)) {
                return self.send_at(now_ms, target.key, &joint, Kind::Live);
            }
        }
        for item in &batch.items()[target.from..] {
            self.hand_one(room, target.key, item);
        }
    }

    pub(super) fn hand_one(&mut self, room: RoomKey, key: Key, item: &Item) {
        match item {
            Item::Event(delivery) => self.hand_event(room, key, delivery),
            Item::Presence(change) => self.hand_change(room, key, change),
            Item::Reset(head) => {
                if let Some(membership) = self.session(key).and_then(|session| session.membership_mut(room)) {
                    membership.start = head.offset;
                }
                let room = self.local.room(room).clone();
                self.push(key, &Message::Resync { room, head: *head });
            }
        }
    }

    fn hand_event(&mut self, room: RoomKey, key: Key, delivery: &Delivery) {
        let (Some(encoder), Some(conn)) = (self.encoder(key), self.conns.get(key as usize)) else {
            return;
        };
        let start = conn.session.membership(room).map(|membership| membership.start);
        if delivery.event.offset().is_some_and(|offset| Some(offset) <= start) {
            return;
        }
        let Some(identity) = conn.session.identity() else {
            return;
        };
        if !delivery.event.except.covers(conn.session.connection, &identity.user) {
            let format = conn.link.protocol().index();
            let frame = delivery.frame(format, |event| encoder.event(event)).clone();
            self.send(key, &frame, Kind::Live);
        } else if delivery.event.link.is_some()
            && let Some(frame) = encoder.passed(&delivery.event)
        {
            self.send(key, &frame, Kind::Live);
        }
    }

    fn hand_change(&mut self, room: RoomKey, key: Key, change: &Arc<Change>) {
        let Some(session) = self.session(key) else { return };
        let Some(membership) = session.membership_mut(room) else {
            return;
        };
        let Some(seen) = &mut membership.presence else { return };
        if !change.known.contains(&seen.get()) || membership.mode.detail() != Some(change.detail) {
            return;
        }
        *seen = NonZeroU64::new(change.version).unwrap_or(*seen);
        let others = match membership.mode {
            PresenceMode::Others => session.identity().and_then(|own| change.without(&own.user)),
            PresenceMode::None | PresenceMode::Counts | PresenceMode::Members => None,
        };
        let frame = match others {
            // What is for one user alone is not kept.
            Some(change) => {
                let message = Message::PresenceChanged(Arc::new(change));
                self.encoder(key).map(|encoder| encoder.message(0, &message))
            }
            None => self.change_frame(key, change),
        };
        if let Some(frame) = frame {
            self.send(key, &frame, Kind::Live);
        }
    }

    /// The change in this connection's protocol; the last one of each protocol is kept.
    fn change_frame(&mut self, key: Key, change: &Arc<Change>) -> Option<Frame> {
        let index = self.conns.get(key as usize)?.link.protocol().index();
        if let Some((encoded, frame)) = &self.encoded_change[index]
            && Arc::ptr_eq(encoded, change)
        {
            return Some(frame.clone());
        }
        let frame = self.services.encoders[index].message(0, &Message::PresenceChanged(Arc::clone(change)));
        self.encoded_change[index] = Some((Arc::clone(change), frame.clone()));
        Some(frame)
    }
}
