//! Entering rooms: by a command, by a template, by a backend.
//!
//! The order is what makes a join seamless: the shard first holds what arrives, then the bus is subscribed and the start
//! is read, then the member gets the start's replay, what was held after it, and everything live.

use std::num::NonZeroU64;
use std::sync::Arc;

use futures_util::future::join;

use super::entry::{Cause, Entering, Entry, Found};
use super::link::{Kind, Link};
use super::sessions::{Services, Sessions, Ticket};
use super::start::{forbidden, unavailable};
use super::state::{Membership, Right};
use super::{JoinOptions, Joined, Message, PresenceMode, Refusal};
use crate::bus::{BusUnavailable, Subscriber};
use crate::event::Event;
use crate::hub::JoinRefusal;
use crate::hub::local::{Item, Key, RoomKey};
use crate::policy::{Action, Permit, Question};
use crate::position::Position;
use crate::presence::{Observer, Roster};
use crate::room::Room;
use crate::rooms::Start;

impl<L: Link> Sessions<L> {
    /// Starts to enter rooms; goes on in [`Self::entered`].
    pub(super) fn enter(&mut self, ticket: Ticket, mut entries: Vec<Entry>, cause: Cause) {
        if self.alive(ticket).is_none() {
            return;
        }
        entries.retain(|entry| self.local.begin_join(entry.permit.room(), ticket.key).is_some());
        match &cause {
            // A backend is putting the client into this room at this very moment.
            Cause::Command(id) if entries.is_empty() => {
                self.refuse(ticket.key, *id, unavailable());
                return self.done(ticket);
            }
            // The client is entering it by itself.
            Cause::Server { tally: Some(tally), .. } if entries.is_empty() => tally.refuse(JoinRefusal::Unavailable),
            _ => {}
        }
        let Some(session) = self.alive(ticket) else { return };
        if !entries.is_empty() {
            session.begin_joining(entries.iter().map(|entry| entry.permit.room().clone()));
        }
        let (connection, identity) = (session.connection, session.identity().cloned());
        let services = self.services.clone();
        let subscriber = Arc::clone(&self.mailbox) as Arc<dyn Subscriber>;
        self.run(async move {
            let mut entering = Entering::with_capacity(entries.len());
            for mut entry in entries {
                if entry.options.since.is_some()
                    && entry.may_read_history.is_none()
                    && let Some(identity) = &identity
                {
                    let room = entry.permit.room().clone();
                    let question = Question {
                        identity: Arc::clone(identity),
                        connection,
                        room,
                        action: Action::History,
                    };
                    entry.may_read_history = Some(services.policy.authorize(question).await.is_ok());
                }
                let catchup = entry.catchup();
                let bounds = services.config.load().replay;
                let start = services
                    .rooms
                    .enter(&entry.permit, Arc::clone(&subscriber), catchup, bounds);
                let confirming = confirm(&services, entry.permit.room(), &entry.options);
                let (start, confirmed) = join(start, confirming).await;
                let start = start.map_err(|BusUnavailable(_)| unavailable());
                entering.push((entry, Found { start, confirmed }));
            }
            move |sessions: &mut Self| sessions.entered(ticket, entering, cause)
        });
    }

    pub(super) fn entered(&mut self, ticket: Ticket, entering: Entering, cause: Cause) {
        if self.alive(ticket).is_none() {
            // The client has gone; so may have the last who wanted these rooms.
            for (entry, _) in entering {
                self.exit_if_unused(entry.permit.room());
            }
            return;
        }
        // The recheck that follows a swap of the rules may have passed this session already.
        let outdated = |entry: &Entry| self.services.policy.is_outdated(&entry.permit);
        if entering
            .iter()
            .any(|(entry, found)| found.start.is_ok() && outdated(entry))
        {
            return self.permit_again(ticket, entering, cause);
        }
        let (mut joined, leased) = (Vec::with_capacity(entering.len()), self.may_deliver());
        for (entry, Found { start, confirmed }) in entering {
            let room = entry.permit.room().clone();
            let outcome = match start {
                // The permit may be older than a revocation, and than the token: asked again at the last moment.
                _ if self.is_revoked(ticket.key, &room) => Err(forbidden()),
                Ok(start) if leased => self.become_member(ticket, entry, start, confirmed),
                Ok(_) => Err(unavailable()),
                Err(refusal) => Err(refusal),
            };
            self.forget_joining(ticket.key, &room);
            if outcome.is_err() {
                self.local.abort_join(&room, ticket.key);
                self.exit_if_unused(&room);
            }
            joined.push(outcome);
        }
        self.tell_entered(ticket, joined, cause);
        self.end_vacated();
    }

    fn tell_entered(&mut self, ticket: Ticket, joined: Vec<Result<Arrival, Refusal>>, cause: Cause) {
        let key = ticket.key;
        match cause {
            Cause::Opening(id) => {
                // A home room that cannot be entered would be missing silently: the client comes back instead.
                let Ok(arrivals) = joined.into_iter().collect::<Result<Vec<_>, _>>() else {
                    self.refuse(key, id, unavailable());
                    return self.doom(key, crate::error::CloseReason::Overloaded);
                };
                let (rooms, replays): (Vec<_>, Vec<_>) = arrivals.into_iter().map(|a| (a.joined, a.replay)).unzip();
                if let Some(message) = self.connected(key, rooms) {
                    self.answer(key, id, &message);
                }
                self.greet(key);
                for replay in &replays {
                    self.replay(key, replay);
                }
                self.done(ticket);
            }
            Cause::Command(id) => {
                for outcome in joined {
                    match outcome {
                        Ok(arrival) => {
                            self.answer(key, id, &Message::Joined(arrival.joined));
                            self.replay(key, &arrival.replay);
                        }
                        Err(refusal) => self.refuse(key, id, refusal),
                    }
                }
                self.done(ticket);
            }
            Cause::Server {
                change,
                ends_command,
                tally,
            } => {
                for outcome in joined {
                    if let Some(tally) = &tally {
                        tally.joined(outcome.as_ref().map(|_| ()));
                    }
                    let Ok(arrival) = outcome else { continue };
                    self.answer(
                        key,
                        0,
                        &Message::RoomJoined {
                            joined: arrival.joined,
                            change,
                        },
                    );
                    self.replay(key, &arrival.replay);
                }
                if ends_command {
                    self.done(ticket);
                }
            }
        }
    }

    fn become_member(
        &mut self,
        ticket: Ticket,
        entry: Entry,
        start: Start,
        confirmed: bool,
    ) -> Result<Arrival, Refusal> {
        let right = entry.right();
        let Entry { permit, options, .. } = entry;
        let room = permit.room();
        // Joined again: the old membership makes way, without a leave that others would see.
        let was = self.step_aside(ticket.key, room);
        let mode = options.presence;
        let entered = self.local.finish_join(room, ticket.key, start.head).map_err(|_| {
            if was.is_some() {
                self.leave_presence(ticket.key, room);
            }
            unavailable()
        })?;
        let roster = self.show_presence(ticket.key, entered.room, &permit, options, confirmed);
        let membership = Membership {
            room: entered.room,
            slot: entered.slot,
            start: start.head.offset,
            presence: roster.as_ref().and_then(|roster| NonZeroU64::new(roster.version)),
            mode,
            right: right.max(was.unwrap_or(right)),
        };
        // What a backend granted it also ends; the client's own right has nothing to do with it.
        let expires = permit.terms().expires.filter(|_| membership.right == Right::Own);
        self.conns[ticket.key as usize].session.add_membership(membership);
        self.keep_until(ticket.key, room, expires);
        let joined = Joined {
            room: room.clone(),
            head: start.head,
            recovered: start.recovered,
            replayed: u32::try_from(start.replay.len()).unwrap_or(u32::MAX),
            roster,
        };
        Ok(Arrival {
            joined,
            replay: Replay {
                room: entered.room,
                past: start.replay,
                held: entered.held,
            },
        })
    }

    /// Enters a member into the room's presence; answers the roster if it wants to see it. `confirmed` says whether
    /// everyone who is there is known.
    pub(super) fn show_presence(
        &mut self,
        key: Key,
        room_key: RoomKey,
        permit: &Permit,
        options: JoinOptions,
        confirmed: bool,
    ) -> Option<Roster> {
        let (room, presence) = (permit.room(), Arc::clone(self.services.rooms.presence()));
        let member = self.session(key).and_then(|session| session.member())?;
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

    /// Ends the membership of a client that is about to enter the room anew, after it has got what is in line for it.
    fn step_aside(&mut self, key: Key, room: &Room) -> Option<Right> {
        self.hand_line(key, room);
        self.detach(key, room)
    }

    /// Hands a member everything that is in line for it; answers where it stands then.
    pub(super) fn hand_line(&mut self, key: Key, room: &Room) -> Option<Position> {
        let room_key = self.local.find(room)?;
        let membership = self.session(key)?.membership(room_key)?;
        let (slot, start) = (membership.slot, membership.start);
        let (items, last) = self.local.catch_up(room_key, slot);
        for item in &items {
            self.hand_one(room_key, key, item);
        }
        last.filter(|last| last.offset >= start)
    }

    fn replay(&mut self, key: Key, replay: &Replay) {
        for event in &replay.past {
            self.send_event(key, event, Kind::Answer);
        }
        for item in &replay.held {
            self.hand_one(replay.room, key, item);
        }
    }

    fn send_event(&mut self, key: Key, event: &Event, kind: Kind) {
        let Some(encoder) = self.encoder(key) else { return };
        let session = &self.conns[key as usize].session;
        let excepted = session
            .identity()
            .is_some_and(|identity| event.except.covers(session.connection, &identity.user));
        if !excepted {
            self.send(key, &encoder.event(event), kind);
        } else if event.link.is_some()
            && let Some(frame) = encoder.passed(event)
        {
            self.send(key, &frame, kind);
        }
    }

    fn forget_joining(&mut self, key: Key, room: &Room) {
        if let Some(session) = self.session(key) {
            session.end_joining(room);
        }
    }
}

/// Makes sure that everyone in a room is known to this node, for a member that wants to see them.
pub(super) async fn confirm(services: &Services, room: &Room, options: &JoinOptions) -> bool {
    options.presence == PresenceMode::None || services.rooms.presence().confirm(room).await
}

/// A room that was entered, and what its new member gets first.
#[derive(Debug)]
struct Arrival {
    joined: Joined,
    replay: Replay,
}

#[derive(Debug)]
struct Replay {
    room: RoomKey,
    past: Vec<Arc<Event>>,
    held: Vec<Item>,
}
