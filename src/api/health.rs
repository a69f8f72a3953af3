//! `grpc.health.v1.Health`: the node's readiness, for probes and load balancers.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// The services with a state of their own; `""` is the node as a whole.
const SERVICES: [&str; 7] = [
    "",
    "roomcast.v1.PublishService",
    "roomcast.v1.RoomService",
    "roomcast.v1.UserService",
    "roomcast.v1.ConnectionService",
    "roomcast.v1.AccessService",
    "roomcast.v1.WatchService",
];

/// Reports the node's readiness. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Creates the state of a node that does not serve yet.
    pub async fn new() -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
        };
        health.set_serving(false).await;
        health
    }

    /// Sets the readiness: not while the bus is away, and not while the node drains.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }

    pub(super) fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }
}
