//! The generated code of `proto/`: messages, gRPC clients and servers.
//!
//! Wire types only, and beside them [`call`] for the adapters that call a backend, and [`time`]. The edges convert them
//! to and from the vocabulary; nothing below the edges sees them, and this module does not know the vocabulary.

pub mod call;
pub mod time;

/// `roomcast.v1`: the API for backends.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("roomcast.v1");
}

/// `roomcast.backend.v1`: the services that backends implement.
pub mod backend {
    /// Nested as the package is: the generated code names `roomcast.v1` relative to it.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        clippy::pedantic,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("roomcast.backend.v1");
    }
}

/// `roomcast.client.v1`: the native WebSocket protocol in its protobuf form.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod client_v1 {
    tonic::include_proto!("roomcast.client.v1");
}

/// `roomcast.node.v1`: the messages between nodes.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod node_v1 {
    tonic::include_proto!("roomcast.node.v1");
}

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, imports and comments included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/roomcast.bin"));
