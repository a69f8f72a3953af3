//! Fan-out: handing the items of rooms to their members. An item is encoded once for all members of a protocol.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use super::clients::{Clients, Key};
use super::local::batch::Batch;
use super::local::{CHUNK, Item, Local, RoomKey, Target};
use crate::bus::Delivery;
use crate::presence::Change;
use crate::session::link::{Kind, Link};
use crate::session::{Frame, Message, PresenceMode};

/// What is kept between two turns of the fan-out.
#[derive(Debug)]
pub(super) struct Fanout {
    /// The members of a chunk; its memory is used again.
    targets: Vec<Target>,
    /// The last change of presence that was encoded, by protocol: all observers of a room get it one after the other.
    changes: Vec<Option<(Arc<Change>, Frame)>>,
}

impl Fanout {
    /// A fan-out to clients of so many protocols.
    pub fn new(protocols: usize) -> Self {
        Self {
            targets: Vec::new(),
            changes: vec![None; protocols],
        }
    }

    /// Hands items to about [`CHUNK`] members, of one large room or of several small ones.
    pub fn turn<L: Link>(&mut self, local: &mut Local, clients: &mut Clients<L>) {
        let mut targets = std::mem::take(&mut self.targets);
        let (mut served, now_ms) = (0, clients.now_ms());
        while served < CHUNK {
            let Some(chunk) = local.next_chunk(&mut targets) else {
                break;
            };
            for target in &targets {
                self.hand(now_ms, local, clients, chunk.room, *target, &chunk.batch);
            }
            chunk.batch.handed_to(targets.iter().map(|target| target.from));
            served += targets.len().max(1);
        }
        self.targets = targets;
    }

    fn hand<L: Link>(
        &mut self,
        now_ms: u64,
        local: &Local,
        clients: &mut Clients<L>,
        room: RoomKey,
        target: Target,
        batch: &Rc<Batch>,
    ) {
        let Some(format) = clients.format(target.key) else {
            return;
        };
        let encoder = clients.encoder(format);
        if let Some(joint) = batch.joint(target.from, format, |event| encoder.event(event)) {
            return clients.send_at(now_ms, target.key, &joint, Kind::Live);
        }
        for item in &batch.items()[target.from..] {
            self.hand_item(local, clients, room, target.key, item);
        }
    }

    /// Hands one item to a member, as far as it is for this one.
    pub fn hand_item<L: Link>(
        &mut self,
        local: &Local,
        clients: &mut Clients<L>,
        room: RoomKey,
        key: Key,
        item: &Item,
    ) {
        match item {
            Item::Event(delivery) => hand_event(clients, room, key, delivery),
            Item::Presence(change) => self.hand_change(clients, room, key, change),
            Item::Reset(head) => {
                if let Some(membership) = clients
                    .session_mut(key)
                    .and_then(|session| session.membership_mut(room))
                {
                    membership.start = head.offset;
                }
                let (room, head) = (local.room(room).clone(), *head);
                clients.push(key, &Message::Resync { room, head });
            }
        }
    }

    fn hand_change<L: Link>(&mut self, clients: &mut Clients<L>, room: RoomKey, key: Key, change: &Arc<Change>) {
        let Some(session) = clients.session_mut(key) else {
            return;
        };
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
        if let Some(change) = others {
            // What is for one user alone is not kept.
            clients.push(key, &Message::PresenceChanged(Arc::new(change)));
        } else if let Some(format) = clients.format(key) {
            let frame = self.encoded(clients, format, change);
            clients.send(key, &frame, Kind::Live);
        }
    }

    fn encoded<L: Link>(&mut self, clients: &Clients<L>, format: usize, change: &Arc<Change>) -> Frame {
        if let Some((encoded, frame)) = &self.changes[format]
            && Arc::ptr_eq(encoded, change)
        {
            return frame.clone();
        }
        let message = Message::PresenceChanged(Arc::clone(change));
        let frame = clients.encoder(format).message(0, &message);
        self.changes[format] = Some((Arc::clone(change), frame.clone()));
        frame
    }
}

fn hand_event<L: Link>(clients: &mut Clients<L>, room: RoomKey, key: Key, delivery: &Delivery) {
    let (Some(format), Some(session)) = (clients.format(key), clients.session(key)) else {
        return;
    };
    let start = session.membership(room).map(|membership| membership.start);
    if delivery.event.offset().is_some_and(|offset| Some(offset) <= start) {
        return;
    }
    let Some(identity) = session.identity() else { return };
    let encoder = clients.encoder(format);
    let frame = if !delivery.event.except.covers(session.connection, &identity.user) {
        delivery.frame(format, |event| encoder.event(event)).clone()
    } else if delivery.event.link.is_some()
        && let Some(frame) = encoder.passed(&delivery.event)
    {
        frame
    } else {
        return;
    };
    clients.send(key, &frame, Kind::Live);
}
