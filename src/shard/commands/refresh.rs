//! The refresh command: a new token takes the place of the session's. User and tenant stay; rooms the new token no longer
//! allows are left.

use std::sync::Arc;

use super::connect::{OpenedSession, verify};
use super::{CommandContext, forbidden, unavailable};
use crate::identity::{ConnectionId, Identity};
use crate::notice::Notice;
use crate::policy::{Edition, Permit};
use crate::room::Room;
use crate::session::link::Link;
use crate::session::{Message, Refusal, RoomChange};
use crate::shard::clients::{MembershipRight, Phase};
use crate::shard::entry::{EntryCause, RoomEntry};
use crate::shard::recheck::{RecheckVerdict, Undecided, judge};
use crate::shard::services::{Principal, Services};
use crate::shard::sessions::Sessions;

/// The outcome of a new token for a session.
struct RenewedSession {
    identity: Arc<Identity>,
    /// The rooms it is put into.
    home: Vec<Permit>,
    /// The verdict on the rooms it has joined.
    judged: RecheckVerdict,
    /// The rules that said so, or older ones.
    edition: Edition,
}

impl<L: Link> CommandContext<'_, L> {
    pub(super) fn refresh(&mut self, token: String) {
        let Ok(Principal {
            identity: old,
            connection,
        }) = self.principal()
        else {
            return;
        };
        let Sessions { clients, members, .. } = &*self.sessions;
        let joined = members.rooms_of(clients, self.key(), |membership| {
            membership.right == MembershipRight::Own
        });
        let seen = members.rooms_of(clients, self.key(), |membership| membership.presence.is_some());
        let services = self.sessions.services.clone();
        self.wait(async move {
            let edition = services.policy.edition();
            let refreshed = match verify(&services, &token, connection).await {
                Ok(opened) if opened.identity.user == old.user && opened.identity.tenant == old.tenant => {
                    judge_again(&services, opened, connection, (joined, seen), edition).await
                }
                Ok(_) => Err(forbidden()),
                Err(error) => Err(error.refusal),
            };
            move |command: CommandContext<'_, L>| match refreshed {
                Ok(renewed) => command.refreshed(renewed),
                Err(refusal) => command.end(Err(refusal)),
            }
        });
    }

    fn refreshed(mut self, renewed: RenewedSession) {
        let (ticket, key) = (self.ticket, self.ticket.key);
        let RenewedSession {
            identity,
            home,
            judged,
            edition,
        } = renewed;
        if edition != self.sessions.services.policy.edition() {
            // The recheck of the new rules may have looked at the old token.
            self.sessions.recheck.look_again(ticket);
        }
        self.replace_identity(&identity);
        self.answer(&Message::Refreshed {
            expiry: identity.expiry,
        });
        let Sessions {
            clients,
            members,
            revocations,
            ..
        } = &mut *self.sessions;
        // The new token may be a revoked one. Rooms that a backend has put the session into are asked about as well.
        revocations.check_again(clients, members, key);
        for (room, permit) in judged.joined {
            if let Some(permit) = permit {
                members.keep_until(key, &room, permit.terms().expires);
            } else {
                members.send_away(clients, key, room, RoomChange::TokenChanged, &Notice::default());
            }
        }
        self.sessions.hide(key, judged.hidden);
        let Sessions { clients, members, .. } = &mut *self.sessions;
        let (kept, new): (Vec<_>, Vec<_>) = home
            .into_iter()
            .partition(|permit| members.has(clients, key, permit.room()));
        // A room that was joined for a time may be a home room now.
        for permit in kept {
            members.keep_until(key, permit.room(), permit.terms().expires);
        }
        let entries: Vec<RoomEntry> = new.into_iter().map(RoomEntry::granted).collect();
        if entries.is_empty() {
            return self.done();
        }
        let cause = EntryCause::Server {
            change: RoomChange::TokenChanged,
            ends_command: true,
            tally: None,
        };
        self.sessions.enter(ticket, entries, cause);
    }

    fn replace_identity(&mut self, identity: &Arc<Identity>) {
        let (ticket, key) = (self.ticket, self.ticket.key);
        let Some(session) = self.session_mut() else { return };
        let old = session.identity().cloned();
        session.phase = Phase::Open(Arc::clone(identity));
        if let Some(old) = old {
            self.sessions.clients.unindex(key, &old);
        }
        self.sessions.clients.index(key, identity);
        self.sessions.schedule_expiry(ticket, identity.expiry);
    }
}

/// Asks again for what was joined and what is seen. Where that cannot be told the new token is refused, and what the old one
/// granted stays until the old one ends.
async fn judge_again(
    services: &Services,
    opened: OpenedSession,
    connection: ConnectionId,
    (joined, seen): (Vec<Room>, Vec<Room>),
    edition: Edition,
) -> Result<RenewedSession, Refusal> {
    let OpenedSession { identity, rooms: home } = opened;
    let principal = Principal {
        identity: Arc::new(identity),
        connection,
    };
    let by_right = joined.into_iter();
    let by_right = by_right.filter(|room| home.iter().all(|home| home.room() != room));
    let judged = judge(services, &principal, (by_right.collect(), seen), Undecided::Ends).await;
    if judged.undecided {
        return Err(unavailable());
    }
    Ok(RenewedSession {
        identity: principal.identity,
        home,
        judged,
        edition,
    })
}
