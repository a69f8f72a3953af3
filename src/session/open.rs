//! From a token to an open session, and to its end when the token expires.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::entry::{Cause, Entry};
use super::link::Link;
use super::recheck::{Judged, Undecided, judge};
use super::sessions::{Due, Services, Sessions, Ticket};
use super::start::forbidden;
use super::state::Phase;
use super::{FEATURES, JoinOptions, Message, Refusal, RoomChange, Since};
use crate::auth::AuthError;
use crate::error::{CloseReason, ErrorCode};
use crate::event::Timestamp;
use crate::hub::local::Key;
use crate::identity::{ConnectionId, Expiry, Identity};
use crate::notice::Notice;
use crate::policy::{Bearer, Edition, Permit};
use crate::presence::Activity;
use crate::room::Room;

/// Why a token does not open or prolong a session.
#[derive(Debug)]
struct NotOpened {
    refusal: Refusal,
    close: CloseReason,
}

impl From<AuthError> for NotOpened {
    fn from(error: AuthError) -> Self {
        let (code, close) = match error {
            AuthError::Invalid(_) => (ErrorCode::Unauthenticated, CloseReason::Unauthenticated),
            AuthError::Expired => (ErrorCode::TokenExpired, CloseReason::TokenExpired),
            AuthError::Unavailable(_) => (ErrorCode::Unavailable, CloseReason::Overloaded),
        };
        Self {
            refusal: Refusal::new(code, error.to_string()),
            close,
        }
    }
}

struct Opened {
    identity: Identity,
    rooms: Vec<Permit>,
}

/// What a new token makes of a session.
struct Renewed {
    identity: Arc<Identity>,
    /// The rooms it is put into.
    home: Vec<Permit>,
    /// What becomes of the rooms it has joined.
    judged: Judged,
    /// The rules that said so, or older ones.
    edition: Edition,
}

impl<L: Link> Sessions<L> {
    /// Verifies a token and opens the session. `id` is 0 when the token came with the handshake.
    pub(super) fn authenticate(&mut self, key: Key, id: u32, token: String, resume: Vec<(String, Since)>) {
        let Some(ticket) = self.begin(key) else { return };
        let Some(session) = self.session(key) else { return };
        session.phase = Phase::Authenticating;
        let connection = session.connection;
        let services = self.services.clone();
        self.run(async move {
            let opened = verify(&services, &token, connection).await;
            move |sessions: &mut Self| match opened {
                Ok(opened) => sessions.opened(ticket, id, opened, &resume),
                Err(error) => sessions.not_opened(ticket, id, error),
            }
        });
    }

    fn not_opened(&mut self, ticket: Ticket, id: u32, error: NotOpened) {
        if self.alive(ticket).is_none() {
            return;
        }
        tracing::debug!(reason = error.refusal.message, "token refused");
        self.refuse(ticket.key, id, error.refusal);
        self.doom(ticket.key, error.close);
    }

    fn opened(&mut self, ticket: Ticket, id: u32, opened: Opened, resume: &[(String, Since)]) {
        let mut identity = opened.identity;
        identity.tenant = self.tenants.shared(identity.tenant);
        let Some(session) = self.alive(ticket) else { return };
        let identity = Arc::new(identity);
        session.phase = Phase::Open(Arc::clone(&identity));
        if self.services.admission.identify(&identity).is_err() {
            // Not counted in, so not to be counted out.
            let session = self.session(ticket.key).expect("it was found above");
            session.phase = Phase::Authenticating;
            let refusal = Refusal::new(ErrorCode::ConnectionLimit, "too many connections of this user");
            self.refuse(ticket.key, id, refusal);
            self.doom(ticket.key, CloseReason::ConnectionLimit);
            return;
        }
        self.index(ticket.key, &identity);
        self.schedule_expiry(ticket, identity.expiry);
        self.announce_opened(ticket.key, &identity);
        let entries = home_entries(opened.rooms, resume);
        self.enter(ticket, entries, Cause::Opening(id));
    }

    fn announce_opened(&mut self, key: Key, identity: &Identity) {
        let Some(conn) = self.conns.get(key as usize) else {
            return;
        };
        let Some(member) = conn.session.member() else { return };
        let protocol = self.services.encoders[conn.link.protocol().index()].name();
        let opened = Activity::Opened(identity.tenant.clone(), member, protocol.into());
        self.services.rooms.presence().announce(opened);
    }

    /// The session's first message, once it is in its home rooms.
    pub(super) fn connected(&self, key: Key, rooms: Vec<super::Joined>) -> Option<Message> {
        let identity = self.identity(key)?;
        Some(Message::Connected {
            connection: self.conns.get(key as usize)?.session.connection,
            user: identity.user.clone(),
            expiry: identity.expiry,
            heartbeat: self.services.config.load().heartbeat_interval,
            time: Timestamp::now(),
            rooms,
            features: FEATURES,
            server_version: env!("CARGO_PKG_VERSION"),
        })
    }

    /// Replaces the token. User and tenant stay; rooms the new token no longer allows are left.
    pub(super) fn refresh(&mut self, key: Key, id: u32, token: String) {
        let (Some(ticket), Some(old)) = (self.begin(key), self.identity(key)) else {
            return;
        };
        let Some(session) = self.session(key) else { return };
        let connection = session.connection;
        let (joined, seen) = (self.rooms_joined_by_right(key), self.rooms_seen(key));
        let services = self.services.clone();
        self.run(async move {
            let edition = services.policy.edition();
            let refreshed = match verify(&services, &token, connection).await {
                Ok(opened) if opened.identity.user == old.user && opened.identity.tenant == old.tenant => {
                    judge_again(&services, opened, connection, (joined, seen), edition).await
                }
                Ok(_) => Err(forbidden()),
                Err(error) => Err(error.refusal),
            };
            move |sessions: &mut Self| sessions.refreshed(ticket, id, refreshed)
        });
    }

    fn refreshed(&mut self, ticket: Ticket, id: u32, refreshed: Result<Renewed, Refusal>) {
        if self.alive(ticket).is_none() {
            return;
        }
        let Renewed {
            identity,
            home,
            judged,
            edition,
        } = match refreshed {
            Ok(renewed) => renewed,
            Err(refusal) => {
                self.refuse(ticket.key, id, refusal);
                return self.done(ticket);
            }
        };
        if edition != self.services.policy.edition() {
            // The recheck of the new rules may have looked at the old token.
            self.rechecking.look_again(ticket);
        }
        let Some(session) = self.session(ticket.key) else {
            return;
        };
        let expiry = identity.expiry;
        let old = session.identity().cloned();
        session.phase = Phase::Open(Arc::clone(&identity));
        if let Some(old) = old {
            self.unindex(ticket.key, &old);
        }
        self.index(ticket.key, &identity);
        self.schedule_expiry(ticket, expiry);
        self.answer(ticket.key, id, &Message::Refreshed { expiry });
        // The new token may be a revoked one. Rooms that a backend has put the session into are asked about as well.
        let revoked = self.rooms_of(ticket.key).into_iter();
        let revoked = revoked.filter(|room| self.is_revoked(ticket.key, room)).collect();
        self.end_memberships(ticket.key, revoked, &Notice::default());
        self.end_vacated();
        for (room, permit) in judged.joined {
            if let Some(permit) = permit {
                self.keep_until(ticket.key, &room, permit.terms().expires);
            } else if self.leave_room(ticket.key, &room) {
                self.push(
                    ticket.key,
                    &Message::RoomLeft {
                        room,
                        change: RoomChange::TokenChanged,
                        notice: Notice::default(),
                    },
                );
            }
        }
        for room in judged.hidden {
            self.hide_presence(ticket.key, &room);
        }
        let (kept, new): (Vec<_>, Vec<_>) = home
            .into_iter()
            .partition(|permit| self.is_member(ticket.key, permit.room()));
        // A room that was joined for a time may be a home room now.
        for permit in kept {
            self.keep_until(ticket.key, permit.room(), permit.terms().expires);
        }
        let entries: Vec<Entry> = new.into_iter().map(Entry::granted).collect();
        if entries.is_empty() {
            self.done(ticket);
        } else {
            self.enter(
                ticket,
                entries,
                Cause::Server {
                    change: RoomChange::TokenChanged,
                    ends_command: true,
                    tally: None,
                },
            );
        }
    }

    /// Sets the timers of the notice and the end, once the end is near: a client that stays for a day must not leave a
    /// timer for a day behind when it goes. Each is for one token: those of one that was replaced do nothing.
    pub(super) fn schedule_expiry(&mut self, ticket: Ticket, expiry: Expiry) {
        let config = self.services.config.load();
        let (left, notice) = (until(expiry), config.expiry_notice);
        let near = notice + config.heartbeat_interval * 2;
        if let Some(session) = self.session(ticket.key) {
            session.ends_soon = left <= near;
        }
        if left > near {
            return;
        }
        self.schedule(left.saturating_sub(notice), ticket, Due::ExpiryNotice(expiry));
        self.schedule(left, ticket, Due::Expiry(expiry));
    }

    pub(super) fn expiry_notice_due(&mut self, ticket: Ticket, expiry: Expiry) {
        let is_near = until(expiry) <= self.services.config.load().expiry_notice + Duration::from_secs(1);
        // If it is not, the clock was set back: the end will set both timers again.
        if is_near && self.is_token_of(ticket, expiry) {
            self.push(ticket.key, &Message::Expiring { expiry });
        }
    }

    pub(super) fn expiry_due(&mut self, ticket: Ticket, expiry: Expiry) {
        if !self.is_token_of(ticket, expiry) {
            return;
        }
        let left = until(expiry);
        if left.is_zero() {
            let expired = Refusal::new(ErrorCode::TokenExpired, "the token has expired");
            self.refuse(ticket.key, 0, expired);
            self.doom(ticket.key, CloseReason::TokenExpired);
        } else if left < Duration::from_secs(2) {
            // Timers are less precise than tokens.
            self.schedule(left, ticket, Due::Expiry(expiry));
        } else {
            // The clock was set back.
            self.schedule_expiry(ticket, expiry);
        }
    }

    /// Whether the session is there, and its token is the one that ends then.
    fn is_token_of(&mut self, ticket: Ticket, expiry: Expiry) -> bool {
        self.alive(ticket).is_some()
            && self
                .identity(ticket.key)
                .is_some_and(|identity| identity.expiry == expiry)
    }
}

/// The home rooms of a new session, from where it left them if it says so.
fn home_entries(permits: Vec<Permit>, resume: &[(String, Since)]) -> Vec<Entry> {
    let since = |room: &Room| {
        resume
            .iter()
            .find(|(name, _)| name == room.name())
            .map(|(_, since)| *since)
    };
    let entries = permits.into_iter().map(|permit| Entry {
        options: JoinOptions {
            since: since(permit.room()),
            ..JoinOptions::default()
        },
        may_read_history: None,
        permit,
        granted: true,
    });
    entries.collect()
}

/// How long until a token ends, by the wall clock.
fn until(expiry: Expiry) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(expiry.0).saturating_sub(now)
}

async fn verify(services: &Services, token: &str, connection: ConnectionId) -> Result<Opened, NotOpened> {
    let identity = services.auth.authenticate(token).await?;
    let denied = |denied: crate::policy::Denied| {
        tracing::info!(
            rule = denied.rule.as_deref(),
            reason = &*denied.reason,
            "connect denied"
        );
        if denied.undecided {
            return NotOpened {
                refusal: super::start::unavailable(),
                close: CloseReason::Overloaded,
            };
        }
        NotOpened {
            refusal: forbidden(),
            close: CloseReason::Forbidden,
        }
    };
    let admitted = services.policy.admit(&identity, connection).await.map_err(denied)?;
    let (mut identity, mut rooms) = (identity, admitted.rooms);
    if let Some(expires) = admitted.expires {
        identity.expiry = identity.expiry.min(expires);
    }
    let bearer = Bearer {
        identity: &identity,
        connection,
    };
    rooms.extend(services.policy.auto_join(bearer).map_err(denied)?);
    Ok(Opened { identity, rooms })
}

/// Asks again for what was joined and what is seen. Where that cannot be told the new token is refused, and what the old one
/// granted stays until the old one ends.
async fn judge_again(
    services: &Services,
    opened: Opened,
    connection: ConnectionId,
    (joined, seen): (Vec<Room>, Vec<Room>),
    edition: Edition,
) -> Result<Renewed, Refusal> {
    let Opened { identity, rooms: home } = opened;
    let identity = Arc::new(identity);
    let by_right = joined.into_iter();
    let by_right = by_right.filter(|room| home.iter().all(|home| home.room() != room));
    let judged = judge(
        services,
        &identity,
        connection,
        (by_right.collect(), seen),
        Undecided::Ends,
    )
    .await;
    if judged.undecided {
        return Err(super::start::unavailable());
    }
    Ok(Renewed {
        identity,
        home,
        judged,
        edition,
    })
}
