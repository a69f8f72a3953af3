//! A room that a session is to enter, what for, and what was found out for it.

use std::rc::Rc;

use super::clients::MembershipRight;
use super::tally::JoinTally;
use crate::policy::Permit;
use crate::rooms::{Catchup, Start};
use crate::session::{JoinOptions, Refusal, RoomChange, Since};

/// The right to read a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryRight {
    /// The policy has not been asked.
    Unasked,
    /// The policy allows it.
    Granted,
    /// The policy denies it.
    Denied,
}

impl HistoryRight {
    /// Returns the right by the policy's decision.
    pub const fn of<T, E>(decision: &Result<T, E>) -> Self {
        match decision {
            Ok(_) => Self::Granted,
            Err(_) => Self::Denied,
        }
    }
}

/// One room a session is to enter.
#[derive(Debug)]
pub(super) struct RoomEntry {
    pub permit: Permit,
    pub options: JoinOptions,
    pub history: HistoryRight,
    /// Not by the client's own right.
    pub granted: bool,
}

impl RoomEntry {
    pub fn granted(permit: Permit) -> Self {
        Self {
            permit,
            options: JoinOptions::default(),
            history: HistoryRight::Unasked,
            granted: true,
        }
    }

    /// Returns the right by which the client is in the room once it is entered.
    pub const fn right(&self) -> MembershipRight {
        match (self.granted, self.permit.edition()) {
            (false, _) => MembershipRight::Own,
            (true, Some(_)) => MembershipRight::Template,
            (true, None) => MembershipRight::Backend,
        }
    }

    /// Reports whether a member that joins again asks for nothing of the past.
    pub const fn is_change_only(&self) -> bool {
        self.options.since.is_none() && self.options.rewind == 0
    }

    pub fn catchup(&self) -> Catchup {
        match (self.options.since, self.options.rewind) {
            (Some(Since::At(position)), _) if self.history == HistoryRight::Granted => Catchup::Since(position),
            (None, rewind @ 1..) if self.history == HistoryRight::Granted => Catchup::Newest(rewind as usize),
            _ => Catchup::Live,
        }
    }
}

/// The occasion on which rooms are entered, and so what the client is told.
#[derive(Debug)]
pub(super) enum EntryCause {
    /// The session opens; the reply to the connect command names the rooms.
    Opening(u32),
    /// The client's command with this id.
    Command(u32),
    /// The server's doing.
    Server {
        change: RoomChange,
        ends_command: bool,
        tally: Option<Rc<JoinTally>>,
    },
}

/// The facts about a room that is to be entered.
pub(super) struct EntryFacts {
    pub start: Result<Start, Refusal>,
    /// Set if this node knows everyone who is there.
    pub confirmed: bool,
}

pub(super) type Entering = Vec<(RoomEntry, EntryFacts)>;
