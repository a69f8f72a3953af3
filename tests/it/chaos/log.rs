//! What everybody writes down during a round. Knows no gateway.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Microseconds since the round began, on the one clock of the test program.
pub type Micros = u64;

/// An event as its publisher calls it: who, and its how manyth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub by: u32,
    pub n: u32,
}

/// A position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    pub epoch: Arc<str>,
    pub offset: u64,
}

/// What a publisher was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is stored there.
    Stored(At),
    /// It was sent; it has no position.
    Sent,
    /// It is certainly not stored by this call.
    NotStored,
    /// It may be stored.
    Unknown,
}

/// One call, or one item of a batch or a stream.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub id: Id,
    pub room: usize,
    /// Which connection of the publisher: those of one are in order.
    pub via: u32,
    pub called: Micros,
    pub returned: Micros,
    pub answer: Answer,
}

/// What a client wrote down.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It is connected to this gateway.
    Connected(usize),
    /// Its connection ended; with a code, or without a word.
    Ended(Option<u16>),
    /// A join was answered. `called` is when it was asked for.
    Joined {
        room: usize,
        called: Micros,
        since: Option<At>,
        at: At,
        recovered: bool,
        replayed: u32,
    },
    /// A join was refused for good.
    Forbidden { room: usize },
    /// An event with a position.
    Event {
        room: usize,
        at: At,
        previous: u64,
        id: Option<Id>,
    },
    /// An event without one.
    Ephemeral { room: usize, id: Id },
    /// The gateway says that continuity is lost, and where the room goes on.
    Resync { room: usize, at: At },
    /// The gateway took it out of a room, because of a revocation or for another reason.
    Left { room: usize, revoked: bool },
    /// It was shown the history or the members of a room that it lost the right to. `called` is when it asked.
    Shown { room: usize, called: Micros },
    /// Delivery is interrupted, or goes on.
    Degraded(bool),
}

/// What one client wrote down, in its order.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    pub user: String,
    /// The rooms it is to be in at the end, unless it lost the right to.
    pub rooms: Vec<usize>,
    pub entries: Vec<(Micros, Seen)>,
}

/// A call of `Revoke` that was answered.
#[derive(Debug, Clone)]
pub struct Revocation {
    pub user: String,
    pub room: usize,
    pub returned: Micros,
    /// Nodes that did not confirm.
    pub unconfirmed: usize,
    /// How long the call took.
    pub took: Micros,
}

/// An event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub offset: u64,
    /// `None` for the one that ends the room.
    pub id: Option<Id>,
}

/// What the stream holds of one room at the end, in order.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub epoch: Arc<str>,
    pub events: Vec<Stored>,
    /// The stream may have let go of what stood before this offset.
    pub known_from: u64,
}

impl Truth {
    /// The index of the first event after an offset.
    pub fn after(&self, offset: u64) -> usize {
        self.events.partition_point(|event| event.offset <= offset)
    }

    /// Whether the stream is known at this offset.
    pub fn reaches(&self, offset: u64) -> bool {
        self.known_from <= offset
    }
}

/// All that was written down in a round.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub attempts: Vec<Attempt>,
    pub readers: Vec<Reader>,
    pub revocations: Vec<Revocation>,
    pub truth: BTreeMap<usize, Truth>,
}

impl Log {
    /// The attempts of each event, in their order.
    pub fn by_id(&self) -> HashMap<Id, Vec<&Attempt>> {
        let mut by_id: HashMap<Id, Vec<&Attempt>> = HashMap::new();
        for attempt in &self.attempts {
            by_id.entry(attempt.id).or_default().push(attempt);
        }
        by_id
    }
}
