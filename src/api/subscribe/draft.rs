//! A parsed request to subscribe.

use std::collections::HashSet;

use super::cursor::Scope;
use crate::api::convert;
use crate::api::credentials::{self, Caller};
use crate::api::status::{Invalid, Refusal};
use crate::bus::parts::{Place, RoomSet};
use crate::policy::TenantPermit;
use crate::proto::v1;
use crate::room::{Room, RoomPattern, Tenant};
use crate::rooms::Selection;

/// The longest pattern, in bytes: that of a room's name, which it describes.
const PATTERN_BYTES_MAX: usize = Room::NAME_BYTES_MAX;

/// A request whose every field was checked.
pub(super) struct Draft {
    pub(super) permit: TenantPermit,
    /// Named rooms are sorted: the order of a cursor's places.
    pub(super) selection: Selection,
    pub(super) scope: Scope,
    /// The places of the cursor; `None` from now on.
    pub(super) since: Option<Vec<Place>>,
}

impl Draft {
    /// Parses a request of a caller.
    pub(super) fn parse(caller: &Caller, request: &v1::SubscribeRequest, rooms_max: usize) -> Result<Self, Refusal> {
        convert::required(&request.required_features)?;
        caller.check_scope(credentials::Scope::Subscribe)?;
        let tenant = convert::tenant(&request.tenant)?;
        let permit = caller.service.permit_tenant(tenant.clone())?;
        let (selection, scope) = match (request.rooms.is_empty(), request.pattern.is_empty()) {
            (true, true) => {
                let why = "is required, unless a pattern is given";
                return Err(Refusal::invalid(Invalid::Room, "rooms", why));
            }
            (false, false) => return Err(Refusal::field("pattern", "is given together with rooms")),
            (true, false) => {
                let pattern = pattern(&request.pattern)?;
                let set = RoomSet { tenant, pattern };
                let scope = Scope::of_set(&set);
                (Selection::Matching(set), scope)
            }
            (false, true) => {
                let rooms = rooms(&tenant, &request.rooms, rooms_max)?;
                let scope = Scope::of_rooms(&rooms);
                (Selection::Named(rooms), scope)
            }
        };
        let since = scope.read(&request.cursor)?;
        Ok(Self {
            permit,
            selection,
            scope,
            since,
        })
    }
}

/// Parses the rooms: each once, and not more than `rooms_max`.
fn rooms(tenant: &Tenant, names: &[String], rooms_max: usize) -> Result<Vec<Room>, Refusal> {
    if names.len() > rooms_max {
        let why = format_args!("has more than {rooms_max} entries");
        return Err(Refusal::field("rooms", why));
    }
    let mut seen = HashSet::with_capacity(names.len());
    let mut rooms = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let field = format!("rooms[{index}]");
        let room = convert::room(tenant, &field, name)?;
        if !seen.insert(name) {
            return Err(Refusal::invalid(Invalid::Room, field, "is named twice"));
        }
        rooms.push(room);
    }
    rooms.sort_unstable();
    Ok(rooms)
}

/// Parses a pattern.
fn pattern(text: &str) -> Result<RoomPattern, Refusal> {
    if text.len() > PATTERN_BYTES_MAX {
        let why = format_args!("is longer than {PATTERN_BYTES_MAX} bytes");
        return Err(Refusal::invalid(Invalid::Room, "pattern", why));
    }
    RoomPattern::parse(text).map_err(|error| Refusal::invalid(Invalid::Room, "pattern", error))
}
