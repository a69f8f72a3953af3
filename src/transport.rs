//! Transports: how clients reach a session. Each speaks commands and messages of [`crate::session`] and never sees hub,
//! bus or another edge.

pub mod native;
pub mod websocket;
