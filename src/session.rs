//! One client's life, as commands it sends and messages it is told. Knows no socket, no encoding and no bus.

mod close;
mod command;
mod config;
mod emit;
mod enter;
mod expiring;
mod fanout;
mod features;
mod index;
mod join;
mod leave;
pub mod link;
mod message;
mod open;
mod orders;
pub mod outbox;
mod publish;
mod query;
mod send;
mod sessions;
mod start;
mod state;
mod sweep;
mod tally;
mod tenants;
#[cfg(test)]
mod tests;
mod turns;

use bytes::Bytes;

use crate::event::Event;

pub use close::Closed;
pub use command::{Command, HistoryFrom, JoinOptions, PresenceMode, Request, Since};
pub use config::Config;
pub use emit::Application;
pub use features::FEATURES;
pub use message::{HistoryPage, Joined, Message, Refusal, RoomChange};
pub use sessions::{Happening, Post, Services, Sessions};

/// A message as it goes to the transport: complete with the transport's framing, shared by all who get it.
pub type Frame = Bytes;

/// How one kind of connection writes. Implemented by the edges; the same bytes go to every connection of a kind.
pub trait Wire: Send + Sync + 'static {
    /// What a connection of this kind speaks: the name of its subprotocol.
    fn protocol(&self) -> &'static str;

    /// The kind's slot in [`crate::bus::Delivery::frame`]; unique among the wires of a gateway.
    fn format(&self) -> usize;

    /// Encodes a reply (`id` of its command) or a push (`id` 0).
    fn message(&self, id: u32, message: &Message) -> Frame;

    /// The server's sign of life, which makes the client give one.
    fn heartbeat(&self) -> Frame;

    /// Encodes an event for a member that gets it.
    fn event(&self, event: &Event) -> Frame;

    /// Encodes an event for a member that does not get it: its link in the chain and nothing else. Only for events with
    /// a link.
    fn passed(&self, event: &Event) -> Frame;
}
