//! Revocations as a shard holds them: the last look before anything of a room takes effect, and the end of what is there.

use std::sync::Arc;

use super::asked::PendingAsks;
use super::clients::{Clients, Key, Phase, Session};
use super::members::{RoomMembers, notify_left};
use crate::error::CloseReason;
use crate::notice::Notice;
use crate::policy::{Bearer, Permit, Policy, Revocation, RevocationSubject};
use crate::room::Room;
use crate::session::RoomChange;
use crate::session::link::Link;

/// Asks the policy about what it permitted earlier.
pub(super) struct RevocationGuard {
    policy: Arc<dyn Policy>,
}

impl RevocationGuard {
    pub fn new(policy: Arc<dyn Policy>) -> Self {
        Self { policy }
    }

    /// Returns whether a revocation in force keeps this session out of the room. Ask before anything of a room that was
    /// permitted earlier takes effect: the policy knows a revocation before the shards are ordered to carry it out, so what
    /// passes here and is revoked later is ended by that order.
    pub fn is_revoked<L: Link>(&self, clients: &Clients<L>, key: Key, room: &Room) -> bool {
        let Some(session) = clients.session(key) else {
            return true;
        };
        let Phase::Open(identity) = &session.phase else {
            return true;
        };
        let connection = session.connection;
        self.policy.is_revoked(Bearer { identity, connection }, room)
    }

    /// Reports whether older rules than those in force gave this permit.
    pub fn is_outdated(&self, permit: &Permit) -> bool {
        self.policy.is_outdated(permit)
    }

    /// Ends the memberships of a session whose token is another one now, as far as that is revoked.
    pub fn check_again<L: Link>(&self, clients: &mut Clients<L>, members: &mut RoomMembers, key: Key) {
        let revoked = members.rooms_of(clients, key, |_| true).into_iter();
        let revoked: Vec<Room> = revoked.filter(|room| self.is_revoked(clients, key, room)).collect();
        end_memberships(clients, members, key, |room| revoked.contains(room), &Notice::default());
    }
}

/// Removes sessions from rooms. Returns the number of memberships that ended.
pub(super) fn revoke<L: Link>(
    clients: &mut Clients<L>,
    members: &mut RoomMembers,
    asked: &mut PendingAsks,
    revocation: &Revocation,
    notice: &Notice,
) -> u32 {
    let mut memberships = 0;
    // An ask is of no room: it is withdrawn by what withdraws every room.
    let reaches_asks = revocation.reaches(&Room::nameless(&revocation.tenant));
    for key in hit_by(clients, revocation) {
        let joining = clients
            .session(key)
            .map_or(Vec::new(), |session| session.joining().to_vec());
        for room in joining.iter().filter(|room| revocation.reaches(room)) {
            members.abort_join(room, key);
        }
        // Before the notices, as below: here it may be the ask itself that is queued.
        let has_backlog = clients.link(key).is_some_and(|link| link.backlog_bytes() > 0);
        memberships += end_memberships(clients, members, key, |room| revocation.reaches(room), notice);
        if reaches_asks && asked.end(key) && has_backlog {
            clients.begin_close_with(key, CloseReason::Disconnected, notice.reason());
        }
    }
    memberships
}

/// Ends memberships that a revocation covers. Returns the number. Frames in an outbox cannot be taken back one by one, so a
/// client with a backlog is closed: after this nothing of the rooms is written to it.
fn end_memberships<L: Link>(
    clients: &mut Clients<L>,
    members: &mut RoomMembers,
    key: Key,
    is_lost: impl Fn(&Room) -> bool,
    notice: &Notice,
) -> u32 {
    let mut count = 0;
    // Before the notices, which are of no room: a client that polls has a backlog whenever it is sent something.
    let has_backlog = clients.link(key).is_some_and(|link| link.backlog_bytes() > 0);
    for room in members
        .rooms_of(clients, key, |_| true)
        .into_iter()
        .filter(|room| is_lost(room))
    {
        count += 1;
        members.leave(clients, key, &room);
        notify_left(clients, key, room, RoomChange::Revoked, notice);
    }
    if count > 0 && has_backlog {
        clients.begin_close_with(key, CloseReason::Disconnected, notice.reason());
    }
    count
}

/// The sessions whose present token, user or connection a revocation names.
fn hit_by<L: Link>(clients: &Clients<L>, revocation: &Revocation) -> Vec<Key> {
    let mut keys = match &revocation.subject {
        RevocationSubject::User(user) => clients.of_user(&revocation.tenant, user),
        RevocationSubject::Connection(connection) => vec![clients.slot_of(*connection)],
        // Looking through the claims of all sessions took 3 us each: 0.3 s for 100,000, in which the shard does nothing else.
        RevocationSubject::Token(token) => clients.of_token(token),
    };
    let is_hit = |session: &Session| {
        let connection = session.connection;
        let bearer = session.identity().map(|identity| Bearer { identity, connection });
        bearer.is_some_and(|bearer| revocation.hits(bearer))
    };
    keys.retain(|key| clients.session(*key).is_some_and(is_hit));
    keys
}
