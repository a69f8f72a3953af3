//! One client's session, as the commands it sends and the messages it is told: the contract between the protocols and the
//! shards. Knows no socket and no encoding.

mod command;
mod config;
mod cursor;
mod features;
pub mod link;
mod message;
pub mod recovery;

use bytes::Bytes;

use self::recovery::Recovery;
use crate::event::Event;

pub use command::{Answer, Command, HistoryFrom, JoinOptions, PresenceMode, Request, Since};
pub use config::Config;
pub use cursor::{Cursor, RoomTag};
pub use features::{ASKS, FEATURES};
pub use message::{HistoryPage, Joined, Message, Refusal, RoomChange};

/// A message as it goes to the transport: complete with the transport's framing, shared by all who get it.
pub type Frame = Bytes;

/// The protocol of a connection: its place in the gateway's registry, in `shard::Services::encoders`, and the slot of its frames
/// in [`crate::bus::Delivery::frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolId(u8);

impl ProtocolId {
    /// The most protocols of a gateway.
    pub const COUNT_MAX: usize = crate::bus::Delivery::FORMATS;

    /// The protocol of a client that asks for none.
    pub const DEFAULT: Self = Self(0);

    /// The protocol at this place.
    ///
    /// # Panics
    /// From 256 on; a registry is bounded by [`Self::COUNT_MAX`].
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self(u8::try_from(index).expect("a registry has few protocols"))
    }

    /// Its place.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The end that a connection adds to a frame that all share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// None: the frame is complete.
    None,
    /// A frame behind it, in one piece with it.
    Tail(Frame),
    /// A frame in its place.
    Whole(Frame),
}

/// The writing half of a protocol. The same bytes go to every connection that speaks it.
pub trait Encoder: Send + Sync + 'static {
    /// The protocol's name, which watchers of connections see; of a protocol over WebSockets its subprotocol.
    fn name(&self) -> &'static str;

    /// Encodes a reply (`id` of its command) or a push (`id` 0).
    fn message(&self, id: u32, message: &Message) -> Frame;

    /// The server's sign of life, which makes the client give one.
    fn heartbeat(&self) -> Frame;

    /// Encodes an event for a member that gets it.
    fn event(&self, event: &Event) -> Frame;

    /// Encodes an event for a member that does not get it: its link in the chain and nothing else. Only for events with
    /// a link. `None` in a protocol whose clients see no chain.
    fn passed(&self, event: &Event) -> Option<Frame>;

    /// Reports whether its connections keep a [`Cursor`].
    fn keeps_cursor(&self) -> bool {
        false
    }

    /// Encodes the cursor of one connection, to go before an event or a message and in one piece with it. The event's own bytes
    /// stay those that all share.
    fn before_event(&self, cursor: &Cursor) -> Option<Frame> {
        let _ = cursor;
        None
    }

    /// Completes a frame, which is shared, for one connection that can be recovered.
    fn complete(&self, frame: &Frame, recovery: &Recovery) -> Ending {
        let _ = (frame, recovery);
        Ending::None
    }
}
