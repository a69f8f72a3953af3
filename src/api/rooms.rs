//! `RoomService`, `UserService`, `ConnectionService` and `AccessService`: queries of rooms and members, and orders to
//! connections.

mod ask;
mod explain;
mod history;
mod members;
mod membership;
mod revoke;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::credentials::{Caller, Scope};
use super::status::Refusal;
use super::{ApiServices, caller, convert, span};
use crate::policy::{Action, Permit};
use crate::proto::v1;
use crate::proto::v1::access_service_server::AccessService;
use crate::proto::v1::connection_service_server::ConnectionService;
use crate::proto::v1::room_service_server::RoomService;
use crate::proto::v1::user_service_server::UserService;

pub(super) use self::ask::CallDeadline;

/// Serves all unary services except `PublishService`.
#[derive(Clone)]
pub(super) struct UnaryServices(pub(super) Arc<ApiServices>);

/// Implements a service: caller, span, then the method of the same name of [`ApiServices`].
macro_rules! methods {
    ($service:ident: $($method:ident: $request:ident -> $response:ident;)* $({ $($further:item)* })?) => {
        #[tonic::async_trait]
        impl $service for UnaryServices {
            $($($further)*)?
            $(async fn $method(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                let caller = caller(&request)?;
                let span = span::room(request.metadata(), &caller, stringify!($method));
                let response = self.0.$method(&caller, request.into_inner()).instrument(span).await?;
                Ok(Response::new(response))
            })*
        }
    };
}

methods! { RoomService:
    join_room: JoinRoomRequest -> JoinRoomResponse;
    leave_room: LeaveRoomRequest -> LeaveRoomResponse;
    list_members: ListMembersRequest -> ListMembersResponse;
    get_room_stats: GetRoomStatsRequest -> GetRoomStatsResponse;
    list_history: ListHistoryRequest -> ListHistoryResponse;
}

methods! { UserService:
    list_user_rooms: ListUserRoomsRequest -> ListUserRoomsResponse;
}

methods! { ConnectionService:
    disconnect: DisconnectRequest -> DisconnectResponse;
    {
        async fn ask(
            &self,
            request: Request<v1::AskRequest>,
        ) -> Result<Response<v1::AskResponse>, Status> {
            self.ask_client(request).await
        }
    }
}

methods! { AccessService:
    revoke: RevokeRequest -> RevokeResponse;
    restore: RestoreRequest -> RestoreResponse;
    list_revocations: ListRevocationsRequest -> ListRevocationsResponse;
    explain: ExplainRequest -> ExplainResponse;
}

/// Returns the permit for one room. Scope and tenant are checked first, so that each has its own refusal.
fn permit(caller: &Caller, scope: Scope, tenant: &str, room: &str, action: Action) -> Result<Permit, Refusal> {
    caller.check_scope(scope)?;
    let tenant = convert::tenant(tenant)?;
    caller.check(scope, tenant.as_str())?;
    let room = convert::room(&tenant, "room", room)?;
    Ok(caller.service.permit(room, action)?)
}
