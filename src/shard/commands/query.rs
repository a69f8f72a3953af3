//! Queries: the presence of a room, the rooms of a user, the history. The policy decides each one anew.

use std::future::Future;

use super::{CommandContext, forbidden, unavailable};
use crate::bus::{self, BusUnavailable, Page, ReadBounds};
use crate::error::ErrorCode;
use crate::identity::UserId;
use crate::json::Json;
use crate::policy::{Action, Permit};
use crate::presence::{Roster, UserRooms};
use crate::room::Room;
use crate::session::link::Link;
use crate::session::{HistoryFrom, HistoryPage, Message, Refusal, Since};
use crate::shard::services::{Principal, Services};
use crate::shard::sessions::Sessions;

/// The default number of events of a page of history.
const PAGE_DEFAULT: usize = 100;

/// Asks the policy in the name of one client.
struct PolicyQuery {
    services: Services,
    principal: Principal,
}

impl PolicyQuery {
    async fn permit(&self, room: &Room, action: Action) -> Result<Permit, Refusal> {
        let asked = self.services.authorize(&self.principal, room, action).await;
        asked.map_err(|denied| {
            tracing::debug!(rule = denied.rule.as_deref(), reason = &*denied.reason, "query denied");
            forbidden()
        })
    }
}

impl<L: Link> CommandContext<'_, L> {
    pub(super) fn query_presence(&mut self, room: &str) -> Result<(), Refusal> {
        let room = self.room(room)?;
        let listed_max = self.sessions.services.config.load().listed_max;
        self.query(Some(room.clone()), move |asker| async move {
            let permit = asker.permit(&room, Action::Presence).await?;
            let page = asker.services.rooms.members(&permit, None, listed_max).await;
            let members = page.next_after.is_none().then_some(page.members);
            Ok(Message::Presence {
                room,
                roster: Roster {
                    version: 0,
                    counts: page.counts,
                    members,
                    partial: page.partial,
                },
            })
        })
    }

    pub(super) fn query_user_rooms(&mut self, user: &str) -> Result<(), Refusal> {
        let own = self.identity()?.user.clone();
        let refusal = |error: crate::identity::UserIdError| Refusal::new(ErrorCode::InvalidArgument, error.to_string());
        let user = if user.is_empty() {
            own.clone()
        } else {
            UserId::parse(user).map_err(refusal)?
        };
        self.query(None, move |asker| async move {
            let UserRooms { rooms, partial } = asker
                .services
                .rooms
                .rooms_of(&asker.principal.identity.tenant, &user)
                .await;
            let mut rooms: Vec<Room> = rooms.into_iter().map(|(room, _)| room).collect();
            if user != own {
                // Of others a client sees the rooms whose presence it may see.
                let mut visible = Vec::new();
                for room in rooms {
                    if asker.permit(&room, Action::Presence).await.is_ok() {
                        visible.push(room);
                    }
                }
                rooms = visible;
            }
            Ok(Message::UserRooms { user, rooms, partial })
        })
    }

    pub(super) fn query_history(&mut self, room: &str, from: HistoryFrom, limit: u32) -> Result<(), Refusal> {
        let room = self.room(room)?;
        let bounds = self.sessions.services.config.load().replay;
        let wanted = if limit == 0 { PAGE_DEFAULT } else { limit as usize };
        let bounds = ReadBounds {
            events_max: wanted.min(bounds.events_max),
            ..bounds
        };
        self.query(Some(room.clone()), move |asker| async move {
            let permit = asker.permit(&room, Action::History).await?;
            let page = history_page(&asker.services, &permit, from, bounds).await;
            page.map(Message::History).map_err(|BusUnavailable(_)| unavailable())
        })
    }

    pub(super) fn set_state(&mut self, room: &str, state: Option<Json>) -> Result<(), Refusal> {
        let room = self.room(room)?;
        let too_large =
            |error: crate::presence::StateTooLarge| Refusal::new(ErrorCode::PresenceTooLarge, error.to_string());
        let Sessions { clients, members, .. } = &*self.sessions;
        let set = members.set_state(clients, self.key(), &room, state.clone());
        let not_joined = || Refusal::new(ErrorCode::NotJoined, "join the room first");
        set.ok_or_else(not_joined)?.map_err(too_large)?;
        if let Some(kept) = self.sessions.kept.get(self.key()) {
            kept.set_state(&room, state);
            self.sessions.save(self.key(), kept);
        }
        self.answer(&Message::StateSet { room });
        Ok(())
    }

    /// Runs a query. If the room was revoked for this session meanwhile, the answer is not given.
    fn query<F, A>(&mut self, room: Option<Room>, ask: F) -> Result<(), Refusal>
    where
        F: FnOnce(PolicyQuery) -> A,
        A: Future<Output = Result<Message, Refusal>> + 'static,
    {
        let asker = PolicyQuery {
            services: self.sessions.services.clone(),
            principal: self.principal()?,
        };
        let answer = ask(asker);
        self.wait(async move {
            let answer = answer.await;
            move |mut command: CommandContext<'_, L>| {
                let checked = command.check_answer(room.as_ref(), answer);
                command.end(checked);
            }
        });
        Ok(())
    }

    /// Withholds what a revocation, or the loss of the lease, has overtaken.
    fn check_answer(&mut self, room: Option<&Room>, answer: Result<Message, Refusal>) -> Result<Message, Refusal> {
        if let Some(room) = room {
            self.check_revoked(room)?;
        }
        self.check_lease()?;
        let mut answer = answer?;
        if let Message::UserRooms { rooms, .. } = &mut answer {
            rooms.retain(|room| self.check_revoked(room).is_ok());
        }
        Ok(answer)
    }
}

async fn history_page(
    services: &Services,
    permit: &Permit,
    from: HistoryFrom,
    bounds: ReadBounds,
) -> Result<HistoryPage, BusUnavailable> {
    let rooms = &services.rooms;
    let head = rooms.head(permit).await?;
    let room = permit.room().clone();
    let page = match from {
        HistoryFrom::Newest => Some(Page::Newest),
        HistoryFrom::Before(Since::At(position)) if position.epoch == head.epoch => Some(Page::Before(position.offset)),
        HistoryFrom::After(Since::At(position)) if position.epoch == head.epoch => Some(Page::After(position.offset)),
        HistoryFrom::Before(_) | HistoryFrom::After(_) => None,
    };
    let cut = match page {
        Some(page) => {
            let cut = rooms.history(permit, page, bounds).await?;
            let complete = cut.complete || !matches!(page, Page::After(_));
            complete.then_some(cut)
        }
        None => None,
    };
    let complete = cut.is_some();
    let bus::HistoryPage { events, more, .. } = cut.unwrap_or_default();
    Ok(HistoryPage {
        room,
        events,
        head,
        complete,
        more,
    })
}
