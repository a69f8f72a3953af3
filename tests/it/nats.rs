//! Several gateways on a real nats-server.

mod permissions;
