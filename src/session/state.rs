//! What is kept of one client. At rest: an identity, its memberships, and nothing that is not used.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::Request;
use crate::hub::local::RoomKey;
use crate::identity::{ConnectionId, Identity};
use crate::position::Offset;
use crate::presence::Member;
use crate::rate::TokenBucket;
use crate::room::Room;

/// A room the client is in.
#[derive(Debug)]
pub(super) struct Membership {
    /// The room's slot in the shard.
    pub room: RoomKey,
    /// The member's slot in the room.
    pub slot: u32,
    /// The head it started from: events up to it, arriving late, are not for this member.
    pub start: Offset,
    /// The version of the roster it was given, if it sees presence; only later changes are for it.
    pub presence: Option<NonZeroU64>,
    /// A backend or a template put it in: the client's own right to join is not asked for again.
    pub granted: bool,
}

/// What only a busy client needs.
#[derive(Debug)]
pub(super) struct Activity {
    /// Commands that wait for the one under way.
    pub waiting: VecDeque<Request>,
    /// Rooms it is being joined to.
    pub joining: Vec<Room>,
    /// Requests to a backend under way.
    pub asks: u8,
    /// Commands that could not be read so far.
    pub malformed: u8,
    /// Refusals for the rate so far.
    pub strikes: u8,
    pub join_rate: TokenBucket,
    pub publish_rate: TokenBucket,
    /// When it last did something.
    pub last_ms: u64,
}

impl Activity {
    pub const fn new(now_ms: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            joining: Vec::new(),
            asks: 0,
            malformed: 0,
            strikes: 0,
            join_rate: TokenBucket::new(now_ms),
            publish_rate: TokenBucket::new(now_ms),
            last_ms: now_ms,
        }
    }

    /// Whether nothing would be forgotten with it.
    pub fn is_forgettable(&self, now_ms: u64) -> bool {
        const QUIET_MS: u64 = 20_000;
        self.waiting.is_empty()
            && self.joining.is_empty()
            && self.asks == 0
            && self.malformed == 0
            && now_ms.saturating_sub(self.last_ms) > QUIET_MS
    }
}

/// Where a session is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody yet.
    Anonymous,
    /// A token is being verified.
    Authenticating,
    /// Open, for this identity.
    Open(Arc<Identity>),
    /// About to be closed: nothing more is sent or done.
    Doomed(Option<Arc<Identity>>),
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    pub connection: ConnectionId,
    /// Tells apart the sessions that had the same slot.
    pub generation: u32,
    /// When the client last gave a sign of life, in seconds of the shard's clock.
    pub seen_s: u32,
    /// A command is being carried out.
    pub busy: bool,
    /// The end of the token is near and has a timer.
    pub ends_soon: bool,
    /// Reading has stopped because too many commands wait.
    pub paused: bool,
    pub phase: Phase,
    pub memberships: Vec<Membership>,
    activity: Option<Box<Activity>>,
}

impl Session {
    pub fn new(connection: ConnectionId, generation: u32, seen_s: u32) -> Self {
        Self {
            connection,
            generation,
            seen_s,
            busy: false,
            ends_soon: false,
            paused: false,
            phase: Phase::Anonymous,
            memberships: Vec::new(),
            activity: None,
        }
    }

    pub const fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.phase {
            Phase::Open(identity) | Phase::Doomed(Some(identity)) => Some(identity),
            Phase::Anonymous | Phase::Authenticating | Phase::Doomed(None) => None,
        }
    }

    pub const fn is_doomed(&self) -> bool {
        matches!(self.phase, Phase::Doomed(_))
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

    pub fn activity(&mut self, now_ms: u64) -> &mut Activity {
        let activity = self.activity.get_or_insert_with(|| Box::new(Activity::new(now_ms)));
        activity.last_ms = now_ms;
        activity
    }

    pub fn activity_if_any(&mut self) -> Option<&mut Activity> {
        self.activity.as_deref_mut()
    }

    pub fn joining(&self) -> &[Room] {
        self.activity.as_ref().map_or(&[], |activity| &activity.joining)
    }

    /// Gives back what a quiet client does not need.
    pub fn forget_activity(&mut self, now_ms: u64) {
        if self
            .activity
            .as_ref()
            .is_some_and(|activity| activity.is_forgettable(now_ms))
        {
            self.activity = None;
        }
    }
}
