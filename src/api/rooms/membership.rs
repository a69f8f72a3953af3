//! Joining, removing and disconnecting connections, as a backend's decision.

use super::permit;
use crate::api::credentials::{Caller, Scope};
use crate::api::status::Refusal;
use crate::api::{Shared, convert};
use crate::error::CloseReason;
use crate::hub::Who;
use crate::policy::Action;
use crate::proto::v1;
use crate::room::Tenant;

impl Shared {
    pub(super) async fn join_room(
        &self,
        caller: &Caller,
        request: v1::JoinRoomRequest,
    ) -> Result<v1::JoinRoomResponse, Refusal> {
        use v1::join_room_request::Member;
        let permit = permit(caller, Scope::Manage, &request.tenant, &request.room, Action::Join)?;
        let tenant = convert::tenant(&request.tenant)?;
        let who = match &request.member {
            Some(Member::UserId(user)) => of_user(tenant, user)?,
            Some(Member::ConnectionId(connection)) => self.existing(tenant, connection).await?,
            None => return Err(nobody("member")),
        };
        let joined = self.context.everywhere.join(&who, &permit).await?;
        if let (0, Some(refused)) = (joined.connections, joined.refused) {
            return Err(refused.into());
        }
        let head = self.context.rooms.head(&permit).await?;
        Ok(v1::JoinRoomResponse {
            connections_joined: joined.connections,
            position: Some(convert::position(head)),
        })
    }

    pub(super) async fn leave_room(
        &self,
        caller: &Caller,
        request: v1::LeaveRoomRequest,
    ) -> Result<v1::LeaveRoomResponse, Refusal> {
        use v1::leave_room_request::Member;
        let permit = permit(caller, Scope::Manage, &request.tenant, &request.room, Action::Join)?;
        let tenant = convert::tenant(&request.tenant)?;
        let who = match &request.member {
            Some(Member::UserId(user)) => of_user(tenant, user)?,
            Some(Member::ConnectionId(connection)) => of_connection(tenant, connection)?,
            None => return Err(nobody("member")),
        };
        convert::told("reason", &request.reason, 128)?;
        let everywhere = &self.context.everywhere;
        let connections_left = everywhere.leave(&who, permit.room(), &request.reason).await?;
        Ok(v1::LeaveRoomResponse { connections_left })
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
        convert::told("reason", &request.reason, 100)?;
        let who = match &request.session {
            Some(Session::UserId(user)) => of_user(tenant, user)?,
            Some(Session::ConnectionId(connection)) => of_connection(tenant, connection)?,
            None => return Err(nobody("session")),
        };
        let reason = if request.may_reconnect {
            CloseReason::Disconnected
        } else {
            CloseReason::Kicked
        };
        let connections_closed = self
            .context
            .everywhere
            .disconnect(&who, reason, &request.reason)
            .await?;
        if connections_closed == 0 && matches!(who, Who::Connection(..)) {
            return Err(Refusal::ConnectionNotFound);
        }
        Ok(v1::DisconnectResponse { connections_closed })
    }

    /// A connection that the tenant has.
    async fn existing(&self, tenant: Tenant, connection: &str) -> Result<Who, Refusal> {
        let who = of_connection(tenant, connection)?;
        match self.context.everywhere.find(&who).await? {
            Some(_) => Ok(who),
            None => Err(Refusal::ConnectionNotFound),
        }
    }
}

fn of_user(tenant: Tenant, user: &str) -> Result<Who, Refusal> {
    Ok(Who::User(tenant, convert::user("user_id", user)?))
}

fn of_connection(tenant: Tenant, connection: &str) -> Result<Who, Refusal> {
    Ok(Who::Connection(
        tenant,
        convert::connection("connection_id", connection)?,
    ))
}

fn nobody(field: &str) -> Refusal {
    Refusal::field(field, "a user or a connection is required")
}
