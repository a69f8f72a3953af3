//! The state of one client. At rest it holds an identity and its memberships, and no memory for what is not in use.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::identity::{ConnectionId, Identity};
use crate::position::Offset;
use crate::presence::Member;
use crate::rate::TokenBucket;
use crate::room::Room;
use crate::session::{PresenceMode, Request};
use crate::shard::local::RoomKey;

/// A room the client is in.
#[derive(Debug)]
pub(in crate::shard) struct Membership {
    /// The room's slot in the shard.
    pub room: RoomKey,
    /// The member's slot in the room.
    pub slot: u32,
    /// The head it started from: events up to it, arriving late, are not for this member.
    pub start: Offset,
    /// The version of the roster it was given, if it sees presence; only later changes are for it.
    pub presence: Option<NonZeroU64>,
    /// The part of the presence it sees.
    pub mode: PresenceMode,
    /// The right by which it is in the room.
    pub right: MembershipRight,
}

/// The right by which a client is in a room. A later one covers an earlier one: a room that a client joins which a backend has put it
/// into is still one by the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shard) enum MembershipRight {
    /// It joined by its own right: asked for again for another token and by other rules.
    Own,
    /// A template put it in: asked for again by other rules only.
    Template,
    /// A backend put it in, or the authorizer when it connected: not asked for again.
    Backend,
}

/// State of a busy client. Freed as soon as it is empty.
#[derive(Debug, Default)]
struct Pending {
    /// Commands that wait for the one under way.
    waiting: VecDeque<Request>,
    /// Rooms it is being joined to.
    joining: Vec<Room>,
}

/// Facts about a client, one bit each: a session has one byte to spare, and every connection at rest pays for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) struct ClientFacts(u8);

impl ClientFacts {
    /// It has asked to go on from a position.
    pub const RESUMED: Self = Self(1);
    /// It answers asks of backends.
    pub const ANSWERS: Self = Self(1 << 1);

    pub const fn has(self, fact: Self) -> bool {
        self.0 & fact.0 != 0
    }

    /// Notes a fact; returns whether it was known.
    pub const fn note(&mut self, fact: Self) -> bool {
        let was_known = self.has(fact);
        self.0 |= fact.0;
        was_known
    }
}

/// What is counted of a client: rates, misuse, and that it has come back.
#[derive(Debug)]
pub(in crate::shard) struct RateState {
    pub join_rate: TokenBucket,
    pub publish_rate: TokenBucket,
    /// Requests to a backend under way.
    pub asks: u8,
    /// Messages that could not be read since the last heartbeat.
    pub malformed: u8,
    /// Refusals for the rate since then.
    pub strikes: u8,
    /// What is known of it for its session's life.
    pub facts: ClientFacts,
}

impl RateState {
    const fn new(now_ms: u64) -> Self {
        Self {
            join_rate: TokenBucket::new(now_ms),
            publish_rate: TokenBucket::new(now_ms),
            asks: 0,
            malformed: 0,
            strikes: 0,
            facts: ClientFacts(0),
        }
    }
}

/// The phase of a session's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shard) enum Phase {
    /// Not authenticated.
    Anonymous,
    /// A token is being verified.
    Authenticating,
    /// Open, for this identity.
    Open(Arc<Identity>),
    /// About to be closed: nothing more is sent or done.
    Closing(Option<Arc<Identity>>),
}

/// One client.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not the states of one thing"
)]
pub(in crate::shard) struct Session {
    pub connection: ConnectionId,
    /// Tells apart the sessions that had the same slot.
    pub generation: u32,
    /// The time of the client's last sign of life, in seconds of the shard's clock.
    pub seen_s: u32,
    /// A command is being carried out.
    pub busy: bool,
    /// Its first message has been sent; nothing that is pushed may come before.
    pub greeted: bool,
    /// The end of the token is near and has a timer.
    pub ends_soon: bool,
    /// Reading has stopped because too many commands wait.
    pub paused: bool,
    pub phase: Phase,
    pub memberships: Vec<Membership>,
    pub rates: RateState,
    pending: Option<Box<Pending>>,
}

impl Session {
    /// A session that begins at `now_ms` of the shard's clock.
    pub fn new(connection: ConnectionId, generation: u32, now_ms: u64) -> Self {
        Self {
            connection,
            generation,
            seen_s: u32::try_from(now_ms / 1000).unwrap_or(u32::MAX),
            busy: false,
            greeted: false,
            ends_soon: false,
            paused: false,
            phase: Phase::Anonymous,
            memberships: Vec::new(),
            rates: RateState::new(now_ms),
            pending: None,
        }
    }

    pub const fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.phase {
            Phase::Open(identity) | Phase::Closing(Some(identity)) => Some(identity),
            Phase::Anonymous | Phase::Authenticating | Phase::Closing(None) => None,
        }
    }

    pub const fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// The client as a member of a room.
    pub fn member(&self) -> Option<Member> {
        let identity = self.identity()?;
        Some(Member {
            connection: self.connection,
            user: identity.user.clone(),
        })
    }

    pub fn membership(&self, room: RoomKey) -> Option<&Membership> {
        self.memberships.iter().find(|membership| membership.room == room)
    }

    pub fn membership_mut(&mut self, room: RoomKey) -> Option<&mut Membership> {
        self.memberships.iter_mut().find(|membership| membership.room == room)
    }

    /// Adds a membership without the doubling of a growing vector: most clients are in a room or two.
    pub fn add_membership(&mut self, membership: Membership) {
        if self.memberships.len() == self.memberships.capacity() {
            self.memberships.reserve_exact(1 + self.memberships.len() / 2);
        }
        self.memberships.push(membership);
    }

    /// Removes a membership. The last one frees the list.
    pub fn take_membership(&mut self, room: RoomKey) -> Option<Membership> {
        let index = self.memberships.iter().position(|membership| membership.room == room)?;
        let membership = self.memberships.swap_remove(index);
        if self.memberships.is_empty() {
            self.memberships = Vec::new();
        }
        Some(membership)
    }

    /// Queues a command. Returns the number of queued commands.
    pub fn wait(&mut self, request: Request) -> usize {
        let waiting = &mut self.pending.get_or_insert_default().waiting;
        waiting.push_back(request);
        waiting.len()
    }

    pub fn is_waiting(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.waiting.is_empty())
    }

    /// The command that has waited longest.
    pub fn next_waiting(&mut self) -> Option<Request> {
        let request = self.pending.as_mut()?.waiting.pop_front();
        self.forget_pending();
        request
    }

    pub fn begin_joining(&mut self, rooms: impl Iterator<Item = Room>) {
        self.pending.get_or_insert_default().joining.extend(rooms);
    }

    pub fn end_joining(&mut self, room: &Room) {
        if let Some(pending) = &mut self.pending {
            pending.joining.retain(|other| other != room);
            self.forget_pending();
        }
    }

    pub fn joining(&self) -> &[Room] {
        self.pending.as_ref().map_or(&[], |pending| &pending.joining)
    }

    fn forget_pending(&mut self) {
        self.pending
            .take_if(|pending| pending.waiting.is_empty() && pending.joining.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte here is paid for by every connection at rest.
    #[test]
    fn a_session_at_rest_is_small() {
        assert_eq!((size_of::<Session>(), size_of::<Membership>()), (96, 32));
    }
}
