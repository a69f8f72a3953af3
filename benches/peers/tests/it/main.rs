//! The peers, as the load generator meets them: what is published reaches exactly the members of its room, in order.

#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

mod echo;
mod peer;
mod rooms;
