//! Entering rooms: by a command, by a template, by a backend.
//!
//! The order is what makes a join seamless: the shard first holds what arrives, then the bus is subscribed and the start
//! is read, then the member gets the start's replay, what was held after it, and everything live.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join;

use super::clients::{ClientFacts, Key, Ticket};
use super::commands::{forbidden, permit_entry, room_limit, unavailable};
use super::entry::{Entering, EntryCause, EntryFacts, HistoryRight, RoomEntry};
use super::kept::{NotKept, Replaced};
use super::members::{RoomArrival, RoomReplay};
use super::services::Services;
use super::sessions::Sessions;
use super::tally::JoinTally;
use crate::bus::BusUnavailable;
use crate::counters::Recovery;
use crate::error::CloseReason;
use crate::event::Timestamp;
use crate::hub::JoinRefusal;
use crate::policy::{Action, Permit};
use crate::room::Room;
use crate::session::link::Link;
use crate::session::{FEATURES, JoinOptions, Joined, Message, PresenceMode, Refusal, RoomChange};

impl<L: Link> Sessions<L> {
    /// Starts to enter rooms; goes on in [`Self::entered`].
    pub(super) fn enter(&mut self, ticket: Ticket, mut entries: Vec<RoomEntry>, cause: EntryCause) {
        if self.clients.alive(ticket).is_none() {
            return;
        }
        entries.retain(|entry| self.members.begin_join(entry.permit.room(), ticket.key));
        match &cause {
            // A backend is putting the client into this room at this very moment.
            EntryCause::Command(id) if entries.is_empty() => {
                self.clients.refuse(ticket.key, *id, unavailable());
                return self.turns.done(&mut self.clients, ticket);
            }
            // The client is entering it by itself.
            EntryCause::Server { tally: Some(tally), .. } if entries.is_empty() => {
                tally.refuse(JoinRefusal::Unavailable);
            }
            _ => {}
        }
        let Some(session) = self.clients.alive(ticket) else {
            return;
        };
        if !entries.is_empty() {
            session.begin_joining(entries.iter().map(|entry| entry.permit.room().clone()));
        }
        let (services, principal) = (self.services.clone(), self.clients.principal(ticket.key));
        let (subscriber, kept) = (self.members.subscriber(), self.kept.get(ticket.key));
        self.run(async move {
            let mut entering = Entering::with_capacity(entries.len());
            for mut entry in entries {
                if entry.options.since.is_some()
                    && entry.history == HistoryRight::Unasked
                    && let Some(principal) = &principal
                {
                    let asked = services.authorize(principal, entry.permit.room(), Action::History);
                    entry.history = HistoryRight::of(&asked.await);
                }
                let catchup = entry.catchup();
                let bounds = services.config.load().replay;
                let start = services
                    .rooms
                    .enter(&entry.permit, Arc::clone(&subscriber), catchup, bounds);
                let confirming = confirm(&services, entry.permit.room(), &entry.options);
                let (start, confirmed) = join(start, confirming).await;
                let start = start.map_err(|BusUnavailable(_)| unavailable());
                entering.push((entry, EntryFacts { start, confirmed }));
            }
            let kept = match kept {
                Some(kept) => kept.entering(&entering, &cause).await,
                None => Ok(Replaced::new()),
            };
            move |sessions: &mut Self| sessions.entered(ticket, entering, cause, kept)
        });
    }

    pub(super) fn entered(
        &mut self,
        ticket: Ticket,
        entering: Entering,
        cause: EntryCause,
        kept: Result<Replaced, NotKept>,
    ) {
        if self.clients.alive(ticket).is_none() {
            // The client has gone; so may have the last who wanted these rooms.
            for (entry, _) in entering {
                self.members.exit_if_unused(entry.permit.room());
            }
            return;
        }
        let mut replaced = match kept {
            Ok(replaced) => replaced,
            Err(error) => return self.not_kept(ticket, entering, cause, error),
        };
        // The recheck that follows a swap of the rules may have passed this session already.
        let mut started = entering.iter().filter(|(_, found)| found.start.is_ok());
        if started.any(|(entry, _)| self.revocations.is_outdated(&entry.permit)) {
            return self.permit_again(ticket, entering, cause, replaced);
        }
        let (mut joined, leased) = (Vec::with_capacity(entering.len()), self.gate.may_deliver());
        for (entry, EntryFacts { start, confirmed }) in entering {
            let room = entry.permit.room().clone();
            let outcome = match start {
                // The permit may be older than a revocation, and than the token: asked again at the last moment.
                _ if self.revocations.is_revoked(&self.clients, ticket.key, &room) => Err(forbidden()),
                Ok(start) if leased => {
                    let (right, goes_on) = (entry.right(), entry.options.since.is_some());
                    let entry = (&entry.permit, entry.options, right);
                    let admitted = self.members.admit(&mut self.clients, ticket, entry, start, confirmed);
                    if let (true, Ok(arrival)) = (goes_on, &admitted) {
                        self.count_recovery(ticket.key, arrival.joined.recovered);
                    }
                    admitted.map_err(|_| unavailable())
                }
                Ok(_) => Err(unavailable()),
                Err(refusal) => Err(refusal),
            };
            if let Some(session) = self.clients.session_mut(ticket.key) {
                session.end_joining(&room);
            }
            // A join that was called off meanwhile may have subscribed after the room was left.
            if outcome.is_err() && !self.members.abort_join(&room, ticket.key) {
                self.members.exit_if_unused(&room);
            }
            if outcome.is_ok() {
                replaced.retain(|(entered, _)| *entered != room);
            }
            joined.push(outcome);
        }
        if let Some(kept) = self.kept.get(ticket.key) {
            kept.put_back(replaced);
            self.kept_entered(ticket.key);
            // What was put back is written, and nothing else.
            self.save(ticket.key, kept);
        }
        self.reply_entered(ticket, joined, cause);
    }

    /// Counts a join that asked to go on from a position, and the first one of its session as a reconnection.
    fn count_recovery(&mut self, key: Key, recovered: bool) {
        let counters = &self.services.counters;
        counters.recoveries.add(if recovered {
            Recovery::Recovered
        } else {
            Recovery::NotRecovered
        });
        if let Some(session) = self.clients.session_mut(key)
            && !session.rates.facts.note(ClientFacts::RESUMED)
        {
            counters.reconnections.add();
        }
    }

    fn reply_entered(&mut self, ticket: Ticket, joined: Vec<Result<RoomArrival, Refusal>>, cause: EntryCause) {
        let key = ticket.key;
        match cause {
            EntryCause::Opening(id) => {
                // A home room that cannot be entered would be missing silently: the client comes back instead.
                let Ok(arrivals) = joined.into_iter().collect::<Result<Vec<_>, _>>() else {
                    self.clients.refuse(key, id, unavailable());
                    return self.clients.begin_close(key, CloseReason::Overloaded);
                };
                let (rooms, replays): (Vec<_>, Vec<_>) = arrivals.into_iter().map(|a| (a.joined, a.replay)).unzip();
                let kept = self.kept.get(key);
                if kept.is_some_and(|kept| kept.restoring.take().is_some()) {
                    return self.reply_restored(ticket, id, rooms, &replays);
                }
                if let Some(message) = self.connected(key, rooms) {
                    self.clients.answer(key, id, &message);
                }
                self.orders.greet(&mut self.clients, key);
                for replay in &replays {
                    self.members.replay(&mut self.clients, key, replay);
                }
                self.turns.done(&mut self.clients, ticket);
            }
            EntryCause::Command(id) => {
                for outcome in joined {
                    match outcome {
                        Ok(arrival) => {
                            self.clients.answer(key, id, &Message::Joined(arrival.joined));
                            self.members.replay(&mut self.clients, key, &arrival.replay);
                        }
                        Err(refusal) => self.clients.refuse(key, id, refusal),
                    }
                }
                self.turns.done(&mut self.clients, ticket);
            }
            EntryCause::Server {
                change,
                ends_command,
                tally,
            } => {
                for outcome in joined {
                    if let Some(tally) = &tally {
                        tally.joined(outcome.as_ref().map(|_| ()));
                    }
                    let Ok(RoomArrival { joined, replay }) = outcome else {
                        continue;
                    };
                    self.clients.answer(key, 0, &Message::RoomJoined { joined, change });
                    self.members.replay(&mut self.clients, key, &replay);
                }
                if ends_command {
                    self.turns.done(&mut self.clients, ticket);
                }
            }
        }
    }

    /// Goes on with a session where it was. What was missed comes first: a client that has its answer may take anything later
    /// for new.
    fn reply_restored(&mut self, ticket: Ticket, id: u32, rooms: Vec<Joined>, replays: &[RoomReplay]) {
        let key = ticket.key;
        for replay in replays {
            self.members.replay_past(&mut self.clients, key, replay);
        }
        if let Some(message) = self.connected(key, rooms) {
            self.clients.answer(key, id, &message);
        }
        self.announce_opened(key);
        self.orders.greet(&mut self.clients, key);
        for replay in replays {
            self.members.replay_held(&mut self.clients, key, replay);
        }
        self.turns.done(&mut self.clients, ticket);
    }

    /// The session's first message, once it is in its home rooms.
    fn connected(&self, key: Key, rooms: Vec<Joined>) -> Option<Message> {
        let identity = self.clients.identity(key)?;
        Some(Message::Connected {
            connection: self.clients.session(key)?.connection,
            user: identity.user.clone(),
            expiry: identity.expiry,
            heartbeat: self.services.config.load().heartbeat_interval,
            time: Timestamp::now(),
            rooms,
            features: FEATURES,
            server_version: env!("CARGO_PKG_VERSION"),
        })
    }

    /// Asks once more for what rules permitted that are in force no longer; the start of the room stays held.
    fn permit_again(&mut self, ticket: Ticket, mut entering: Entering, cause: EntryCause, replaced: Replaced) {
        if self.clients.alive(ticket).is_none() {
            return;
        }
        let (services, principal) = (self.services.clone(), self.clients.principal(ticket.key));
        self.run(async move {
            for (entry, found) in &mut entering {
                let Some(principal) = principal
                    .as_ref()
                    .filter(|_| services.policy.is_outdated(&entry.permit))
                else {
                    continue;
                };
                match permit_entry(&services, principal, entry.permit.room(), entry.options.clone()).await {
                    // What was read of the past may be read no longer, or now could be: the client asks again.
                    Ok(anew) if anew.history != entry.history => found.start = Err(unavailable()),
                    Ok(anew) => entry.permit = anew.permit,
                    Err(refusal) => found.start = Err(refusal),
                }
            }
            move |sessions: &mut Self| sessions.entered(ticket, entering, cause, Ok(replaced))
        });
    }

    /// Puts clients into a room as a backend's decision; the tally answers when the last one has entered it.
    pub(super) fn order_join(&mut self, keys: Vec<Key>, permit: &Permit, tally: &Rc<JoinTally>) {
        for key in keys {
            let Some(ticket) = self.clients.ticket(key) else {
                continue;
            };
            if self.members.has(&self.clients, key, permit.room()) {
                tally.add(1);
                continue;
            }
            if let Some(refusal) = self.join_refusal(key, permit.room()) {
                tally.refuse(refusal);
                continue;
            }
            let cause = EntryCause::Server {
                change: RoomChange::Backend,
                ends_command: false,
                tally: Some(Rc::clone(tally)),
            };
            self.enter(ticket, vec![RoomEntry::granted(permit.clone())], cause);
        }
    }

    /// Returns the reason why a backend cannot put a client into a room now. A revocation stands above a backend's order: an order that was
    /// held up on its way must not undo one that has been answered.
    fn join_refusal(&mut self, key: Key, room: &Room) -> Option<JoinRefusal> {
        if !self.gate.may_deliver() {
            return Some(JoinRefusal::Unavailable);
        }
        self.clients.identity(key)?;
        if self.revocations.is_revoked(&self.clients, key, room) {
            return Some(JoinRefusal::Revoked);
        }
        let max = self.services.config.load().rooms_max;
        room_limit(&self.clients, &self.members, key, room, max)
            .err()
            .map(|_| JoinRefusal::RoomLimit)
    }
}

/// Waits until this node knows everyone in the room, if the member wants to see them.
pub(super) async fn confirm(services: &Services, room: &Room, options: &JoinOptions) -> bool {
    options.presence == PresenceMode::None || services.rooms.presence().confirm(room).await
}
