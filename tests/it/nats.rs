//! Several gateways on a real nats-server.

mod nodes;
mod permissions;
