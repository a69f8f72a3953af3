//! The members of the shard's rooms: memberships, their presence, and the items queued for them. Subscriptions and
//! observations end with the last member.

mod expiring;
mod presence;
mod replay;

use std::num::NonZeroU64;
use std::sync::Arc;

use self::expiring::ExpiringMemberships;
pub(super) use self::replay::{RoomReplay, before_replay};
use super::clients::{Clients, Key, Membership, MembershipRight, Ticket};
use super::fanout::FanoutState;
use super::local::{JoinFailed, LocalRooms, RoomItem, RoomKey};
use crate::bus::Subscriber;
use crate::hub::{Inbound, Mailbox};
use crate::identity::Expiry;
use crate::notice::Notice;
use crate::policy::Permit;
use crate::position::Position;
use crate::presence::{Departure, Roster};
use crate::room::Room;
use crate::rooms::{Rooms, Start};
use crate::session::link::Link;
use crate::session::{JoinOptions, Joined, Message, PresenceMode, RoomChange};

/// A room that was entered, and what its new member gets first.
#[derive(Debug)]
pub(super) struct RoomArrival {
    pub joined: Joined,
    pub replay: RoomReplay,
}

/// The rooms of one shard with their members.
pub(super) struct RoomMembers {
    local: LocalRooms,
    expiring: ExpiringMemberships,
    fanout: FanoutState,
    mailbox: Arc<Mailbox>,
    rooms: Rooms,
}

impl RoomMembers {
    /// No rooms yet. The mailbox is what the bus and presence reach the shard by.
    pub fn new(mailbox: Arc<Mailbox>, rooms: Rooms, protocols: usize) -> Self {
        Self {
            local: LocalRooms::default(),
            expiring: ExpiringMemberships::default(),
            fanout: FanoutState::new(protocols),
            mailbox,
            rooms,
        }
    }

    /// The subscriber to which the bus delivers the rooms' events.
    pub fn subscriber(&self) -> Arc<dyn Subscriber> {
        Arc::clone(&self.mailbox) as Arc<dyn Subscriber>
    }

    // What a client is in.

    pub fn has<L: Link>(&self, clients: &Clients<L>, key: Key, room: &Room) -> bool {
        self.membership(clients, key, room).is_some()
    }

    /// Returns the right by which the client is in a room, if it is.
    pub fn right<L: Link>(&self, clients: &Clients<L>, key: Key, room: &Room) -> Option<MembershipRight> {
        self.membership(clients, key, room).map(|membership| membership.right)
    }

    /// Returns the part of a room's presence that the client sees, if it is in it.
    pub fn presence_mode<L: Link>(&self, clients: &Clients<L>, key: Key, room: &Room) -> Option<PresenceMode> {
        self.membership(clients, key, room).map(|membership| membership.mode)
    }

    /// The rooms a client is in, of the memberships that are asked for.
    pub fn rooms_of<L: Link>(
        &self,
        clients: &Clients<L>,
        key: Key,
        is_wanted: impl Fn(&Membership) -> bool,
    ) -> Vec<Room> {
        let memberships = clients.session(key).map_or(&[][..], |session| &session.memberships);
        let wanted = memberships.iter().filter(|membership| is_wanted(membership));
        wanted
            .map(|membership| self.local.room(membership.room).clone())
            .collect()
    }

    fn membership<'a, L: Link>(&self, clients: &'a Clients<L>, key: Key, room: &Room) -> Option<&'a Membership> {
        let room = self.local.find(room)?;
        clients.session(key)?.membership(room)
    }

    // Entering.

    /// Begins to hold a room's items for a client; `false` when it is joining already.
    pub fn begin_join(&mut self, room: &Room, key: Key) -> bool {
        self.local.begin_join(room, key).is_some()
    }

    /// Aborts a join. Returns whether there was one.
    pub fn abort_join(&mut self, room: &Room, key: Key) -> bool {
        let aborted = self.local.abort_join(room, key);
        self.end_vacated();
        aborted
    }

    /// Makes a client that is joining a member, by this permit. `confirmed` says whether everyone who is there is known.
    ///
    /// # Errors
    /// Every variant of [`JoinFailed`]; the client is not a member then.
    pub fn admit<L: Link>(
        &mut self,
        clients: &mut Clients<L>,
        ticket: Ticket,
        (permit, options, right): (&Permit, JoinOptions, MembershipRight),
        start: Start,
        confirmed: bool,
    ) -> Result<RoomArrival, JoinFailed> {
        let (key, room, mode) = (ticket.key, permit.room(), options.presence);
        let before = before_replay(&start, options.since);
        // Joined again: the old membership makes way, without a leave that others would see.
        self.deliver_queued(clients, key, room);
        let was = self.detach(clients, key, room);
        let entered = match self.local.finish_join(room, key, start.head) {
            Ok(entered) => entered,
            Err(failed) => {
                if was.is_some() {
                    self.leave_presence(clients, key, room, Departure::Left);
                }
                self.end_vacated();
                return Err(failed);
            }
        };
        let roster = self.show_presence(clients, (key, entered.room), permit, options, confirmed);
        let membership = Membership {
            room: entered.room,
            slot: entered.slot,
            start: start.head.offset,
            presence: roster.as_ref().and_then(|roster| NonZeroU64::new(roster.version)),
            mode,
            right: right.max(was.unwrap_or(right)),
        };
        // What a backend granted it also ends; the client's own right has nothing to do with it.
        let expires = permit
            .terms()
            .expires
            .filter(|_| membership.right == MembershipRight::Own);
        if let Some(session) = clients.session_mut(key) {
            session.add_membership(membership);
        }
        self.expiring.set(key, entered.room, expires);
        if let Some(cursor) = clients.cursor(key) {
            cursor.enter(room, before);
        }
        let joined = Joined {
            room: room.clone(),
            head: start.head,
            recovered: start.recovered,
            replayed: u32::try_from(start.replay.len()).unwrap_or(u32::MAX),
            roster,
        };
        let replay = RoomReplay {
            room: entered.room,
            past: start.replay,
            head: start.head,
            held: entered.held,
        };
        Ok(RoomArrival { joined, replay })
    }

    /// Changes presence and state of a member and nothing of the stream; `None` when it is no member.
    pub fn change<L: Link>(
        &mut self,
        clients: &mut Clients<L>,
        key: Key,
        (permit, options): (&Permit, JoinOptions),
        confirmed: bool,
    ) -> Option<Joined> {
        let (room, mode, expires) = (permit.room(), options.presence, permit.terms().expires);
        let head = self.deliver_queued(clients, key, room)?;
        let room_key = self.local.find(room)?;
        self.unobserve(clients, key, room_key);
        let roster = self.show_presence(clients, (key, room_key), permit, options, confirmed);
        if let Some(membership) = membership_mut(clients, key, room_key) {
            membership.presence = roster.as_ref().and_then(|roster| NonZeroU64::new(roster.version));
            membership.mode = mode;
            let expires = expires.filter(|_| membership.right == MembershipRight::Own);
            self.expiring.set(key, room_key, expires);
        }
        Some(joined_anew(room.clone(), head, roster))
    }

    /// Sets the end of a membership; `None`: it ends with the session.
    pub fn keep_until(&mut self, key: Key, room: &Room, expires: Option<Expiry>) {
        if let Some(room) = self.local.find(room) {
            self.expiring.set(key, room, expires);
        }
    }

    // Leaving.

    /// Removes a client from a room for good. Returns whether it was a member.
    pub fn leave<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, room: &Room) -> bool {
        self.depart(clients, key, room, Departure::Left)
    }

    /// Removes a client whose connection has ended from every room.
    pub fn leave_all<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, departure: Departure) {
        while let Some(membership) = clients.session(key).and_then(|session| session.memberships.last()) {
            let room = self.local.room(membership.room).clone();
            self.depart(clients, key, &room, departure);
        }
    }

    fn depart<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, room: &Room, departure: Departure) -> bool {
        let left = self.detach(clients, key, room).is_some();
        if left {
            self.leave_presence(clients, key, room, departure);
        }
        self.end_vacated();
        left
    }

    /// Removes a client from a room and notifies it.
    pub fn send_away<L: Link>(
        &mut self,
        clients: &mut Clients<L>,
        key: Key,
        room: Room,
        change: RoomChange,
        notice: &Notice,
    ) -> bool {
        let left = self.leave(clients, key, &room);
        if left {
            notify_left(clients, key, room, change, notice);
        }
        left
    }

    /// Ends the memberships whose time is over. The client may join again, which asks anew.
    pub fn end_expired<L: Link>(&mut self, clients: &mut Clients<L>) {
        while let Some((key, room)) = self.expiring.take_due() {
            let room = self.local.room(room).clone();
            self.send_away(clients, key, room, RoomChange::Expired, &Notice::default());
        }
    }

    /// Ends a membership on this shard without a change of presence. Returns the right by which it was held.
    fn detach<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, room: &Room) -> Option<MembershipRight> {
        let room_key = self.local.find(room)?;
        self.unobserve(clients, key, room_key);
        let membership = clients.session_mut(key)?.take_membership(room_key)?;
        self.expiring.remove(key, room_key);
        clients.rooms_changed(key);
        if let Some(cursor) = clients.cursor(key) {
            cursor.leave(room);
        }
        if let Some(moved) = self.local.leave(room_key, membership.slot) {
            let other = membership_mut(clients, moved.key, room_key);
            other.expect("who has a slot in a room has its membership").slot = moved.slot;
        }
        Some(membership.right)
    }

    /// Ends the subscriptions of rooms without members here.
    fn end_vacated(&mut self) {
        for room in self.local.vacated() {
            self.exit_if_unused(&room);
        }
    }

    pub fn exit_if_unused(&self, room: &Room) {
        if self.local.find(room).is_none() {
            self.rooms.exit(room, self.mailbox.shard());
        }
    }

    // Delivering.

    /// Queues a delivery of the bus.
    pub fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Event(delivery) => {
                let room = delivery.event.room.clone();
                self.local.enqueue(&room, RoomItem::Event(delivery));
            }
            Inbound::Reset(room, head) => self.local.enqueue(&room, RoomItem::Reset(head)),
        }
    }

    /// Reports whether items are queued.
    pub fn has_work(&self) -> bool {
        self.local.has_work()
    }

    /// Delivers queued items to some of the members.
    pub fn fan_out<L: Link>(&mut self, clients: &mut Clients<L>) {
        self.fanout.turn(&mut self.local, clients);
    }

    /// Delivers a member everything that is queued for it. Returns its position then.
    fn deliver_queued<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, room: &Room) -> Option<Position> {
        let room_key = self.local.find(room)?;
        let membership = clients.session(key)?.membership(room_key)?;
        let (slot, start) = (membership.slot, membership.start);
        let (items, last) = self.local.catch_up(room_key, slot);
        for item in &items {
            self.fanout.deliver_item(&self.local, clients, room_key, key, item);
        }
        last.filter(|last| last.offset >= start)
    }
}

/// Notifies a client that it has left a room.
pub(super) fn notify_left<L: Link>(
    clients: &mut Clients<L>,
    key: Key,
    room: Room,
    change: RoomChange,
    notice: &Notice,
) {
    let notice = notice.clone();
    clients.push(key, &Message::RoomLeft { room, change, notice });
}

/// The answer to a member that joins again without a position.
const fn joined_anew(room: Room, head: Position, roster: Option<Roster>) -> Joined {
    Joined {
        room,
        head,
        recovered: false,
        replayed: 0,
        roster,
    }
}

fn membership_mut<L: Link>(clients: &mut Clients<L>, key: Key, room: RoomKey) -> Option<&mut Membership> {
    clients
        .session_mut(key)
        .and_then(|session| session.membership_mut(room))
}
