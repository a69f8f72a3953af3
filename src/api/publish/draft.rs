//! A publish request, parsed once: distinct rooms, and the destination of each target.

use crate::api::convert::{self, Claim, ClaimedEpoch};
use crate::api::status::{Invalid, Refusal};
use crate::event::{EventId, EventName, Except, IdempotencyKey, Payload, Publish, Retention};
use crate::identity::{ConnectionId, UserId};
use crate::proto::v1;
use crate::proto::v1::target::Target as Wire;
use crate::room::{Room, Tenant};
use crate::rooms::HomeRooms;

/// The most targets of one event: each is a publish of its own, and the call answers for all.
const TARGETS_MAX: usize = 100;

/// Destination of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// To the room at this index of [`Draft::rooms`].
    Room(usize),
    /// To one connection.
    Connection(ConnectionId),
}

/// A publish request with valid fields.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) tenant: Tenant,
    /// The distinct rooms, in the order of the targets.
    pub(super) rooms: Vec<Room>,
    /// One for each target.
    pub(super) targets: Vec<Destination>,
    pub(super) name: EventName,
    pub(super) retention: Retention,
    pub(super) payload: Payload,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) expected: Option<Claim>,
    pub(super) except: Except,
    pub(super) actor: Option<UserId>,
}

impl Draft {
    /// Parses a request.
    pub(super) fn parse(
        request: v1::PublishRequest,
        homes: &HomeRooms,
        payload_bytes_max: usize,
        recent: &mut ParseCache,
    ) -> Result<Self, Refusal> {
        convert::required(&request.required_features)?;
        let tenant = recent.tenant(&request.tenant)?;
        let (rooms, targets) = destinations(&tenant, &request.targets, homes, recent)?;
        let name = recent.name(&request.event_name)?;
        let retention = convert::retention_in(request.retention)?;
        let direct = targets
            .iter()
            .any(|target| matches!(target, Destination::Connection(_)));
        if direct && retention != Retention::Ephemeral {
            let why = "must be ephemeral for a connection: nothing is kept for it";
            return Err(Refusal::field("retention", why));
        }
        let expected = request.expected_head.as_ref();
        let expected = expected
            .map(|position| Claim::parse("expected_head", position))
            .transpose()?;
        if expected.is_some() && (retention == Retention::Ephemeral || targets.len() != 1) {
            let why = "needs exactly one room and a retention with positions";
            return Err(Refusal::field("expected_head", why));
        }
        Ok(Self {
            rooms,
            targets,
            name,
            retention,
            payload: convert::payload_in(request.payload, payload_bytes_max)?,
            key: key(&request.idempotency_key)?,
            expected,
            except: except(&request.exclude_connection_ids, &request.exclude_user_ids)?,
            actor: actor(&request.actor_user_id)?,
            tenant,
        })
    }

    /// Reports whether it goes to one room and needs no component but the bus.
    pub(super) fn needs_only_the_bus(&self) -> bool {
        let any_epoch = self.expected.is_none_or(|claim| claim.epoch == ClaimedEpoch::Any);
        any_epoch && matches!((&*self.targets, &*self.rooms), ([Destination::Room(_)], [_]))
    }

    /// Converts the draft to the publish of its only room.
    pub(super) fn into_publish(mut self, id: EventId) -> Publish {
        Publish {
            room: self.rooms.swap_remove(0),
            id,
            name: self.name,
            retention: self.retention,
            payload: self.payload,
            actor: self.actor,
            except: self.except,
            key: self.key,
            expected: self.expected.map(|claim| claim.offset),
        }
    }

    /// Returns the publish of one of the rooms.
    pub(super) fn publish(&self, room: &Room, id: EventId) -> Publish {
        Publish {
            room: room.clone(),
            id,
            name: self.name.clone(),
            retention: self.retention,
            payload: self.payload.clone(),
            actor: self.actor.clone(),
            except: self.except.clone(),
            key: self.key.clone(),
            expected: self.expected.map(|claim| claim.offset),
        }
    }
}

/// Parse cache: the values of the preceding event. Adjacent events often name the same, and then share it.
#[derive(Debug, Default)]
pub(super) struct ParseCache {
    tenant: Option<Tenant>,
    room: Option<Room>,
    name: Option<EventName>,
}

impl ParseCache {
    fn tenant(&mut self, text: &str) -> Result<Tenant, Refusal> {
        if let Some(tenant) = self.tenant.as_ref().filter(|tenant| tenant.as_str() == text) {
            return Ok(tenant.clone());
        }
        let tenant = convert::tenant(text)?;
        Ok(self.tenant.insert(tenant).clone())
    }

    fn room(&mut self, tenant: &Tenant, name: &str, field: impl FnOnce() -> String) -> Result<Room, Refusal> {
        if let Some(room) = self.room.as_ref().filter(|room| room.is(tenant, name)) {
            return Ok(room.clone());
        }
        let room = Room::parse(tenant, name).map_err(|error| Refusal::invalid(Invalid::Room, field(), error))?;
        Ok(self.room.insert(room).clone())
    }

    fn name(&mut self, text: &str) -> Result<EventName, Refusal> {
        if let Some(name) = self.name.as_ref().filter(|name| name.as_str() == text) {
            return Ok(name.clone());
        }
        let name = EventName::parse(text).map_err(|error| Refusal::invalid(Invalid::EventName, "event_name", error))?;
        Ok(self.name.insert(name).clone())
    }
}

/// Resolves the targets. Equal targets are refused; different targets that resolve to one room share it.
fn destinations(
    tenant: &Tenant,
    targets: &[v1::Target],
    homes: &HomeRooms,
    recent: &mut ParseCache,
) -> Result<(Vec<Room>, Vec<Destination>), Refusal> {
    if targets.is_empty() || targets.len() > TARGETS_MAX {
        let why = format!("has {} targets; 1 to {TARGETS_MAX} are allowed", targets.len());
        return Err(Refusal::invalid(Invalid::Target, "targets", why));
    }
    let mut rooms = Vec::with_capacity(targets.len());
    let mut resolved = Vec::with_capacity(targets.len());
    for (index, target) in targets.iter().enumerate() {
        if targets[..index].contains(target) {
            let field = format!("targets[{index}]");
            return Err(Refusal::invalid(
                Invalid::Target,
                field,
                "is the same as another target",
            ));
        }
        resolved.push(match resolve(tenant, index, target, homes, recent)? {
            Resolved::Connection(connection) => Destination::Connection(connection),
            Resolved::Room(room) => Destination::Room(index_of(&mut rooms, room)),
        });
    }
    Ok((rooms, resolved))
}

fn index_of(rooms: &mut Vec<Room>, room: Room) -> usize {
    let known = rooms.iter().position(|known| *known == room);
    known.unwrap_or_else(|| {
        rooms.push(room);
        rooms.len() - 1
    })
}

enum Resolved {
    Room(Room),
    Connection(ConnectionId),
}

fn resolve(
    tenant: &Tenant,
    index: usize,
    target: &v1::Target,
    homes: &HomeRooms,
    recent: &mut ParseCache,
) -> Result<Resolved, Refusal> {
    let path = |field: &str| format!("targets[{index}].{field}");
    let mut room = |name: &str, field: &str| recent.room(tenant, name, || path(field)).map(Resolved::Room);
    let mut home = |name: Option<String>, field: &str, whose| {
        let name = name.ok_or(Refusal::NoHomeRoom(whose))?;
        room(&name, field)
    };
    match &target.target {
        Some(Wire::Room(name)) => room(name, "room"),
        Some(Wire::UserId(user)) => {
            let user = convert::user(&path("user_id"), user)?;
            home(homes.of_user(tenant, user.as_str()), "user_id", "user")
        }
        Some(Wire::Everyone(_)) => home(homes.of_tenant(tenant), "everyone", "tenant"),
        Some(Wire::ConnectionId(id)) => convert::connection(&path("connection_id"), id).map(Resolved::Connection),
        None => {
            let field = format!("targets[{index}]");
            Err(Refusal::invalid(Invalid::Target, field, "names nothing"))
        }
    }
}

fn key(text: &str) -> Result<Option<IdempotencyKey>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let key = IdempotencyKey::of_backend(text);
    key.map(Some)
        .map_err(|error| Refusal::invalid(Invalid::IdempotencyKey, "idempotency_key", error))
}

fn except(connections: &[String], users: &[String]) -> Result<Except, Refusal> {
    for (field, count) in [
        ("exclude_connection_ids", connections.len()),
        ("exclude_user_ids", users.len()),
    ] {
        if count > Except::MAX {
            return Err(Refusal::field(
                field,
                format_args!("has more than {} entries", Except::MAX),
            ));
        }
    }
    let connections = connections.iter().enumerate();
    let connections = connections.map(|(at, id)| convert::connection(&format!("exclude_connection_ids[{at}]"), id));
    let users = users.iter().enumerate();
    let users = users.map(|(at, id)| convert::user(&format!("exclude_user_ids[{at}]"), id));
    Ok(Except::new(
        connections.collect::<Result<_, _>>()?,
        users.collect::<Result<_, _>>()?,
    ))
}

fn actor(text: &str) -> Result<Option<UserId>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    convert::user("actor_user_id", text).map(Some)
}
