//! Joins, removals and disconnects of connections, by order of a backend.

use super::permit;
use crate::api::credentials::{Caller, Scope};
use crate::api::status::Refusal;
use crate::api::{ApiServices, convert};
use crate::error::CloseReason;
use crate::hub::{Audience, Verb};
use crate::policy::Action;
use crate::proto::v1;
use crate::room::Tenant;

impl ApiServices {
    pub(super) async fn join_room(
        &self,
        caller: &Caller,
        request: v1::JoinRoomRequest,
    ) -> Result<v1::JoinRoomResponse, Refusal> {
        use v1::join_room_request::Member;
        let permit = permit(caller, Scope::Manage, &request.tenant, &request.room, Action::Join)?;
        convert::required(&request.required_features)?;
        let tenant = convert::tenant(&request.tenant)?;
        let audience = match &request.member {
            Some(Member::UserId(user)) => of_user(tenant, user)?,
            Some(Member::ConnectionId(connection)) => self.existing(tenant, connection).await?,
            None => return Err(nobody("member")),
        };
        let joined = self
            .context
            .cluster
            .order(audience.order(Verb::Join(permit.clone())))
            .await?;
        if let (0, Some(refused)) = (joined.connections, joined.refused) {
            return Err(refused.into());
        }
        // Read after the join: every event behind this head reaches the new members.
        let head = self.context.rooms.head(&permit).await?;
        Ok(v1::JoinRoomResponse {
            joined_connection_count: joined.connections,
            head: Some(convert::position(head)),
        })
    }

    pub(super) async fn leave_room(
        &self,
        caller: &Caller,
        request: v1::LeaveRoomRequest,
    ) -> Result<v1::LeaveRoomResponse, Refusal> {
        use v1::leave_room_request::Member;
        let permit = permit(caller, Scope::Manage, &request.tenant, &request.room, Action::Join)?;
        convert::required(&request.required_features)?;
        let tenant = convert::tenant(&request.tenant)?;
        let audience = match &request.member {
            Some(Member::UserId(user)) => of_user(tenant, user)?,
            Some(Member::ConnectionId(connection)) => of_connection(tenant, connection)?,
            None => return Err(nobody("member")),
        };
        let notice = convert::notice(&request.reason, &request.message)?;
        let leave = Verb::Leave(permit.room().clone(), notice);
        let left = self.context.cluster.order(audience.order(leave)).await?;
        Ok(v1::LeaveRoomResponse {
            left_connection_count: left.connections,
        })
    }

    pub(super) async fn disconnect(
        &self,
        caller: &Caller,
        request: v1::DisconnectRequest,
    ) -> Result<v1::DisconnectResponse, Refusal> {
        use v1::disconnect_request::Session;
        caller.check_scope(Scope::Manage)?;
        let tenant = convert::tenant(&request.tenant)?;
        caller.check(Scope::Manage, tenant.as_str())?;
        convert::required(&request.required_features)?;
        let notice = convert::notice(&request.reason, &request.message)?;
        let audience = match &request.session {
            Some(Session::UserId(user)) => of_user(tenant, user)?,
            Some(Session::ConnectionId(connection)) => of_connection(tenant, connection)?,
            None => return Err(nobody("session")),
        };
        let reason = if request.may_reconnect {
            CloseReason::Disconnected
        } else {
            CloseReason::Kicked
        };
        let is_one = matches!(audience, Audience::Connection(..));
        let disconnect = audience.order(Verb::Disconnect(reason, notice));
        let closed = self.context.cluster.order(disconnect).await?;
        if closed.connections == 0 && is_one {
            return Err(Refusal::ConnectionNotFound);
        }
        Ok(v1::DisconnectResponse {
            closed_connection_count: closed.connections,
        })
    }

    /// A connection that the tenant has.
    async fn existing(&self, tenant: Tenant, connection: &str) -> Result<Audience, Refusal> {
        let audience = of_connection(tenant, connection)?;
        match self.context.cluster.find(&audience).await? {
            Some(_) => Ok(audience),
            None => Err(Refusal::ConnectionNotFound),
        }
    }
}

fn of_user(tenant: Tenant, user: &str) -> Result<Audience, Refusal> {
    Ok(Audience::User(tenant, convert::user("user_id", user)?))
}

pub(super) fn of_connection(tenant: Tenant, connection: &str) -> Result<Audience, Refusal> {
    Ok(Audience::Connection(
        tenant,
        convert::connection("connection_id", connection)?,
    ))
}

fn nobody(field: &str) -> Refusal {
    Refusal::field(field, "a user or a connection is required")
}
