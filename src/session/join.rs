//! The join command: asks for the permits, then enters the room. Who is in it already may only want another presence.

use std::num::NonZeroU64;
use std::sync::Arc;

use tracing::Instrument;

use super::enter::confirm;
use super::entry::{Cause, Entry};
use super::link::Link;
use super::sessions::{Services, Sessions, Ticket};
use super::start::{forbidden, not_open, unavailable};
use super::state::Right;
use super::{JoinOptions, Joined, Message, PresenceMode, Refusal, RoomChange};
use crate::error::{CloseReason, ErrorCode};
use crate::hub::local::Key;
use crate::identity::Identity;
use crate::policy::{Action, Denied, Question};
use crate::room::Room;

impl<L: Link> Sessions<L> {
    /// The join command: asks for the permits, then enters.
    pub(super) fn join(&mut self, key: Key, id: u32, room: &str, options: JoinOptions) -> Result<(), Refusal> {
        let room = self.room(key, room)?;
        let config = self.services.config.load();
        if options
            .state
            .as_ref()
            .is_some_and(|state| state.as_str().len() > config.state_bytes_max)
        {
            let message = format!("a presence state has at most {} bytes", config.state_bytes_max);
            return Err(Refusal::new(ErrorCode::PresenceTooLarge, message));
        }
        // What a node knows without a lease may be old: a refusal by that would be untrue as well.
        if !self.may_deliver() {
            return Err(unavailable());
        }
        self.check_room_limit(key, &room)?;
        let identity = self.identity(key).ok_or_else(not_open)?;
        let Some(ticket) = self.begin(key) else { return Ok(()) };
        self.ask_to_enter(ticket, id, identity, room, options);
        Ok(())
    }

    fn ask_to_enter(&mut self, ticket: Ticket, id: u32, identity: Arc<Identity>, room: Room, options: JoinOptions) {
        let connection = self.conns[ticket.key as usize].session.connection;
        let services = self.services.clone();
        self.run(
            async move {
                let ask = |action| Question {
                    identity: Arc::clone(&identity),
                    connection,
                    room: room.clone(),
                    action,
                };
                let entry = permit_entry(&services, ask, options).await;
                move |sessions: &mut Self| sessions.permitted(ticket, id, entry)
            }
            .instrument(tracing::debug_span!("session.join")),
        );
    }

    /// Asks once more for what older rules permitted.
    fn permit_anew(&mut self, ticket: Ticket, id: u32, entry: Entry) {
        if let Some(identity) = self.identity(ticket.key) {
            self.ask_to_enter(ticket, id, identity, entry.permit.room().clone(), entry.options);
        }
    }

    pub(super) fn check_room_limit(&mut self, key: Key, room: &Room) -> Result<(), Refusal> {
        let max = self.services.config.load().rooms_max;
        let known = self.local.find(room);
        let Some(session) = self.session(key) else {
            return Ok(());
        };
        let member = known.is_some_and(|room| session.membership(room).is_some());
        if !member && session.memberships.len() + session.joining().len() >= max {
            return Err(Refusal::new(
                ErrorCode::RoomLimit,
                format!("a connection is in at most {max} rooms"),
            ));
        }
        Ok(())
    }

    fn permitted(&mut self, ticket: Ticket, id: u32, entry: Result<Entry, Refusal>) {
        if self.alive(ticket).is_none() {
            return;
        }
        let leased = self.may_deliver();
        let allowed = |entry: Entry| {
            if self.is_revoked(ticket.key, entry.permit.room()) {
                return Err(forbidden());
            }
            if leased { Ok(entry) } else { Err(unavailable()) }
        };
        match entry.and_then(allowed) {
            Ok(entry) if entry.is_change_only() && self.is_member(ticket.key, entry.permit.room()) => {
                let services = self.services.clone();
                self.run(async move {
                    let confirmed = confirm(&services, entry.permit.room(), &entry.options).await;
                    move |sessions: &mut Self| sessions.change_membership(ticket, id, entry, confirmed)
                });
            }
            Ok(entry) => self.enter(ticket, vec![entry], Cause::Command(id)),
            Err(refusal) => {
                self.refuse(ticket.key, id, refusal);
                self.done(ticket);
            }
        }
    }

    /// Joined again without a position: only presence and state change, and nothing of the stream is lost or repeated.
    fn change_membership(&mut self, ticket: Ticket, id: u32, entry: Entry, confirmed: bool) {
        if self.alive(ticket).is_none() {
            return;
        }
        if self.services.policy.is_outdated(&entry.permit) {
            return self.permit_anew(ticket, id, entry);
        }
        let outcome = if self.is_revoked(ticket.key, entry.permit.room()) {
            Err(forbidden())
        } else if self.may_deliver() {
            self.changed_membership(ticket, entry, confirmed)
        } else {
            Err(unavailable())
        };
        match outcome {
            Ok(joined) => self.answer(ticket.key, id, &Message::Joined(joined)),
            Err(refusal) => self.refuse(ticket.key, id, refusal),
        }
        self.done(ticket);
    }

    /// The member may have been taken out of the room since it asked.
    fn changed_membership(&mut self, ticket: Ticket, entry: Entry, confirmed: bool) -> Result<Joined, Refusal> {
        let room = entry.permit.room().clone();
        let head = self.hand_line(ticket.key, &room).ok_or_else(unavailable)?;
        let room_key = self.local.find(&room).ok_or_else(unavailable)?;
        self.unobserve(ticket.key, room_key, &room);
        let (mode, expires) = (entry.options.presence, entry.permit.terms().expires);
        let roster = self.show_presence(ticket.key, room_key, &entry.permit, entry.options, confirmed);
        if let Some(membership) = self
            .session(ticket.key)
            .and_then(|session| session.membership_mut(room_key))
        {
            membership.presence = roster.as_ref().and_then(|roster| NonZeroU64::new(roster.version));
            membership.mode = mode;
            let expires = expires.filter(|_| membership.right == Right::Own);
            self.keep_until(ticket.key, &room, expires);
        }
        Ok(Joined {
            room,
            head,
            recovered: false,
            replayed: 0,
            roster,
        })
    }
}

impl<L: Link> Sessions<L> {
    /// A new token, or new rules, do not allow the presence of a room any more: the member stays, and sees nothing more of it. It is told
    /// as if the server had joined it without presence; nothing of the stream is lost or repeated.
    pub(super) fn hide_presence(&mut self, key: Key, room: &Room) {
        let Some(room_key) = self.local.find(room) else { return };
        let Some(membership) = self.session(key).and_then(|session| session.membership_mut(room_key)) else {
            return;
        };
        membership.mode = PresenceMode::None;
        // First, so that no change in line is handed out either.
        self.unobserve(key, room_key, room);
        let head = if self.may_deliver() {
            self.hand_line(key, room)
        } else {
            None
        };
        let Some(head) = head else {
            // It could not be told where it stands, and must not keep a list that it believes to be current.
            return self.doom(key, CloseReason::Overloaded);
        };
        let joined = Joined {
            room: room.clone(),
            head,
            recovered: false,
            replayed: 0,
            roster: None,
        };
        let change = RoomChange::TokenChanged;
        self.push(key, &Message::RoomJoined { joined, change });
    }
}

pub(super) async fn permit_entry(
    services: &Services,
    ask: impl Fn(Action) -> Question,
    options: JoinOptions,
) -> Result<Entry, Refusal> {
    let denied = |denied: Denied| {
        tracing::debug!(rule = denied.rule.as_deref(), reason = &*denied.reason, "join denied");
        forbidden()
    };
    let permit = services.policy.authorize(ask(Action::Join)).await.map_err(denied)?;
    if options.presence != PresenceMode::None {
        services.policy.authorize(ask(Action::Presence)).await.map_err(denied)?;
    }
    let mut may_read_history = None;
    if options.since.is_some() {
        may_read_history = Some(services.policy.authorize(ask(Action::History)).await.is_ok());
    } else if options.rewind > 0 {
        services.policy.authorize(ask(Action::History)).await.map_err(denied)?;
        may_read_history = Some(true);
    }
    Ok(Entry {
        permit,
        options,
        may_read_history,
        granted: false,
    })
}
