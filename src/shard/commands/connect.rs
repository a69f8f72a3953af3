//! The connect command: from a token to an open session.

use std::sync::Arc;

use super::{CommandContext, forbidden, unavailable};
use crate::auth::AuthError;
use crate::error::{CloseReason, ErrorCode};
use crate::identity::{ConnectionId, Identity};
use crate::policy::{Bearer, Denied, Permit};
use crate::presence::Activity;
use crate::room::Room;
use crate::session::link::Link;
use crate::session::{JoinOptions, Refusal, Since};
use crate::shard::clients::{Phase, Session};
use crate::shard::entry::{EntryCause, HistoryRight, RoomEntry};
use crate::shard::services::Services;

/// Reason why a token does not open or prolong a session.
#[derive(Debug)]
pub(super) struct ConnectRefused {
    pub refusal: Refusal,
    pub close: CloseReason,
}

impl From<AuthError> for ConnectRefused {
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

/// The outcome of a verified token: the identity, and the rooms it is put into.
pub(super) struct OpenedSession {
    pub identity: Identity,
    pub rooms: Vec<Permit>,
}

impl<L: Link> CommandContext<'_, L> {
    /// Verifies a token and opens the session.
    pub fn connect(&mut self, token: String, resume: Vec<(String, Since)>) {
        let Some(session) = self.session_mut() else { return };
        session.phase = Phase::Authenticating;
        let connection = session.connection;
        let services = self.sessions.services.clone();
        self.wait(async move {
            let opened = verify(&services, &token, connection).await;
            move |command: CommandContext<'_, L>| match opened {
                Ok(opened) => command.opened(opened, &resume),
                Err(error) => command.not_opened(error),
            }
        });
    }

    fn not_opened(mut self, error: ConnectRefused) {
        tracing::debug!(reason = error.refusal.message, "token refused");
        self.refuse(error.refusal);
        self.begin_close(error.close);
    }

    fn opened(mut self, opened: OpenedSession, resume: &[(String, Since)]) {
        let (ticket, mut identity) = (self.ticket, opened.identity);
        self.sessions.clients.share_tenant(&mut identity);
        if self.sessions.services.admission.identify(&identity).is_err() {
            self.refuse(Refusal::new(
                ErrorCode::ConnectionLimit,
                "too many connections of this user",
            ));
            return self.begin_close(CloseReason::ConnectionLimit);
        }
        // From here on it is counted, and counted out when it ends.
        let identity = Arc::new(identity);
        if let Some(session) = self.session_mut() {
            session.phase = Phase::Open(Arc::clone(&identity));
        }
        self.sessions.services.counters.sessions_opened.add();
        self.sessions.clients.index(ticket.key, &identity);
        self.sessions.schedule_expiry(ticket, identity.expiry);
        self.announce_opened(&identity);
        let named = |room: &Room| resume.iter().find(|(name, _)| name == room.name());
        let clients = &mut self.sessions.clients;
        let entries = home_entries(opened.rooms, |room| match named(room) {
            Some((_, since)) => Some(*since),
            None => clients.cursor(ticket.key)?.since(room),
        });
        self.sessions.enter(ticket, entries, EntryCause::Opening(self.id));
    }

    fn announce_opened(&self, identity: &Identity) {
        let member = self.session().and_then(Session::member);
        let (Some(member), Some(protocol)) = (member, self.sessions.clients.protocol_name(self.key())) else {
            return;
        };
        let opened = Activity::Opened(identity.tenant.clone(), member, protocol.into());
        self.sessions.services.rooms.presence().announce(opened);
    }
}

/// The home rooms of a new session, from where it left them if it says so.
fn home_entries(permits: Vec<Permit>, mut since: impl FnMut(&Room) -> Option<Since>) -> Vec<RoomEntry> {
    let entries = permits.into_iter().map(|permit| RoomEntry {
        options: JoinOptions {
            since: since(permit.room()),
            ..JoinOptions::default()
        },
        history: HistoryRight::Unasked,
        permit,
        granted: true,
    });
    entries.collect()
}

pub(super) async fn verify(
    services: &Services,
    token: &str,
    connection: ConnectionId,
) -> Result<OpenedSession, ConnectRefused> {
    let identity = services.auth.authenticate(token).await?;
    let denied = |denied: Denied| {
        tracing::info!(
            rule = denied.rule.as_deref(),
            reason = &*denied.reason,
            "connect denied"
        );
        if denied.undecided {
            return ConnectRefused {
                refusal: unavailable(),
                close: CloseReason::Overloaded,
            };
        }
        ConnectRefused {
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
    Ok(OpenedSession { identity, rooms })
}
