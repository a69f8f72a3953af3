//! The form of the components' settings, section by section.
//!
//! A mirror repeats a component's `Config` field by field for serde, so that components stay free of it; the compiler
//! checks that the two agree. Several components that are set together have a section of their own.

mod check;
mod client;
mod grpc;
mod limits;
mod nats;
mod rooms;
mod services;
mod socketio;
mod sse;
mod subscriptions;

pub use client::{AdminSection, ClientSection, NodeSection};
pub use grpc::{GrpcSection, TlsSection};
pub use limits::SocketSection;
pub use nats::{NatsSection, NatsTlsSection, StorageSetting};
pub use rooms::{HistoryOfRooms, HistorySection, SizeSetting};
pub use services::{ScopeName, ServiceSection};
pub use socketio::{SocketIoSection, TokenSourceName};

pub(super) use check::check;
pub(super) use limits::{Connections, Session};
pub(super) use rooms::{MemoryBus, MemoryPresence};
pub(super) use sse::Sse;
