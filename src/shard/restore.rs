//! The way of a client back to the session that it had: its claim is checked, the session taken over, and whoever has it fenced.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::clients::{Key, Phase, Ticket};
use super::commands::{CommandContext, OpenedSession, permit_entry};
use super::entry::{Entering, EntryCause, HistoryRight, RoomEntry};
use super::kept::{Kept, NotKept, Restoring};
use super::services::{Principal, Services};
use super::sessions::Sessions;
use crate::error::CloseReason;
use crate::hub::{Audience, Verb};
use crate::identity::{ConnectionId, Identity};
use crate::notice::Notice;
use crate::policy::{Action, Permit, Service};
use crate::position::Position;
use crate::presence::Departure;
use crate::recovery::{Record, RoomRecord, RoomRight, Store, Stored};
use crate::session::link::Link;
use crate::session::recovery::Claim;
use crate::session::{JoinOptions, PresenceMode, Since};

/// The longest wait for the connection that has a session while another one takes it over. Where it cannot be asked its record is
/// taken already: it can tell its client nothing more that is kept.
const FENCE_MAX: Duration = Duration::from_secs(1);

/// The name in whose right rooms are entered again that a backend has granted.
const SERVICE: &str = "recovery";

/// A session that a claim names, and the position of its client in each room.
pub(super) struct ClaimedSession {
    store: Arc<dyn Store>,
    stored: Stored,
    reached: Vec<Position>,
}

/// A session that was taken over.
pub(super) struct TakenSession {
    pub kept: Rc<Kept>,
    pub connection: ConnectionId,
    pub entries: Vec<RoomEntry>,
}

/// Finds the session that a client claims: of the same user, and of which everything is known.
pub(super) async fn claimed(
    services: &Services,
    identity: &Identity,
    claim: &Claim,
    protocol: &str,
) -> Option<ClaimedSession> {
    let store = services.application.store()?;
    let stored = Arc::clone(&store).read(claim.pid.hash()).await.ok()??;
    if !stored.record.is_of(identity, protocol) {
        return None;
    }
    let reached = stored.record.reached(claim)?;
    Some(ClaimedSession { store, stored, reached })
}

impl ClaimedSession {
    /// The connection whose id the session keeps.
    pub const fn connection(&self) -> ConnectionId {
        self.stored.record.connection
    }

    /// Takes the session over, if every room of it is permitted as of now. When it returns, no other connection has it.
    pub async fn take(
        self,
        services: &Services,
        opened: &OpenedSession,
        claim: &Claim,
        token: &str,
    ) -> Option<TakenSession> {
        let (connection, mut record) = (self.connection(), self.stored.record);
        let principal = Principal {
            identity: Arc::new(opened.identity.clone()),
            connection,
        };
        let mut entries = Vec::with_capacity(record.rooms.len());
        for (room, reached) in record.rooms.iter().zip(self.reached) {
            entries.push(permitted(services, &principal, &opened.rooms, room, reached).await?);
        }
        let is_new = |permit: &&Permit| record.rooms.iter().all(|known| known.room != *permit.room());
        entries.extend(opened.rooms.iter().filter(is_new).cloned().map(RoomEntry::granted));
        record.holder = rand::random();
        record.version += 1;
        let writing = Arc::clone(&self.store).write(claim.pid.hash(), record.clone(), self.stored.revision);
        // Of two that come at once, the second finds another revision.
        let revision = writing.await.ok()??;
        fence(services, &record).await;
        let restoring = Restoring {
            token: token.to_owned(),
            shown: claim.digest,
            rooms: entries.len(),
        };
        let kept = Kept::taken(self.store, claim.pid, Stored { record, revision }, restoring);
        Some(TakenSession {
            kept: Rc::new(kept),
            connection,
            entries,
        })
    }
}

/// Asks for everything that a room of the session needs; `None` where it is not permitted any more, or cannot be read since then.
async fn permitted(
    services: &Services,
    principal: &Principal,
    homes: &[Permit],
    room: &RoomRecord,
    reached: Position,
) -> Option<RoomEntry> {
    let options = JoinOptions {
        since: Some(Since::At(reached)),
        rewind: 0,
        presence: room.presence,
        state: room.state.clone(),
    };
    if room.right == RoomRight::Own {
        let entry = permit_entry(services, principal, &room.room, options).await.ok()?;
        return (entry.history == HistoryRight::Granted).then_some(entry);
    }
    let permit = match room.right {
        RoomRight::Backend => backend(room)?,
        RoomRight::Home | RoomRight::Own => homes.iter().find(|permit| *permit.room() == room.room)?.clone(),
    };
    let ask = |action| services.authorize(principal, &room.room, action);
    if room.presence != PresenceMode::None {
        ask(Action::Presence).await.ok()?;
    }
    ask(Action::History).await.ok()?;
    Some(RoomEntry {
        options,
        history: HistoryRight::Granted,
        ..RoomEntry::granted(permit)
    })
}

/// Renews the permit of a room that a backend has put the session into: only a revocation, or another order, ends it.
fn backend(room: &RoomRecord) -> Option<Permit> {
    let service = Service {
        name: SERVICE.into(),
        publish: false,
        read: false,
        manage: true,
        subscribe: false,
        tenants: Some([room.room.tenant().into()].into()),
    };
    service.permit(room.room.clone(), Action::Join).ok()
}

/// Ends the connection that has the session, wherever it is: it has left its rooms when this returns, or cannot be asked.
async fn fence(services: &Services, record: &Record) {
    let Some(cluster) = services.application.cluster.get() else {
        return;
    };
    let audience = Audience::Connection(record.tenant.clone(), record.connection);
    let order = audience.order(Verb::Disconnect(CloseReason::Disconnected, Notice::default()));
    let fenced = tokio::time::timeout(FENCE_MAX, cluster.order(order)).await;
    if !matches!(fenced, Ok(Ok(_))) {
        tracing::info!("session taken over, its node did not answer");
    }
}

impl<L: Link> Sessions<L> {
    /// Begins to keep a session that opens, where its protocol has clients that come back.
    pub(super) fn keep(&mut self, key: Key, identity: &Identity) {
        let (Some(_), Some(store)) = (self.clients.recovery(key), self.services.application.store()) else {
            return;
        };
        let (Some(session), Some(protocol)) = (self.clients.session(key), self.clients.protocol_name(key)) else {
            return;
        };
        let record = Record {
            tenant: identity.tenant.clone(),
            user: identity.user.clone(),
            protocol: protocol.into(),
            connection: session.connection,
            version: 0,
            rooms: Vec::new(),
            unconfirmed: None,
            holder: rand::random(),
        };
        self.kept.insert(key, Rc::new(Kept::begun(store, record)));
    }

    /// Keeps a session no longer: its client has left it for good.
    pub fn forget(&mut self, key: Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.run(async move {
                kept.removed().await;
                |_: &mut Self| {}
            });
        }
    }

    /// The cursor follows the rooms that are kept from here on.
    pub(super) fn kept_entered(&mut self, key: Key) {
        let (Some(kept), Some(recovery)) = (self.kept.get(key), self.clients.recovery(key)) else {
            return;
        };
        recovery.ticket = Some(kept.ticket);
        recovery.version = kept.version();
    }

    /// Takes what has changed in the rooms of a session into its record. Returns the kept session, to wait for.
    pub(super) fn take_into_record(&mut self, key: Key) -> Option<Rc<Kept>> {
        let kept = self.kept.get(key)?;
        let (clients, members) = (&self.clients, &self.members);
        let joining = clients.session(key)?.joining();
        let changed = kept.retain(|known| {
            let presence = members.presence_mode(clients, key, &known.room);
            // One that is about to be entered is in the record already.
            if joining.contains(&known.room) {
                Some(known.presence)
            } else {
                presence
            }
        });
        if changed && let Some(recovery) = self.clients.recovery(key) {
            recovery.version = kept.version();
        }
        Some(kept)
    }

    /// Writes the records of sessions whose rooms have changed without a command of theirs.
    pub(super) fn save_changed(&mut self) {
        for key in self.clients.take_changed() {
            if let Some(kept) = self.take_into_record(key) {
                self.save(key, kept);
            }
        }
    }

    /// Writes the records again that would be dropped for their age.
    pub(super) fn save_old(&mut self) {
        for (key, kept) in self.kept.old() {
            self.save(key, kept);
        }
    }

    /// Writes a record while nobody waits for it.
    pub(super) fn save(&mut self, key: Key, kept: Rc<Kept>) {
        let Some(ticket) = self.clients.ticket(key) else { return };
        self.run(async move {
            let saved = kept.saved().await;
            move |sessions: &mut Self| {
                if saved == Err(NotKept::Taken) && sessions.clients.alive(ticket).is_some() {
                    sessions.clients.begin_close(ticket.key, CloseReason::Disconnected);
                }
            }
        });
    }

    /// The rooms of a session that is to be entered are not kept: nobody may be told of them.
    pub(super) fn not_kept(&mut self, ticket: Ticket, mut entering: Entering, cause: EntryCause, error: NotKept) {
        let key = ticket.key;
        let is_opening = matches!(cause, EntryCause::Opening(_));
        let is_restoring = self.kept.get(key).is_some_and(|kept| kept.restoring.borrow().is_some());
        match error {
            NotKept::Inexact => return self.not_restored(ticket, entering, &cause),
            NotKept::Unavailable if is_opening && !is_restoring => {
                // A session like any other, to which its client does not come back.
                self.kept.remove(key);
                return self.entered(ticket, entering, cause, Ok(Vec::new()));
            }
            NotKept::Taken => self.clients.begin_close(key, CloseReason::Disconnected),
            NotKept::Unavailable if is_restoring => self.clients.begin_close(key, CloseReason::Overloaded),
            NotKept::Unavailable => {}
        }
        for (_, found) in &mut entering {
            found.start = Err(super::commands::unavailable());
        }
        self.entered(ticket, entering, cause, Ok(Vec::new()));
    }

    /// A session cannot go on exactly where it was: its client gets a new one.
    fn not_restored(&mut self, ticket: Ticket, entering: Entering, cause: &EntryCause) {
        let key = ticket.key;
        for (entry, _) in entering {
            let room = entry.permit.room();
            if let Some(session) = self.clients.session_mut(key) {
                session.end_joining(room);
            }
            if !self.members.abort_join(room, key) {
                self.members.exit_if_unused(room);
            }
        }
        // A backend may have put it into a room meanwhile.
        self.members.leave_all(&mut self.clients, key, Departure::Lost);
        let restoring = self.kept.get(key).and_then(|kept| kept.restoring.take());
        self.forget(key);
        if let Some(identity) = self.clients.identity(key) {
            self.clients.unindex(key, &identity);
            self.services.admission.forget(&identity);
        }
        self.clients.rename(key, ConnectionId::for_slot(key));
        if let Some(session) = self.clients.session_mut(key) {
            session.phase = Phase::Anonymous;
        }
        if let (Some(restoring), EntryCause::Opening(id)) = (restoring, cause) {
            CommandContext::new(self, ticket, *id).connect(restoring.token, Vec::new());
        }
    }
}
