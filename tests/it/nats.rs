//! Several gateways on a real nats-server.

mod account;
mod away;
mod credentials;
mod denied;
mod elections;
mod full;
mod hands;
mod lame_duck;
mod large;
mod leases;
mod load;
mod nodes;
mod permissions;
mod replicas;
mod settings;
mod starts;
mod whispers;

use roomcast::gateway::Config;
use serde_json::json;

use crate::support::{Client, Node, user};

/// The settings of gateways over these servers.
fn over(servers: &str) -> impl Fn(&mut Config) + Send + Sync + 'static {
    let servers: Vec<String> = servers.split(',').map(str::to_owned).collect();
    move |config| {
        let nats = config.nats.as_mut().expect("there are several gateways");
        nats.servers.clone_from(&servers);
    }
}

/// A member of a room at one of two gateways, to which an event from the other has come.
async fn member(node: &Node, gateway: usize) -> Client {
    let mut ada = node.of_several(gateway).connect(user("ada")).await;
    ada.join("r").await;
    let backend = node.of_several(1 - gateway).backend();
    backend.publish("r", "before", json!({})).await;
    ada.expect_event("r", "before").await;
    ada
}
