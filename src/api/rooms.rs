//! `RoomService`, `UserService`, `ConnectionService` and `AccessService`: members and what rooms keep, and the orders that
//! move connections.

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
use super::{Shared, caller, convert, span};
use crate::policy::{Action, Permit};
use crate::proto::v1;
use crate::proto::v1::access_service_server::AccessService;
use crate::proto::v1::connection_service_server::ConnectionService;
use crate::proto::v1::room_service_server::RoomService;
use crate::proto::v1::user_service_server::UserService;

/// Serves the unary services but `PublishService`.
#[derive(Clone)]
pub(super) struct Steward(pub(super) Arc<Shared>);

/// Every method of a service: who calls, the span, then the method of [`Shared`] of the same name.
macro_rules! methods {
    ($service:ident: $($method:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl $service for Steward {
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
}

methods! { AccessService:
    revoke: RevokeRequest -> RevokeResponse;
    restore: RestoreRequest -> RestoreResponse;
    list_revocations: ListRevocationsRequest -> ListRevocationsResponse;
    explain: ExplainRequest -> ExplainResponse;
}

/// The permit of a service for one room, scope and tenant checked first so that each is refused by its own reason.
fn permit(caller: &Caller, scope: Scope, tenant: &str, room: &str, action: Action) -> Result<Permit, Refusal> {
    caller.check_scope(scope)?;
    let tenant = convert::tenant(tenant)?;
    caller.check(scope, tenant.as_str())?;
    let room = convert::room(&tenant, "room", room)?;
    Ok(caller.service.permit(room, action)?)
}
