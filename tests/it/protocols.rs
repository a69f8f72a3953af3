//! Protocols that a gateway is given beside its own: what it takes to add one.

mod echo;
pub mod events;
mod lines;
