//! Session records: what is kept of a session so that its client can come back to it, on any node.
//!
//! # Contract
//! - A record is kept under the hash of the session's secret. It says who the session is and which rooms it is in, each with
//!   the position at which it was entered; what was received since is in the offsets that the client itself keeps.
//! - [`Store::write`] is a compare-and-set. A takeover writes the record first. So the former owner can write no
//!   more, and of two takeovers at once one fails.
//! - A record is at least kept while its session lives, and for the configured time after that.
//!
//! This module knows no token and decides nothing: who shows a claim is verified, and each room permitted, as ever.

pub mod memory;
pub mod nats;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::identity::{ConnectionId, Identity, UserId};
use crate::json::Json;
use crate::position::Position;
use crate::room::{Room, Tenant};
use crate::session::recovery::{Claim, RecoveryTicket};
use crate::session::{PresenceMode, RoomTag};

/// The hash under which a record is kept.
pub type RecordKey = [u8; 32];

/// The right by which a session is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomRight {
    /// It joined by itself.
    Own,
    /// It was put into the room as it opened: a template or the authorizer named it.
    Home,
    /// A backend put it in.
    Backend,
}

/// A room of a kept session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRecord {
    /// The room.
    pub room: Room,
    /// The right.
    pub right: RoomRight,
    /// The part of the presence that it sees.
    pub presence: PresenceMode,
    /// Its presence state in the room.
    pub state: Option<Json>,
    /// The position at which it entered, before any replay; `None` where nothing is known that it could go on from.
    pub baseline: Option<Position>,
    /// The record's version with which it entered: offsets of earlier versions know nothing of it.
    pub version: u64,
}

/// A kept session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The tenant.
    pub tenant: Tenant,
    /// The user.
    pub user: UserId,
    /// The protocol, which names the namespace.
    pub protocol: Box<str>,
    /// The connection, whose id the client knows.
    pub connection: ConnectionId,
    /// Increases with every change of the rooms.
    pub version: u64,
    /// The rooms, in the order in which they were entered.
    pub rooms: Vec<RoomRecord>,
    /// The digest of the offset from which events were sent again, in front of an answer that may not have arrived.
    pub unconfirmed: Option<u64>,
    /// Drawn by each that takes the session over: an outcome that was not heard is recognized by it.
    pub holder: u64,
}

/// The store cannot be reached just now; a write may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session store is unavailable")]
pub struct StoreUnavailable;

/// A record as it was read, and the revision to write over.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// Its revision.
    pub revision: u64,
}

/// Keeps the records of sessions.
pub trait Store: Send + Sync + 'static {
    /// Reads a record.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    fn read(self: Arc<Self>, key: RecordKey) -> BoxFuture<'static, Result<Option<Stored>, StoreUnavailable>>;

    /// Writes a record over a revision, 0 for none. Returns the new revision; `None` when another one is there.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: it may have been written.
    fn write(
        self: Arc<Self>,
        key: RecordKey,
        record: Record,
        over: u64,
    ) -> BoxFuture<'static, Result<Option<u64>, StoreUnavailable>>;

    /// Removes the record at a revision: its session has ended for good.
    fn remove(self: Arc<Self>, key: RecordKey, revision: u64) -> BoxFuture<'static, ()>;

    /// Notes that the session at a revision has lost its connection: from now on its time runs.
    fn left(&self, key: RecordKey, revision: u64);

    /// Returns the age at which the record of a session that lives is to be written again; `None` for never.
    fn refresh_after(&self) -> Option<Duration> {
        None
    }
}

impl Record {
    /// Reports whether the session is of this identity and namespace.
    #[must_use]
    pub fn is_of(&self, identity: &Identity, protocol: &str) -> bool {
        self.tenant == identity.tenant && self.user == identity.user && *self.protocol == *protocol
    }

    /// Returns the position that the client has reached in each room, in their order; `None` where that is not known of every
    /// one.
    #[must_use]
    pub fn reached(&self, claim: &Claim) -> Option<Vec<Position>> {
        if self.unconfirmed == Some(claim.digest) {
            // It was sent events after this offset, and shows it again: they wait in its buffer, or were lost with the answer
            // behind them. Sent once more they could come twice.
            return None;
        }
        let mark = RecoveryTicket::from(claim.pid).mark;
        // One of another session says nothing: since this one began no event was received.
        let shown = claim.offset.as_ref().filter(|shown| shown.mark == mark);
        let reached = |room: &RoomRecord| match shown {
            // Of a change that was not kept: this record may lack a room.
            Some(shown) if shown.version > self.version => None,
            Some(shown) if shown.version >= room.version => {
                let tag = RoomTag::of(&room.room);
                let mut positions = shown.positions.iter();
                positions
                    .find(|(named, _)| *named == tag)
                    .map(|(_, position)| *position)
            }
            _ => room.baseline,
        };
        if shown.is_some_and(|shown| shown.version > self.version) {
            return None;
        }
        self.rooms.iter().map(reached).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{Epoch, Offset};
    use crate::session::recovery::{Pid, ShownOffset};

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::from_bits(7),
            offset: Offset(offset),
        }
    }

    fn room(name: &str) -> Room {
        Room::parse(&Tenant::default(), name).unwrap()
    }

    /// A session that entered `a` with version 2 at 10, and `b` with version 5 at 20.
    fn record() -> Record {
        let entered = |name, version, offset| RoomRecord {
            room: room(name),
            right: RoomRight::Own,
            presence: PresenceMode::None,
            state: None,
            baseline: Some(at(offset)),
            version,
        };
        Record {
            tenant: Tenant::default(),
            user: UserId::parse("ada").unwrap(),
            protocol: "socket.io".into(),
            connection: ConnectionId::random(),
            version: 6,
            rooms: vec![entered("a", 2, 10), entered("b", 5, 20)],
            unconfirmed: None,
            holder: 1,
        }
    }

    fn claim(shown: Option<(u64, &[(&str, u64)])>) -> Claim {
        let pid = Pid::random();
        Claim {
            pid,
            offset: shown.map(|(version, positions)| ShownOffset {
                mark: pid.mark(),
                version,
                positions: positions
                    .iter()
                    .map(|(name, offset)| (RoomTag::of(&room(name)), at(*offset)))
                    .collect(),
            }),
            digest: 17,
        }
    }

    #[test]
    fn a_room_goes_on_from_the_offset_unless_it_was_entered_later() {
        let reached = |shown| record().reached(&claim(shown));
        assert_eq!(reached(None), Some(vec![at(10), at(20)]), "no event was received");
        assert_eq!(reached(Some((2, &[("a", 12)]))), Some(vec![at(12), at(20)]));
        assert_eq!(reached(Some((5, &[("a", 12), ("b", 21)]))), Some(vec![at(12), at(21)]));
        // It left `a` and entered it again: the position from before says nothing.
        assert_eq!(reached(Some((1, &[("a", 3)]))), Some(vec![at(10), at(20)]));
    }

    #[test]
    fn what_is_not_known_is_not_recovered() {
        let reached = |shown| record().reached(&claim(shown));
        assert_eq!(
            reached(Some((7, &[("a", 12), ("b", 21)]))),
            None,
            "the record is behind"
        );
        assert_eq!(reached(Some((5, &[("a", 12)]))), None, "a room is not named");
        let mut unknown = record();
        unknown.rooms[1].baseline = None;
        assert_eq!(unknown.reached(&claim(None)), None);
        let mut unconfirmed = record();
        unconfirmed.unconfirmed = Some(17);
        assert_eq!(unconfirmed.reached(&claim(None)), None);
        unconfirmed.unconfirmed = Some(18);
        assert!(unconfirmed.reached(&claim(None)).is_some());
    }

    #[test]
    fn an_offset_of_another_session_says_nothing() {
        let mut stale = claim(Some((9, &[("a", 3)])));
        stale.offset.as_mut().unwrap().mark = [0; 4];
        stale.pid = loop {
            let pid = Pid::random();
            if pid.mark() != [0; 4] {
                break pid;
            }
        };
        assert_eq!(record().reached(&stale), Some(vec![at(10), at(20)]));
    }
}
