//! WebSockets (RFC 6455), server side.

pub mod frame;
