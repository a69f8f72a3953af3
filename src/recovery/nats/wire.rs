//! Session records as they stand in the stream.

use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::position::{Epoch, Offset, Position};
use crate::proto::node_v1::{SessionPosition, SessionPresence, SessionRecord, SessionRoom, SessionRoomRight};
use crate::recovery::{Record, RoomRecord, RoomRight};
use crate::room::{Room, Tenant};
use crate::session::PresenceMode;

/// Writes a record.
pub(super) fn session(record: &Record) -> SessionRecord {
    SessionRecord {
        tenant: record.tenant.as_str().to_owned(),
        user_id: record.user.as_str().to_owned(),
        protocol: record.protocol.to_string(),
        connection_id: record.connection.bits().to_be_bytes().to_vec().into(),
        version: record.version,
        rooms: record.rooms.iter().map(session_room).collect(),
        unconfirmed: record.unconfirmed,
        holder: record.holder,
    }
}

fn session_room(room: &RoomRecord) -> SessionRoom {
    let right = match room.right {
        RoomRight::Own => SessionRoomRight::Own,
        RoomRight::Home => SessionRoomRight::Home,
        RoomRight::Backend => SessionRoomRight::Backend,
    };
    let presence = match room.presence {
        PresenceMode::None => SessionPresence::None,
        PresenceMode::Counts => SessionPresence::Counts,
        PresenceMode::Members => SessionPresence::Members,
        PresenceMode::Others => SessionPresence::Others,
    };
    SessionRoom {
        room: room.room.name().to_owned(),
        right: right.into(),
        presence: presence.into(),
        state: room
            .state
            .as_ref()
            .map_or_else(String::new, |state| state.as_str().to_owned()),
        baseline: room.baseline.map(|position| SessionPosition {
            epoch: position.epoch.bits(),
            offset: position.offset.0,
        }),
        version: room.version,
    }
}

/// Reads a record; `None` for one that this release does not understand in full.
pub(super) fn record(session: SessionRecord) -> Option<Record> {
    let tenant = Tenant::parse(&session.tenant).ok()?;
    let rooms = session.rooms.iter().map(|room| room_record(&tenant, room));
    Some(Record {
        user: UserId::parse(&session.user_id).ok()?,
        protocol: session.protocol.into(),
        connection: ConnectionId::from_bits(u128::from_be_bytes((&*session.connection_id).try_into().ok()?))?,
        version: session.version,
        rooms: rooms.collect::<Option<_>>()?,
        unconfirmed: session.unconfirmed,
        holder: session.holder,
        tenant,
    })
}

fn room_record(tenant: &Tenant, room: &SessionRoom) -> Option<RoomRecord> {
    let state = match &*room.state {
        "" => None,
        state => Some(Json::parse(state.to_owned()).ok()?),
    };
    Some(RoomRecord {
        room: Room::parse(tenant, &room.room).ok()?,
        right: match room.right() {
            SessionRoomRight::Own => RoomRight::Own,
            SessionRoomRight::Home => RoomRight::Home,
            SessionRoomRight::Backend => RoomRight::Backend,
            SessionRoomRight::Unspecified => return None,
        },
        presence: match room.presence() {
            SessionPresence::None => PresenceMode::None,
            SessionPresence::Counts => PresenceMode::Counts,
            SessionPresence::Members => PresenceMode::Members,
            SessionPresence::Others => PresenceMode::Others,
            SessionPresence::Unspecified => return None,
        },
        state,
        baseline: room.baseline.map(|position| Position {
            epoch: Epoch::from_bits(position.epoch),
            offset: Offset(position.offset),
        }),
        version: room.version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_one_of_a_later_release_is_none() {
        let tenant = Tenant::parse("acme").unwrap();
        let room = |name, right, presence, state: Option<&'static str>, baseline| RoomRecord {
            room: Room::parse(&tenant, name).unwrap(),
            right,
            presence,
            state: state.map(|state| Json::parse(state).unwrap()),
            baseline,
            version: 3,
        };
        let at = Position {
            epoch: Epoch::from_bits(u64::MAX),
            offset: Offset(17),
        };
        let kept = Record {
            user: UserId::parse("ada").unwrap(),
            protocol: "socket.io/chat".into(),
            connection: ConnectionId::random(),
            version: 4,
            rooms: vec![
                room("a", RoomRight::Own, PresenceMode::None, None, Some(at)),
                room("b", RoomRight::Home, PresenceMode::Counts, Some("{}"), None),
                room("c", RoomRight::Backend, PresenceMode::Members, Some("null"), Some(at)),
                room("d", RoomRight::Own, PresenceMode::Others, None, None),
            ],
            unconfirmed: Some(0),
            holder: 5,
            tenant: tenant.clone(),
        };
        assert_eq!(record(session(&kept)), Some(kept.clone()));
        let mut later = session(&kept);
        later.rooms[1].right = 9;
        assert_eq!(record(later), None);
        assert_eq!(record(SessionRecord::default()), None, "one that was removed");
    }
}
