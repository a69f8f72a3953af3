//! The harness of the integration tests, for the tests inside the crate.

#[path = "../tests/it/support/nats.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::pedantic,
    clippy::module_inception,
    clippy::disallowed_methods,
    reason = "written for the integration tests, and used in part"
)]
pub mod nats;

#[path = "../tests/it/support/proxy.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::pedantic,
    clippy::disallowed_methods,
    reason = "written for the integration tests, and used in part"
)]
pub mod proxy;

pub mod mutator;
