//! Leaving rooms, and keeping subscriptions no longer than somebody is there.

use super::link::Link;
use super::sessions::Sessions;
use super::state::Right;
use super::{Message, Refusal};
use crate::hub::local::{Key, RoomKey};
use crate::presence::Departure;
use crate::room::Room;

impl<L: Link> Sessions<L> {
    pub(super) fn leave_command(&mut self, key: Key, id: u32, room: &str) -> Result<(), Refusal> {
        let room = self.room(key, room)?;
        self.leave_room(key, &room);
        self.answer(key, id, &Message::Left { room });
        Ok(())
    }

    pub(super) fn is_member(&self, key: Key, room: &Room) -> bool {
        self.local
            .find(room)
            .is_some_and(|room| self.conns[key as usize].session.membership(room).is_some())
    }

    /// The rooms the client has joined by its own right.
    pub(super) fn rooms_joined_by_right(&self, key: Key) -> Vec<Room> {
        let memberships = self.conns[key as usize].session.memberships.iter();
        memberships
            .filter(|membership| membership.right == Right::Own)
            .map(|own| self.local.room(own.room).clone())
            .collect()
    }

    /// The rooms the client is in by what rules allow, its own right or a template.
    pub(super) fn rooms_by_rules(&self, key: Key) -> Vec<Room> {
        let memberships = self.conns[key as usize].session.memberships.iter();
        memberships
            .filter(|membership| membership.right != Right::Backend)
            .map(|own| self.local.room(own.room).clone())
            .collect()
    }

    /// Returns the right by which the client is in a room, if it is.
    pub(super) fn right(&self, key: Key, room: &Room) -> Option<Right> {
        let room = self.local.find(room)?;
        let membership = self.conns.get(key as usize)?.session.membership(room)?;
        Some(membership.right)
    }

    /// The rooms whose presence a client sees.
    pub(super) fn rooms_seen(&self, key: Key) -> Vec<Room> {
        let memberships = self.conns[key as usize].session.memberships.iter();
        memberships
            .filter(|membership| membership.presence.is_some())
            .map(|own| self.local.room(own.room).clone())
            .collect()
    }

    /// The rooms a client is in.
    pub(super) fn rooms_of(&self, key: Key) -> Vec<Room> {
        let memberships = self.conns[key as usize].session.memberships.iter();
        memberships.map(|own| self.local.room(own.room).clone()).collect()
    }

    /// Takes a client out of a room for good; answers whether it was in it.
    pub(super) fn leave_room(&mut self, key: Key, room: &Room) -> bool {
        self.depart(key, room, Departure::Left)
    }

    fn depart(&mut self, key: Key, room: &Room, departure: Departure) -> bool {
        let member = self.conns.get(key as usize).and_then(|conn| conn.session.member());
        let left = self.detach(key, room).is_some();
        if let Some(member) = member.filter(|_| left) {
            self.services.rooms.presence().leave(room, &member, departure);
        }
        self.end_vacated();
        left
    }

    /// Takes a client out of a room's presence; its membership has ended already.
    pub(super) fn leave_presence(&mut self, key: Key, room: &Room) {
        if let Some(member) = self.session(key).and_then(|session| session.member()) {
            self.services.rooms.presence().leave(room, &member, Departure::Left);
        }
    }

    /// Takes a client whose connection has ended out of every room.
    pub(super) fn leave_all(&mut self, key: Key, departure: Departure) {
        while let Some(membership) = self.conns[key as usize].session.memberships.last() {
            let room = self.local.room(membership.room).clone();
            self.depart(key, &room, departure);
        }
    }

    /// Ends a membership on this shard; presence is not told. Answers by what right it was, if there was one.
    pub(super) fn detach(&mut self, key: Key, room: &Room) -> Option<Right> {
        let room_key = self.local.find(room)?;
        self.unobserve(key, room_key, room);
        let memberships = &mut self.conns[key as usize].session.memberships;
        let index = memberships.iter().position(|membership| membership.room == room_key)?;
        let membership = memberships.swap_remove(index);
        self.expiring.remove(key, room_key);
        let memberships = &mut self.conns[key as usize].session.memberships;
        if memberships.is_empty() {
            *memberships = Vec::new();
        }
        self.take_out(room_key, membership.slot);
        Some(membership.right)
    }

    /// Shows a member no more changes of the room's presence.
    pub(super) fn unobserve(&mut self, key: Key, room_key: RoomKey, room: &Room) {
        let membership = self.session(key).and_then(|session| session.membership_mut(room_key));
        let observed = membership.and_then(|membership| membership.presence.take()).is_some();
        if observed && self.local.observing(room_key, false) {
            self.services.rooms.presence().unobserve(room, self.mailbox.shard());
        }
    }

    fn take_out(&mut self, room: RoomKey, slot: u32) {
        let Some(moved) = self.local.leave(room, slot) else {
            return;
        };
        let membership = self.session(moved.key).and_then(|session| session.membership_mut(room));
        membership.expect("who has a slot in a room has its membership").slot = moved.slot;
    }

    /// Ends the subscriptions of rooms that nobody here is in any longer.
    pub(super) fn end_vacated(&mut self) {
        for room in self.local.vacated() {
            self.exit_if_unused(&room);
        }
    }

    pub(super) fn exit_if_unused(&self, room: &Room) {
        if self.local.find(room).is_none() {
            self.services.rooms.exit(room, self.mailbox.shard());
        }
    }
}
