//! A real `nats-server` with `JetStream`: one, or a cluster of three, that a test may kill, pause and start again.
//!
//! The programs are those of `scripts/setup.sh nats`. Each server has a loopback address, ports and a store of its own, so
//! that tests run beside each other, and beside whatever else listens on this machine. It ends with the value that owns it,
//! and with the test program, however that ends.
//!
//! Knows nothing of Roomcast: unit tests inside the crate use the same file. Hence the paths below: they lead to the same
//! place, whichever module includes this one. Such a module allows `dead_code`, `unused_imports` and `unreachable_pub`,
//! because it uses a part.
//!
//! ```ignore
//! let nats = NatsServer::start().await;
//! nats.kill();
//! nats.restart().await; // same address, same store
//!
//! let cluster = NatsCluster::start().await;
//! let leader = cluster.stream_leader("EVENTS").await;
//! cluster.server(leader).pause();
//! ```

#[path = "nats/address.rs"]
mod address;
#[path = "nats/cluster.rs"]
mod cluster;
#[path = "nats/monitor.rs"]
mod monitor;
#[path = "nats/options.rs"]
mod options;
#[path = "nats/process.rs"]
mod process;
#[path = "nats/server.rs"]
mod server;
#[path = "nats/tls.rs"]
mod tls;

pub use address::Address;
pub use cluster::NatsCluster;
pub use options::{NatsOptions, Release};
pub use process::Process;
pub use server::NatsServer;
pub use tls::{Authority, NatsTls};
