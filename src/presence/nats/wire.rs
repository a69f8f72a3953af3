//! Encoding of the messages between nodes.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;

use super::update::{Body, Changed, DigestAnnouncement, Update};
use crate::event::Timestamp;
use crate::identity::UserId;
use crate::json::Json;
use crate::presence::memory::{Share, Stated};
use crate::presence::{Departure, Present};
use crate::proto::node_v1 as proto;
use crate::room::{Room, Tenant};

pub(super) use proto::presence_message::Body as Said;

/// Bytes of users in one message, about; NATS takes 1 MiB by default.
pub(super) const PART_BYTES: usize = 192 * 1024;

/// The most updates with outstanding parts. More mean a fault, and all are dropped: the gap is detected and asked for
/// anyway.
const PARTIAL_MAX: usize = 256;

/// The most parts of an update: 200 MB.
const PARTS_MAX: u32 = 1024;

/// Writes a node's message. The room is named where the subject does not name it.
pub(super) fn write(node: u64, tenant: &str, room: &str, said: Said) -> Bytes {
    let message = proto::PresenceMessage {
        incarnation: node,
        tenant: tenant.to_owned(),
        room: room.to_owned(),
        body: Some(said),
    };
    message.encode_to_vec().into()
}

/// Writes a message about a room, in as many parts as it takes.
pub(super) fn write_body(node: u64, room: Option<&Room>, body: Body, part_bytes: usize) -> Vec<Bytes> {
    let (tenant, name) = room.map_or(("", ""), |room| (room.tenant(), room.name()));
    let said = match body {
        Body::Update(update) => parts(&update, part_bytes),
        Body::Stand(stand) => vec![Said::Stand(write_stand(&stand))],
        Body::Ask(known) => vec![Said::Ask(proto::PresenceAsk {
            known: known.iter().map(write_stand).collect(),
        })],
    };
    said.into_iter().map(|said| write(node, tenant, name, said)).collect()
}

/// Returns the room that a message names.
pub(super) fn room_of(message: &proto::PresenceMessage) -> Option<Room> {
    parse_room(&message.tenant, &message.room)
}

fn parts(update: &Update, part_bytes: usize) -> Vec<Said> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for changed in &update.changes {
        let present = write_changed(changed);
        let size = present.encoded_len() + 8;
        if bytes > 0 && bytes + size > part_bytes {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        parts.last_mut().expect("there is at least one").push(present);
    }
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let written = (0..).zip(parts).map(|(part, changes)| {
        Said::Update(proto::PresenceUpdate {
            version: update.version,
            previous: update.previous,
            changes,
            part,
            parts: count,
            occupied_since_ms: update.occupied_since.map_or(0, |since| since.0),
            begins: update.begins,
        })
    });
    written.collect()
}

fn write_changed(changed: &Changed) -> proto::NodePresent {
    match &changed.now {
        Ok(share) => write_share(&changed.user, share),
        Err(departure) => proto::NodePresent {
            user_id: changed.user.as_str().to_owned(),
            lost: *departure == Departure::Lost,
            ..proto::NodePresent::default()
        },
    }
}

/// Writes a node's share of a user.
pub(super) fn write_share(user: &UserId, share: &Share) -> proto::NodePresent {
    proto::NodePresent {
        user_id: user.as_str().to_owned(),
        connections: share.connections,
        since_ms: share.since.0,
        state: share
            .state
            .as_ref()
            .map(|stated| stated.value.bytes().clone())
            .unwrap_or_default(),
        state_ms: share.state.as_ref().map_or(0, |stated| stated.at.0),
        lost: false,
    }
}

/// Reads a node's share of a user; `None` in place of a share that is removed.
pub(super) fn read_share(present: &proto::NodePresent) -> Option<(UserId, Option<Share>)> {
    let user = UserId::parse(&present.user_id).ok()?;
    let value = match &present.state {
        empty if empty.is_empty() => None,
        text => Some(Json::parse(text.clone()).ok()?),
    };
    let at = Timestamp(present.state_ms);
    let share = (present.connections > 0).then(|| Share {
        connections: present.connections,
        since: Timestamp(present.since_ms),
        state: value.map(|value| Box::new(Stated { at, value })),
    });
    Some((user, share))
}

/// Writes a user as shown.
pub(super) fn write_present(present: &Present) -> proto::NodePresent {
    proto::NodePresent {
        user_id: present.user.as_str().to_owned(),
        connections: present.connections,
        since_ms: present.since.0,
        state: present
            .state
            .as_ref()
            .map(|state| state.bytes().clone())
            .unwrap_or_default(),
        ..proto::NodePresent::default()
    }
}

/// Reads a user as shown.
pub(super) fn read_present(present: &proto::NodePresent) -> Option<Present> {
    let state = match &present.state {
        empty if empty.is_empty() => None,
        text => Some(Json::parse(text.clone()).ok()?),
    };
    Some(Present {
        user: UserId::parse(&present.user_id).ok()?,
        state,
        connections: present.connections,
        since: Timestamp(present.since_ms),
    })
}

fn write_stand(stand: &DigestAnnouncement) -> proto::PresenceStand {
    proto::PresenceStand {
        incarnation: stand.incarnation,
        version: stand.version,
        users: stand.users,
        digest: stand.digest,
    }
}

fn read_stand(stand: &proto::PresenceStand) -> DigestAnnouncement {
    DigestAnnouncement {
        incarnation: stand.incarnation,
        version: stand.version,
        users: stand.users,
        digest: stand.digest,
    }
}

/// Writes a census.
pub(super) fn write_census(number: u64, rooms: &[(Room, Vec<u64>)]) -> Said {
    let room = |(room, known): &(Room, Vec<u64>)| proto::PresenceCensusRoom {
        tenant: room.tenant().to_owned(),
        room: room.name().to_owned(),
        known: known.clone(),
    };
    Said::Census(proto::PresenceCensus {
        number,
        rooms: rooms.iter().map(room).collect(),
    })
}

/// Reads the rooms of a census, each with whether this node's part is known there.
pub(super) fn read_census(census: &proto::PresenceCensus, own: u64) -> Vec<(Room, bool)> {
    let rooms = census.rooms.iter();
    rooms
        .filter_map(|asked| Some((parse_room(&asked.tenant, &asked.room)?, asked.known.contains(&own))))
        .collect()
}

/// Writes the end of a reply to a census.
pub(super) fn write_account(number: u64, stands: &[(Room, DigestAnnouncement)]) -> Said {
    let room = |(room, stand): &(Room, DigestAnnouncement)| proto::PresenceAccountRoom {
        tenant: room.tenant().to_owned(),
        room: room.name().to_owned(),
        stand: Some(write_stand(stand)),
    };
    Said::Account(proto::PresenceAccount {
        number,
        rooms: stands.iter().map(room).collect(),
    })
}

/// Reads the stands at the end of a reply to a census.
pub(super) fn read_account(account: &proto::PresenceAccount) -> Vec<(Room, DigestAnnouncement)> {
    let rooms = account.rooms.iter();
    rooms
        .filter_map(|told| Some((parse_room(&told.tenant, &told.room)?, read_stand(told.stand.as_ref()?))))
        .collect()
}

fn parse_room(tenant: &str, name: &str) -> Option<Room> {
    Room::parse(&Tenant::parse(tenant).ok()?, name).ok()
}

/// An update in parts: the node, the room, the version and the previous one.
type Split = (u64, Room, u64, u64);

/// The parts received so far.
type Parts = Vec<Option<Vec<Changed>>>;

/// Reads messages about rooms, and joins parts.
#[derive(Debug, Default)]
pub(super) struct Reader {
    partial: HashMap<Split, Parts>,
}

impl Reader {
    /// Reads a message about a room; `None` when it is something else, foreign or not complete yet.
    pub(super) fn read(&mut self, node: u64, room: &Room, said: Said) -> Option<Body> {
        match said {
            Said::Update(update) => self.update(node, room, &update).map(Body::Update),
            Said::Stand(stand) => Some(Body::Stand(read_stand(&stand))).filter(|_| stand.incarnation == node),
            Said::Ask(ask) => Some(Body::Ask(ask.known.iter().map(read_stand).collect())),
            _ => None,
        }
    }

    fn update(&mut self, node: u64, room: &Room, update: &proto::PresenceUpdate) -> Option<Update> {
        let changes: Option<Vec<Changed>> = update.changes.iter().map(read_changed).collect();
        let changes = self.join(node, room, update, changes?)?;
        Some(Update {
            version: update.version,
            previous: update.previous,
            changes,
            occupied_since: (update.occupied_since_ms > 0).then_some(Timestamp(update.occupied_since_ms)),
            begins: update.begins,
        })
    }

    fn join(
        &mut self,
        node: u64,
        room: &Room,
        update: &proto::PresenceUpdate,
        changes: Vec<Changed>,
    ) -> Option<Vec<Changed>> {
        if update.parts <= 1 {
            return Some(changes);
        }
        if update.parts > PARTS_MAX || update.part >= update.parts {
            return None;
        }
        if self.partial.len() >= PARTIAL_MAX {
            self.partial.clear();
        }
        let key = (node, room.clone(), update.version, update.previous);
        let parts = self.partial.entry(key.clone()).or_default();
        parts.resize(update.parts as usize, None);
        parts[update.part as usize] = Some(changes);
        if parts.iter().any(Option::is_none) {
            return None;
        }
        let parts = self.partial.remove(&key)?;
        Some(parts.into_iter().flatten().flatten().collect())
    }
}

fn read_changed(present: &proto::NodePresent) -> Option<Changed> {
    let (user, share) = read_share(present)?;
    let departure = if present.lost { Departure::Lost } else { Departure::Left };
    Some(Changed {
        user,
        now: share.ok_or(departure),
    })
}
