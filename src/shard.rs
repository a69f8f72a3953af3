//! A shard without its sockets: the sessions that one thread serves, their rooms, and what they are told.
//!
//! [`Sessions`] is put together from parts that each own their state. A command of a client is carried out by
//! `commands`, one at a time for each session; a delivery goes from the mailbox into the line of its room (`local`), and from
//! there to the members' sockets by the fan-out.

mod asked;
mod clients;
mod close;
mod commands;
mod effects;
mod enter;
mod entry;
mod expiry;
mod fanout;
mod gate;
mod kept;
pub mod local;
mod members;
mod messages;
mod orders;
mod recheck;
mod restore;
mod revocations;
mod services;
mod sessions;
mod sweep;
mod tally;
#[cfg(test)]
mod tests;
mod timers;
mod turns;

pub use clients::Key;
pub use close::ClosedSession;
pub use services::{Application, Services, ShardEndpoint};
pub use sessions::{Sessions, ShardEvent};
