//! Queries: members of a room, rooms of a user, numbers of a room.

use super::permit;
use crate::api::credentials::{Caller, Scope};
use crate::api::page::{self, Query};
use crate::api::status::Refusal;
use crate::api::{ApiServices, convert};
use crate::hub::{Audience, Verb};
use crate::identity::UserId;
use crate::policy::Action;
use crate::presence::{Present, UserRooms};
use crate::proto::v1;
use crate::room::Room;

/// The most users or rooms of one page.
const PAGE_MAX: usize = 1000;

impl ApiServices {
    pub(in crate::api) async fn list_members(
        &self,
        caller: &Caller,
        request: v1::ListMembersRequest,
    ) -> Result<v1::ListMembersResponse, Refusal> {
        let permit = permit(caller, Scope::Read, &request.tenant, &request.room, Action::Presence)?;
        let query = Query::of(&[b"members", permit.room().key()]);
        let after = query.cursor(&request.page_token, user_of)?;
        let size = if request.counts_only {
            0
        } else {
            page::size(request.page_size, PAGE_MAX)?
        };
        let found = self.context.rooms.members(&permit, after.as_ref(), size).await;
        let too_large = found.counts.users > self.config.members_listed_max;
        if request.counts_only || too_large {
            return Ok(v1::ListMembersResponse {
                member_count: found.counts.users,
                connection_count: found.counts.connections,
                counts_only: too_large,
                partial: found.partial,
                ..v1::ListMembersResponse::default()
            });
        }
        let next = found.next_after.map(|user| query.token(user.as_str().as_bytes()));
        Ok(v1::ListMembersResponse {
            members: found.members.into_iter().map(member).collect(),
            next_page_token: next.unwrap_or_default(),
            member_count: found.counts.users,
            connection_count: found.counts.connections,
            counts_only: false,
            partial: found.partial,
        })
    }

    pub(super) async fn list_user_rooms(
        &self,
        caller: &Caller,
        request: v1::ListUserRoomsRequest,
    ) -> Result<v1::ListUserRoomsResponse, Refusal> {
        caller.check_scope(Scope::Read)?;
        let tenant = convert::tenant(&request.tenant)?;
        caller.check(Scope::Read, tenant.as_str())?;
        let user = convert::user("user_id", &request.user_id)?;
        let query = Query::of(&[b"rooms", tenant.as_str().as_bytes(), user.as_str().as_bytes()]);
        let after = query.cursor(&request.page_token, |name| {
            Room::parse(&tenant, std::str::from_utf8(name).ok()?).ok()
        })?;
        let size = page::size(request.page_size, PAGE_MAX)?;
        let UserRooms { mut rooms, partial } = self.context.rooms.rooms_of(&tenant, &user).await;
        rooms.retain(|(room, _)| after.as_ref().is_none_or(|after| room > after));
        let more = rooms.len() > size;
        rooms.truncate(size);
        let last = rooms.last().filter(|_| more);
        let next_page_token = last
            .map(|(room, _)| query.token(room.name().as_bytes()))
            .unwrap_or_default();
        let count = Audience::User(tenant, user).order(Verb::Count);
        let connection_count = self.context.cluster.order(count).await?.connections;
        Ok(v1::ListUserRoomsResponse {
            rooms: rooms
                .into_iter()
                .map(|(room, present)| user_room(&room, &present))
                .collect(),
            next_page_token,
            connection_count,
            partial,
        })
    }

    pub(in crate::api) async fn get_room_stats(
        &self,
        caller: &Caller,
        request: v1::GetRoomStatsRequest,
    ) -> Result<v1::GetRoomStatsResponse, Refusal> {
        let permit = permit(caller, Scope::Read, &request.tenant, &request.room, Action::Presence)?;
        let occupancy = self.context.rooms.occupancy(&permit).await;
        let stats = self.context.rooms.stats(&permit).await?;
        Ok(v1::GetRoomStatsResponse {
            member_count: occupancy.counts.users,
            connection_count: occupancy.counts.connections,
            head: Some(convert::position(stats.head)),
            history_count: stats.events as u64,
            history_bytes: stats.bytes as u64,
            occupied_since_time: occupancy.since.map(convert::time),
            partial: occupancy.partial,
        })
    }
}

fn user_of(cursor: &[u8]) -> Option<UserId> {
    UserId::parse(std::str::from_utf8(cursor).ok()?).ok()
}

fn member(present: Present) -> v1::Member {
    v1::Member {
        user_id: present.user.as_str().to_owned(),
        connection_count: present.connections,
        state_json: present.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
        join_time: Some(convert::time(present.since)),
    }
}

fn user_room(room: &Room, present: &Present) -> v1::UserRoom {
    v1::UserRoom {
        room: room.name().to_owned(),
        connection_count: present.connections,
        join_time: Some(convert::time(present.since)),
    }
}
