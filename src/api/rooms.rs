//! `RoomService`: who is in rooms and what they keep, and the orders that move connections.

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
use crate::proto::v1::room_service_server::RoomService;

/// Serves `RoomService`.
#[derive(Clone)]
pub(super) struct Steward(pub(super) Arc<Shared>);

/// Every method: who calls, the span, then the method of [`Shared`] of the same name.
macro_rules! methods {
    ($($method:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl RoomService for Steward {
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

methods! {
    join_room: JoinRoomRequest -> JoinRoomResponse;
    leave_room: LeaveRoomRequest -> LeaveRoomResponse;
    list_members: ListMembersRequest -> ListMembersResponse;
    list_user_rooms: ListUserRoomsRequest -> ListUserRoomsResponse;
    get_room_stats: GetRoomStatsRequest -> GetRoomStatsResponse;
    list_history: ListHistoryRequest -> ListHistoryResponse;
    disconnect: DisconnectRequest -> DisconnectResponse;
    revoke: RevokeRequest -> RevokeResponse;
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
