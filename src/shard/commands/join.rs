//! The join command: asks for the permits, then enters the room. Who is in it already may only want another presence.

use tracing::Instrument;

use super::{CommandContext, forbidden, room_limit, unavailable};
use crate::error::ErrorCode;
use crate::policy::{Action, Denied};
use crate::room::Room;
use crate::session::link::Link;
use crate::session::{JoinOptions, Joined, Message, PresenceMode, Refusal};
use crate::shard::enter::confirm;
use crate::shard::entry::{EntryCause, HistoryRight, RoomEntry};
use crate::shard::services::{Principal, Services};
use crate::shard::sessions::Sessions;

impl<L: Link> CommandContext<'_, L> {
    /// The join command: asks for the permits, then enters.
    pub(super) fn join(&mut self, room: &str, mut options: JoinOptions) -> Result<(), Refusal> {
        let room = self.room(room)?;
        if options.since.is_none() {
            let cursor = self.sessions.clients.cursor(self.key());
            options.since = cursor.and_then(|cursor| cursor.since(&room));
        }
        let config = self.sessions.services.config.load();
        if options
            .state
            .as_ref()
            .is_some_and(|state| state.as_str().len() > config.state_bytes_max)
        {
            let message = format!("a presence state has at most {} bytes", config.state_bytes_max);
            return Err(Refusal::new(ErrorCode::PresenceTooLarge, message));
        }
        let Sessions { clients, members, .. } = &*self.sessions;
        room_limit(clients, members, self.key(), &room, config.rooms_max)?;
        let principal = self.principal()?;
        self.ask_to_enter(principal, room, options);
        Ok(())
    }

    fn ask_to_enter(&mut self, principal: Principal, room: Room, options: JoinOptions) {
        let services = self.sessions.services.clone();
        self.wait(
            async move {
                let entry = permit_entry(&services, &principal, &room, options).await;
                move |command: CommandContext<'_, L>| command.permitted(entry)
            }
            .instrument(tracing::debug_span!("session.join")),
        );
    }

    fn permitted(mut self, entry: Result<RoomEntry, Refusal>) {
        let checked = entry.and_then(|entry| {
            self.check_revoked(entry.permit.room())?;
            self.check_lease()?;
            Ok(entry)
        });
        let Sessions {
            clients,
            members,
            services,
            ..
        } = &*self.sessions;
        match checked {
            Ok(entry) if entry.is_change_only() && members.has(clients, self.key(), entry.permit.room()) => {
                let services = services.clone();
                self.wait(async move {
                    let confirmed = confirm(&services, entry.permit.room(), &entry.options).await;
                    move |command: CommandContext<'_, L>| command.change_membership(entry, confirmed)
                });
            }
            Ok(entry) => self
                .sessions
                .enter(self.ticket, vec![entry], EntryCause::Command(self.id)),
            Err(refusal) => self.end(Err(refusal)),
        }
    }

    /// Joined again without a position: only presence and state change, and nothing of the stream is lost or repeated.
    fn change_membership(mut self, entry: RoomEntry, confirmed: bool) {
        if self.sessions.revocations.is_outdated(&entry.permit)
            && let Ok(principal) = self.principal()
        {
            // Older rules permitted it.
            let room = entry.permit.room().clone();
            return self.ask_to_enter(principal, room, entry.options);
        }
        let (room, terms) = (entry.permit.room().clone(), entry.permit.terms());
        let state = entry.options.state.clone().or_else(|| terms.state.clone());
        let outcome = self.changed_membership(entry, confirmed);
        match (outcome, self.sessions.kept.get(self.key())) {
            (Ok(joined), Some(kept)) => {
                kept.set_state(&room, state);
                self.answer_kept(Message::Joined(joined));
            }
            (outcome, _) => self.end(outcome.map(Message::Joined)),
        }
    }

    fn changed_membership(&mut self, entry: RoomEntry, confirmed: bool) -> Result<Joined, Refusal> {
        self.check_revoked(entry.permit.room())?;
        self.check_lease()?;
        let Sessions { clients, members, .. } = &mut *self.sessions;
        let changed = members.change(clients, self.ticket.key, (&entry.permit, entry.options), confirmed);
        // The member may have been taken out of the room since it asked.
        changed.ok_or_else(unavailable)
    }
}

/// Asks the policy for everything that a join needs.
pub(in crate::shard) async fn permit_entry(
    services: &Services,
    principal: &Principal,
    room: &Room,
    options: JoinOptions,
) -> Result<RoomEntry, Refusal> {
    let denied = |denied: Denied| {
        tracing::debug!(rule = denied.rule.as_deref(), reason = &*denied.reason, "join denied");
        forbidden()
    };
    let ask = |action| services.authorize(principal, room, action);
    let permit = ask(Action::Join).await.map_err(denied)?;
    if options.presence != PresenceMode::None {
        ask(Action::Presence).await.map_err(denied)?;
    }
    let mut history = HistoryRight::Unasked;
    if options.since.is_some() {
        history = HistoryRight::of(&ask(Action::History).await);
    } else if options.rewind > 0 {
        ask(Action::History).await.map_err(denied)?;
        history = HistoryRight::Granted;
    }
    Ok(RoomEntry {
        permit,
        options,
        history,
        granted: false,
    })
}
