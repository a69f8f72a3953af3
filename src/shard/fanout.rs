//! Fan-out: delivers the items of rooms to their members. An item is encoded once for all members of a protocol.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::clients::{Clients, Key};
use super::local::{CHUNK, LocalRooms, Recipient, RoomItem, RoomKey};
use crate::bus::Delivery;
use crate::presence::Change;
use crate::session::link::{FrameKind, Link};
use crate::session::{Encoder, Frame, Message, PresenceMode};

/// State between two turns of the fan-out.
#[derive(Debug)]
pub(super) struct FanoutState {
    /// The members of a chunk; its memory is used again.
    targets: Vec<Recipient>,
    /// The last change of presence that was encoded, by protocol: all observers of a room get it one after the other.
    changes: Vec<Option<(Arc<Change>, Frame)>>,
}

impl FanoutState {
    /// A fan-out to clients of so many protocols.
    pub fn new(protocols: usize) -> Self {
        Self {
            targets: Vec::new(),
            changes: vec![None; protocols],
        }
    }

    /// Delivers items to about [`CHUNK`] members, of one large room or of several small ones.
    pub fn turn<L: Link>(&mut self, local: &mut LocalRooms, clients: &mut Clients<L>) {
        let mut targets = std::mem::take(&mut self.targets);
        let (mut served, now_ms) = (0, clients.now_ms());
        while served < CHUNK {
            let Some(chunk) = local.next_chunk(&mut targets) else {
                break;
            };
            for target in &targets {
                let joint = |format, encoder: &dyn Encoder| chunk.batch.joint(target.from, format, encoder);
                // Members get the same bytes, as long as nothing is in line that concerns them in different ways, and
                // nothing goes between two events.
                if !clients.send_with(now_ms, target.key, FrameKind::Push, joint) {
                    for item in &chunk.batch.items()[target.from..] {
                        self.deliver_item(local, clients, chunk.room, target.key, item);
                    }
                }
            }
            chunk.batch.handed_to(targets.iter().map(|target| target.from));
            served += targets.len().max(1);
        }
        self.targets = targets;
    }

    /// Delivers one item to a member, if it is for this one.
    pub fn deliver_item<L: Link>(
        &mut self,
        local: &LocalRooms,
        clients: &mut Clients<L>,
        room: RoomKey,
        key: Key,
        item: &RoomItem,
    ) {
        match item {
            RoomItem::Event(delivery) => deliver_event(clients, room, key, delivery),
            RoomItem::Presence(change) => self.deliver_change(clients, room, key, change),
            RoomItem::Reset(head) => {
                if let Some(membership) = clients
                    .session_mut(key)
                    .and_then(|session| session.membership_mut(room))
                {
                    membership.start = head.offset;
                }
                let (room, head) = (local.room(room).clone(), *head);
                if let Some(cursor) = clients.cursor(key) {
                    cursor.enter(&room, Some(head));
                }
                clients.push(key, &Message::Resync { room, head });
            }
        }
    }

    fn deliver_change<L: Link>(&mut self, clients: &mut Clients<L>, room: RoomKey, key: Key, change: &Arc<Change>) {
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
            return clients.push(key, &Message::PresenceChanged(Arc::new(change)));
        }
        let kept = &mut self.changes;
        clients.send_apart(key, FrameKind::Push, |format, encoder| {
            Some(encoded(&mut kept[format], encoder, change))
        });
    }
}

/// The change in one protocol.
fn encoded(kept: &mut Option<(Arc<Change>, Frame)>, encoder: &dyn Encoder, change: &Arc<Change>) -> Frame {
    if let Some((encoded, frame)) = kept
        && Arc::ptr_eq(encoded, change)
    {
        return frame.clone();
    }
    let frame = encoder.message(0, &Message::PresenceChanged(Arc::clone(change)));
    *kept = Some((Arc::clone(change), frame.clone()));
    frame
}

fn deliver_event<L: Link>(clients: &mut Clients<L>, room: RoomKey, key: Key, delivery: &Delivery) {
    let Some(session) = clients.session(key) else { return };
    let start = session.membership(room).map(|membership| membership.start);
    if delivery.event.offset().is_some_and(|offset| Some(offset) <= start) {
        return;
    }
    let Some(identity) = session.identity() else { return };
    let is_excepted = delivery.event.except.covers(session.connection, &identity.user);
    clients.send_item(key, FrameKind::Push, &delivery.event, |format, encoder| {
        if is_excepted {
            delivery.event.link.and_then(|_| encoder.passed(&delivery.event))
        } else {
            Some(delivery.frame(format, |event| encoder.event(event)).clone())
        }
    });
}
