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
use crate::session::recovery::Claim;
use crate::session::{JoinOptions, Refusal, Since};
use crate::shard::clients::{Key, Phase};
use crate::shard::entry::{EntryCause, HistoryRight, RoomEntry};
use crate::shard::restore::{TakenSession, claimed};
use crate::shard::services::Services;
use crate::shard::sessions::Sessions;

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
pub(in crate::shard) struct OpenedSession {
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
        let claim = self.claim();
        self.wait(async move {
            let verified = match claim {
                None => verify(&services, &token, connection).await.map(|opened| (opened, None)),
                Some((claim, protocol)) => recover(&services, &token, connection, &claim, protocol).await,
            };
            move |command: CommandContext<'_, L>| match verified {
                Ok((opened, taken)) => command.opened(opened, &resume, taken),
                Err(error) => command.not_opened(error),
            }
        });
    }

    /// The claim to an earlier session with which the client has come, and its protocol.
    fn claim(&mut self) -> Option<(Box<Claim>, &'static str)> {
        let claim = self.sessions.clients.recovery(self.key())?.claim.take()?;
        Some((claim, self.sessions.clients.protocol_name(self.key())?))
    }

    fn not_opened(mut self, error: ConnectRefused) {
        tracing::debug!(reason = error.refusal.message, "token refused");
        self.refuse(error.refusal);
        self.begin_close(error.close);
    }

    fn opened(mut self, opened: OpenedSession, resume: &[(String, Since)], taken: Option<TakenSession>) {
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
        if let Some(taken) = taken {
            // Announced once it is known that it goes on.
            self.sessions.clients.rename(ticket.key, taken.connection);
            self.sessions.kept.insert(ticket.key, taken.kept);
            return self.sessions.enter(ticket, taken.entries, EntryCause::Opening(self.id));
        }
        self.sessions.announce_opened(ticket.key);
        self.sessions.keep(ticket.key, &identity);
        let named = |room: &Room| resume.iter().find(|(name, _)| name == room.name());
        let clients = &mut self.sessions.clients;
        let entries = home_entries(opened.rooms, |room| match named(room) {
            Some((_, since)) => Some(*since),
            None => clients.cursor(ticket.key)?.since(room),
        });
        self.sessions.enter(ticket, entries, EntryCause::Opening(self.id));
    }
}

impl<L: Link> Sessions<L> {
    pub(in crate::shard) fn announce_opened(&self, key: Key) {
        let session = self.clients.session(key);
        let (Some(session), Some(protocol)) = (session, self.clients.protocol_name(key)) else {
            return;
        };
        let (Some(identity), Some(member)) = (session.identity(), session.member()) else {
            return;
        };
        let opened = Activity::Opened(identity.tenant.clone(), member, protocol.into());
        self.services.rooms.presence().announce(opened);
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

/// Verifies a token, and takes over the session that is claimed with it. A claim is worth nothing without a token that opens a
/// session by itself.
async fn recover(
    services: &Services,
    token: &str,
    connection: ConnectionId,
    claim: &Claim,
    protocol: &str,
) -> Result<(OpenedSession, Option<TakenSession>), ConnectRefused> {
    let identity = services.auth.authenticate(token).await?;
    if let Some(claimed) = claimed(services, &identity, claim, protocol).await {
        let opened = admit(services, identity.clone(), claimed.connection()).await?;
        if let Some(taken) = claimed.take(services, &opened, claim, token).await {
            return Ok((opened, Some(taken)));
        }
    }
    Ok((admit(services, identity, connection).await?, None))
}

pub(super) async fn verify(
    services: &Services,
    token: &str,
    connection: ConnectionId,
) -> Result<OpenedSession, ConnectRefused> {
    let identity = services.auth.authenticate(token).await?;
    admit(services, identity, connection).await
}

/// Asks whether an identity may connect, and which rooms it is put into.
async fn admit(
    services: &Services,
    identity: Identity,
    connection: ConnectionId,
) -> Result<OpenedSession, ConnectRefused> {
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
