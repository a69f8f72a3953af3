//! A room that a session is to enter, what for, and what was found out for it.

use std::rc::Rc;

use super::clients::Right;
use super::tally::Tally;
use crate::policy::Permit;
use crate::rooms::{Catchup, Start};
use crate::session::{JoinOptions, Refusal, RoomChange, Since};

/// One room a session is to enter.
#[derive(Debug)]
pub(super) struct Entry {
    pub permit: Permit,
    pub options: JoinOptions,
    /// Whether the client may read the room's history; `None` when that is still to be asked.
    pub may_read_history: Option<bool>,
    /// Not by the client's own right.
    pub granted: bool,
}

impl Entry {
    pub fn granted(permit: Permit) -> Self {
        Self {
            permit,
            options: JoinOptions::default(),
            may_read_history: None,
            granted: true,
        }
    }

    /// Returns the right by which the client is in the room once it is entered.
    pub const fn right(&self) -> Right {
        match (self.granted, self.permit.edition()) {
            (false, _) => Right::Own,
            (true, Some(_)) => Right::Template,
            (true, None) => Right::Backend,
        }
    }

    /// Whether a client that is in the room already asks for nothing of the past.
    pub const fn is_change_only(&self) -> bool {
        self.options.since.is_none() && self.options.rewind == 0
    }

    pub fn catchup(&self) -> Catchup {
        match (self.options.since, self.options.rewind) {
            (Some(Since::At(position)), _) if self.may_read_history == Some(true) => Catchup::Since(position),
            (None, rewind @ 1..) if self.may_read_history == Some(true) => Catchup::Newest(rewind as usize),
            _ => Catchup::Live,
        }
    }
}

/// The occasion on which rooms are entered, and so what the client is told.
#[derive(Debug)]
pub(super) enum Cause {
    /// The session opens; the reply to the connect command names the rooms.
    Opening(u32),
    /// The client's command with this id.
    Command(u32),
    /// The server's doing.
    Server {
        change: RoomChange,
        ends_command: bool,
        tally: Option<Rc<Tally>>,
    },
}

/// The facts about a room that is to be entered.
pub(super) struct Found {
    pub start: Result<Start, Refusal>,
    /// Whether everyone who is there is known to this node.
    pub confirmed: bool,
}

pub(super) type Entering = Vec<(Entry, Found)>;
