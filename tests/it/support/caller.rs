//! A backend that calls the gateway over gRPC.

use std::time::Duration;

use roomcast::proto::v1;
use roomcast::proto::v1::access_service_client::AccessServiceClient;
use roomcast::proto::v1::connection_service_client::ConnectionServiceClient;
use roomcast::proto::v1::payload::Content;
use roomcast::proto::v1::publish_service_client::PublishServiceClient;
use roomcast::proto::v1::room_service_client::RoomServiceClient;
use roomcast::proto::v1::subscribe_service_client::SubscribeServiceClient;
use roomcast::proto::v1::target::Target;
use roomcast::proto::v1::user_service_client::UserServiceClient;
use roomcast::proto::v1::watch_service_client::WatchServiceClient;
use serde_json::Value;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use super::wait::PATIENCE;

/// The tenant of everybody who does not say another.
pub const TENANT: &str = "acme";

/// The token of the backend that may do everything.
pub const ROOT: &str = "the token of the tests' backend";

type Authorized = InterceptedService<Channel, Proof>;

/// What a backend adds to each of its calls: who it is, and a deadline.
#[derive(Debug, Clone)]
pub struct Proof {
    token: String,
}

impl Interceptor for Proof {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.token.is_empty() {
            let value = format!("Bearer {}", self.token).parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        if !request.metadata().contains_key("grpc-timeout") {
            request.set_timeout(PATIENCE);
        }
        Ok(request)
    }
}

/// A backend.
#[derive(Debug, Clone)]
pub struct Caller {
    tenant: String,
    pub publishing: PublishServiceClient<Authorized>,
    pub rooms: RoomServiceClient<Authorized>,
    pub users: UserServiceClient<Authorized>,
    pub connections: ConnectionServiceClient<Authorized>,
    pub access: AccessServiceClient<Authorized>,
    pub watching: WatchServiceClient<Authorized>,
    pub subscribing: SubscribeServiceClient<Authorized>,
}

impl Caller {
    pub fn new(channel: Channel, token: &str) -> Self {
        let proof = Proof {
            token: token.to_owned(),
        };
        Self {
            tenant: TENANT.to_owned(),
            publishing: PublishServiceClient::with_interceptor(channel.clone(), proof.clone()),
            rooms: RoomServiceClient::with_interceptor(channel.clone(), proof.clone()),
            users: UserServiceClient::with_interceptor(channel.clone(), proof.clone()),
            connections: ConnectionServiceClient::with_interceptor(channel.clone(), proof.clone()),
            access: AccessServiceClient::with_interceptor(channel.clone(), proof.clone()),
            watching: WatchServiceClient::with_interceptor(channel.clone(), proof.clone()),
            subscribing: SubscribeServiceClient::with_interceptor(channel, proof),
        }
    }

    /// The same backend, for another tenant.
    pub fn of(mut self, tenant: &str) -> Self {
        tenant.clone_into(&mut self.tenant);
        self
    }

    /// Publishes an event to a room.
    pub async fn publish(&self, room: &str, event: &str, json: Value) -> v1::PublishResult {
        let request = v1::PublishRequest {
            targets: vec![to_room(room)],
            ..draft(event, json)
        };
        let results = self.send(request).await.expect("the event is accepted").results;
        let [result] = <[_; 1]>::try_from(results).expect("one result for one target");
        result
    }

    /// Publishes an event that is kept as the last value of its name.
    pub async fn publish_last_value(&self, room: &str, event: &str, json: Value) {
        let request = v1::PublishRequest {
            targets: vec![to_room(room)],
            retention: v1::Retention::LastValue.into(),
            ..draft(event, json)
        };
        self.send(request).await.expect("the event is accepted");
    }

    /// A room's history after a position, from old to new.
    pub async fn history_after(&self, room: &str, after: &v1::Position) -> Result<v1::ListHistoryResponse, Status> {
        let request = v1::ListHistoryRequest {
            tenant: self.tenant.clone(),
            room: room.to_owned(),
            after: Some(after.clone()),
            ..Default::default()
        };
        Ok(self.rooms.clone().list_history(request).await?.into_inner())
    }

    /// Publishes as the request says; the tenant is the caller's unless the request names one.
    pub async fn send(&self, request: v1::PublishRequest) -> Result<v1::PublishResponse, Status> {
        let request = self.stamped(request);
        let response = self.publishing.clone().publish(request).await?;
        Ok(response.into_inner())
    }

    /// The request, with the caller's tenant unless it names one.
    pub fn stamped(&self, request: v1::PublishRequest) -> v1::PublishRequest {
        let tenant = if request.tenant.is_empty() {
            self.tenant.clone()
        } else {
            request.tenant
        };
        v1::PublishRequest { tenant, ..request }
    }

    /// Asks a connection.
    pub async fn ask(&self, request: v1::AskRequest) -> Result<v1::ask_response::Answer, Status> {
        let response = self.connections.clone().ask(request).await?.into_inner();
        Ok(response.answer.expect("one of the answers is set"))
    }

    pub async fn stats(&self, room: &str) -> v1::GetRoomStatsResponse {
        let request = v1::GetRoomStatsRequest {
            tenant: self.tenant.clone(),
            room: room.to_owned(),
        };
        let stats = self.rooms.clone().get_room_stats(request).await;
        stats.expect("the statistics of a room").into_inner()
    }
}

/// An event without a target.
pub fn draft(event: &str, json: impl Into<Value>) -> v1::PublishRequest {
    v1::PublishRequest {
        event_name: event.to_owned(),
        payload: Some(payload(&json.into())),
        ..Default::default()
    }
}

/// A JSON payload.
pub fn payload(json: &Value) -> v1::Payload {
    v1::Payload {
        content: Some(Content::Json(json.to_string())),
    }
}

/// A room as a target.
pub fn to_room(room: &str) -> v1::Target {
    v1::Target {
        target: Some(Target::Room(room.to_owned())),
    }
}

/// The machine-readable reason of a refused call.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// How long a refused call asks to wait.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// A revocation of a user's access, for an hour.
pub fn revocation_of(user: &str, scope: v1::revoke_request::Scope) -> v1::RevokeRequest {
    v1::RevokeRequest {
        tenant: TENANT.to_owned(),
        subject: Some(v1::revoke_request::Subject::UserId(user.to_owned())),
        scope: Some(scope),
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..Default::default()
    }
}

/// An ask of one connection.
pub fn ask_of(connection: &str, method: &str, json: &Value) -> v1::AskRequest {
    v1::AskRequest {
        tenant: TENANT.to_owned(),
        session: Some(v1::ask_request::Session::ConnectionId(connection.to_owned())),
        method: method.to_owned(),
        payload: Some(payload(json)),
        ..Default::default()
    }
}
