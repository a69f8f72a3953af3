//! The presence of members: what others see of them, and what they see of others.

use std::sync::Arc;

use super::{RoomMembers, joined_anew, membership_mut};
use crate::error::CloseReason;
use crate::policy::Permit;
use crate::presence::{Change, Departure, Observer, Roster, StateTooLarge};
use crate::room::Room;
use crate::session::link::Link;
use crate::session::{JoinOptions, Message, PresenceMode, RoomChange};
use crate::shard::clients::{Clients, Key, Session};
use crate::shard::local::{RoomItem, RoomKey};

/// The most items queued in a room while the lease does not hold. Beyond, observers of presence are closed; events wait in the
/// mailbox.
const LINE_MAX: usize = 4096;

impl RoomMembers {
    /// Enters a member into the room's presence; answers the roster if it wants to see it.
    pub(super) fn show_presence<L: Link>(
        &mut self,
        clients: &Clients<L>,
        (key, room_key): (Key, RoomKey),
        permit: &Permit,
        options: JoinOptions,
        confirmed: bool,
    ) -> Option<Roster> {
        let (room, presence) = (permit.room(), self.rooms.presence());
        let member = clients.session(key).and_then(Session::member)?;
        let state = options.state.or_else(|| permit.terms().state.clone());
        if presence.enter(room, &member, state).is_err() {
            tracing::warn!("checked presence state refused");
        }
        let detail = options.presence.detail()?;
        self.local.observing(room_key, true);
        let observer = Arc::clone(&self.mailbox) as Arc<dyn Observer>;
        let mut roster = presence.observe(room, observer, detail);
        roster.partial = !confirmed;
        if let (PresenceMode::Others, Some(members)) = (options.presence, &mut roster.members) {
            members.retain(|one| one.user != member.user);
        }
        Some(roster)
    }

    /// Sets what a member says about itself; `None` when it is no member.
    pub fn set_state<L: Link>(
        &self,
        clients: &Clients<L>,
        key: Key,
        room: &Room,
        state: Option<crate::json::Json>,
    ) -> Option<Result<(), StateTooLarge>> {
        self.membership(clients, key, room)?;
        let member = clients.session(key).and_then(Session::member)?;
        Some(self.rooms.presence().enter(room, &member, state))
    }

    /// A new token, or new rules, do not allow the presence of a room any more: the member stays, and sees nothing more of
    /// it. It is told as if the server had joined it without presence; nothing of the stream is lost or repeated.
    pub fn hide_presence<L: Link>(&mut self, clients: &mut Clients<L>, may_deliver: bool, key: Key, room: &Room) {
        let Some(room_key) = self.local.find(room) else { return };
        let Some(membership) = membership_mut(clients, key, room_key) else {
            return;
        };
        membership.mode = PresenceMode::None;
        clients.rooms_changed(key);
        // First, so that no change in line is handed out either.
        self.unobserve(clients, key, room_key);
        let head = may_deliver.then(|| self.deliver_queued(clients, key, room)).flatten();
        let Some(head) = head else {
            // It could not be told where it stands, and must not keep a list that it believes to be current.
            return clients.begin_close(key, CloseReason::Overloaded);
        };
        let (joined, change) = (joined_anew(room.clone(), head, None), RoomChange::TokenChanged);
        clients.push(key, &Message::RoomJoined { joined, change });
    }

    /// Takes a client out of a room's presence; its membership has ended already.
    pub(super) fn leave_presence<L: Link>(&self, clients: &Clients<L>, key: Key, room: &Room, departure: Departure) {
        if let Some(member) = clients.session(key).and_then(Session::member) {
            self.rooms.presence().leave(room, &member, departure);
        }
    }

    /// Shows a member no more changes of the room's presence.
    pub(super) fn unobserve<L: Link>(&mut self, clients: &mut Clients<L>, key: Key, room: RoomKey) {
        let membership = membership_mut(clients, key, room);
        let observed = membership.and_then(|membership| membership.presence.take()).is_some();
        if observed && self.local.observing(room, false) {
            self.rooms
                .presence()
                .unobserve(self.local.room(room), self.mailbox.shard());
        }
    }

    /// Queues a change of presence.
    pub fn presence_changed<L: Link>(&mut self, clients: &mut Clients<L>, is_lapsed: bool, change: Arc<Change>) {
        let room = change.room.clone();
        if is_lapsed && self.local.queued(&room) >= LINE_MAX {
            return self.close_observers(clients, &room);
        }
        self.local.enqueue(&room, RoomItem::Presence(change));
    }

    /// Closes the observers of a room's presence: the changes they miss cannot be delivered one by one any more.
    fn close_observers<L: Link>(&self, clients: &mut Clients<L>, room: &Room) {
        let Some(room) = self.local.find(room) else { return };
        for key in self.local.members(room) {
            if membership_mut(clients, key, room).is_some_and(|membership| membership.presence.is_some()) {
                clients.begin_close(key, CloseReason::Overloaded);
            }
        }
    }
}
