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

/// The settings of gateways over these servers.
fn over(servers: &str) -> impl Fn(&mut Config) + Send + Sync + 'static {
    let servers: Vec<String> = servers.split(',').map(str::to_owned).collect();
    move |config| {
        let nats = config.nats.as_mut().expect("there are several gateways");
        nats.servers.clone_from(&servers);
    }
}
