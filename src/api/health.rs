//! `grpc.health.v1.Health`: the node's readiness, for probes and load balancers.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::readiness::{Readiness, Reasons};

/// The services with a state of their own; `""` is the node as a whole.
const SERVICES: [&str; 8] = [
    "",
    "roomcast.v1.PublishService",
    "roomcast.v1.RoomService",
    "roomcast.v1.UserService",
    "roomcast.v1.ConnectionService",
    "roomcast.v1.AccessService",
    "roomcast.v1.WatchService",
    "roomcast.v1.SubscribeService",
];

/// Answers probes from the readiness itself: there is no second state that could lag behind it.
pub(super) struct Probes(Readiness);

/// Builds the service of this node.
pub(super) fn server(readiness: &Readiness) -> HealthServer<Probes> {
    HealthServer::new(Probes(readiness.clone()))
}

/// Checks that a service is one of this node.
fn known(request: &Request<HealthCheckRequest>) -> Result<(), Status> {
    let is_known = SERVICES.contains(&request.get_ref().service.as_str());
    is_known
        .then_some(())
        .ok_or_else(|| Status::not_found("service not registered"))
}

fn response(reasons: Reasons) -> HealthCheckResponse {
    let status = if reasons.is_empty() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Probes {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request)?;
        Ok(Response::new(response(self.0.reasons())))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        known(&request)?;
        // The state now, then each change of the status: a second reason beside a first one changes nothing for a prober.
        let told: Option<HealthCheckResponse> = None;
        let statuses = stream::unfold((self.0.watch(), told), |(mut watch, told)| async move {
            let differs = |reasons: &Reasons| told.as_ref() != Some(&response(*reasons));
            let reasons = *watch.wait_for(differs).await.ok()?;
            let status = response(reasons);
            Some((Ok(status), (watch, Some(status))))
        });
        Ok(Response::new(statuses.boxed()))
    }
}
