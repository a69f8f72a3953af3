//! One user in one room: its connections, their states, and its grace period.
//!
//! A state belongs to the connection that set it and ends with it. The latest state set by a connection that is still
//! there, on any node, is shown. Only a user whose last connection was lost keeps its state through the grace period, for
//! the connection that reconnects.

use super::share::{Share, Stated, newer};
use crate::event::Timestamp;
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::presence::Present;

/// A user's connections in a room. The usual case, one connection, takes no more space than itself.
#[derive(Debug)]
enum Connections {
    One(ConnectionId),
    Unusual(Box<Unusual>),
}

#[derive(Debug)]
enum Unusual {
    /// The last connection was lost at this time and the grace period is not over.
    Lost {
        at_ms: u64,
    },
    Several(Vec<OwnConnection>),
    /// Some of the connections are on other nodes.
    Spread(Spread),
}

/// One of several connections on this node, with the state it has set.
#[derive(Debug)]
struct OwnConnection {
    connection: ConnectionId,
    state: Option<Box<Stated>>,
}

/// Connections on several nodes, at least one of them another node.
#[derive(Debug)]
struct Spread {
    own: Vec<OwnConnection>,
    /// Shares of other nodes, by incarnation.
    others: Vec<(u64, Share)>,
}

impl From<Unusual> for Connections {
    fn from(unusual: Unusual) -> Self {
        Self::Unusual(Box::new(unusual))
    }
}

/// A user in a room.
#[derive(Debug)]
pub(super) struct Attendance {
    connections: Connections,
    /// The state of the only connection, or of a lost user. With several connections, each keeps its own.
    state: Option<Box<Stated>>,
    since: Timestamp,
}

impl Attendance {
    /// Creates the attendance of a user with its first connection.
    pub(super) const fn of(connection: ConnectionId, since: Timestamp) -> Self {
        Self {
            connections: Connections::One(connection),
            state: None,
            since,
        }
    }

    /// Creates the attendance of a user known from another node.
    pub(super) fn away(node: u64, share: Share) -> Self {
        Self {
            since: share.since,
            state: None,
            connections: Unusual::Spread(Spread {
                own: Vec::new(),
                others: vec![(node, share)],
            })
            .into(),
        }
    }

    fn several(&self) -> &[OwnConnection] {
        match &self.connections {
            Connections::One(_) => &[],
            Connections::Unusual(unusual) => match &**unusual {
                Unusual::Lost { .. } => &[],
                Unusual::Several(several) => several,
                Unusual::Spread(spread) => &spread.own,
            },
        }
    }

    /// Returns the connections on this node.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        let only = match self.connections {
            Connections::One(only) => Some(only),
            Connections::Unusual(_) => None,
        };
        only.into_iter().chain(self.several().iter().map(|own| own.connection))
    }

    /// Returns the number of connections on this node.
    pub(super) fn own_count(&self) -> u32 {
        u32::try_from(self.connections().count()).unwrap_or(u32::MAX)
    }

    fn others(&self) -> &[(u64, Share)] {
        match &self.connections {
            Connections::Unusual(unusual) => match &**unusual {
                Unusual::Spread(spread) => &spread.others,
                Unusual::Lost { .. } | Unusual::Several(_) => &[],
            },
            Connections::One(_) => &[],
        }
    }

    /// Returns the number of connections on all nodes.
    pub(super) fn count(&self) -> u32 {
        self.others().iter().fold(self.own_count(), |count, (_, share)| {
            count.saturating_add(share.connections)
        })
    }

    /// Returns the number of a node's connections; `None` when it has none.
    pub(super) fn count_of(&self, node: u64) -> Option<u32> {
        let share = self.others().iter().find(|(known, _)| *known == node);
        share.map(|(_, share)| share.connections)
    }

    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.connections().any(|known| known == connection)
    }

    /// Returns the time at which the last connection was lost, while the user is in its grace period.
    pub(super) fn lost_at_ms(&self) -> Option<u64> {
        match &self.connections {
            Connections::Unusual(unusual) => match **unusual {
                Unusual::Lost { at_ms } => Some(at_ms),
                Unusual::Several(_) | Unusual::Spread(_) => None,
            },
            Connections::One(_) => None,
        }
    }

    /// Adds a new connection. The first one of a lost user takes over its state.
    pub(super) fn add(&mut self, connection: ConnectionId) {
        self.learn_since();
        let own = OwnConnection {
            connection,
            state: None,
        };
        match &mut self.connections {
            Connections::One(first) => {
                let first = OwnConnection {
                    connection: *first,
                    state: self.state.take(),
                };
                self.connections = Unusual::Several(vec![first, own]).into();
            }
            Connections::Unusual(unusual) => match &mut **unusual {
                Unusual::Lost { .. } => self.connections = Connections::One(connection),
                Unusual::Several(several) => several.push(own),
                Unusual::Spread(spread) => spread.own.push(own),
            },
        }
    }

    /// Removes a connection with the state it has set.
    pub(super) fn take(&mut self, connection: ConnectionId, now_ms: u64) {
        match &mut self.connections {
            Connections::One(only) if *only == connection => self.connections = Unusual::Lost { at_ms: now_ms }.into(),
            Connections::One(_) => {}
            Connections::Unusual(unusual) => match &mut **unusual {
                Unusual::Several(several) => {
                    several.retain(|own| own.connection != connection);
                    let left = std::mem::take(several);
                    self.keep(left);
                }
                Unusual::Spread(spread) => spread.own.retain(|own| own.connection != connection),
                Unusual::Lost { .. } => {}
            },
        }
    }

    /// Keeps exactly these connections, at least one and all of them on this node.
    fn keep(&mut self, mut own: Vec<OwnConnection>) {
        match own.pop() {
            Some(last) if own.is_empty() => {
                self.connections = Connections::One(last.connection);
                self.state = last.state;
            }
            last => {
                own.extend(last);
                self.connections = Unusual::Several(own).into();
            }
        }
    }

    /// Sets another node's share of the user. Returns whether this node, if it has connections of the user too, learned
    /// something that it must replicate.
    pub(super) fn set_share(&mut self, node: u64, share: Share) -> bool {
        let state = self.state.take();
        let mut spread = match std::mem::replace(&mut self.connections, Unusual::Lost { at_ms: 0 }.into()) {
            Connections::One(connection) => Spread::of(vec![OwnConnection { connection, state }]),
            Connections::Unusual(unusual) => match *unusual {
                Unusual::Lost { .. } => Spread::of(Vec::new()),
                Unusual::Several(several) => Spread::of(several),
                Unusual::Spread(spread) => spread,
            },
        };
        match spread.others.iter_mut().find(|(known, _)| *known == node) {
            Some((_, known)) => *known = share,
            None => spread.others.push((node, share)),
        }
        let has_own = !spread.own.is_empty();
        self.connections = Unusual::Spread(spread).into();
        has_own && self.learn_since()
    }

    /// Removes another node's share of the user.
    pub(super) fn take_share(&mut self, node: u64, lost_ms: u64) {
        // Before the share is removed: a lost user keeps the earliest time that any node knew.
        if self.own_count() == 0 {
            self.learn_since();
        }
        let Connections::Unusual(unusual) = &mut self.connections else {
            return;
        };
        let Unusual::Spread(spread) = &mut **unusual else {
            return;
        };
        let mut ended = None;
        spread.others.retain_mut(|(known, share)| {
            let is_it = *known == node;
            if is_it {
                ended = share.state.take();
            }
            !is_it
        });
        if spread.others.is_empty() {
            match std::mem::take(&mut spread.own) {
                own if own.is_empty() => {
                    self.connections = Unusual::Lost { at_ms: lost_ms }.into();
                    self.state = ended;
                }
                own => self.keep(own),
            }
        }
    }

    /// Adopts the earliest time that any node knows. Returns whether that is new to this node.
    fn learn_since(&mut self) -> bool {
        if self.others().is_empty() {
            return false;
        }
        let since = self.since();
        std::mem::replace(&mut self.since, since) != since
    }

    fn since(&self) -> Timestamp {
        let own_counts = self.own_count() > 0 || self.others().is_empty();
        let others = self.others().iter().map(|(_, share)| share.since);
        others
            .chain(own_counts.then_some(self.since))
            .min()
            .unwrap_or(self.since)
    }

    /// Returns the state of this node's connections that was set last.
    fn own_stated(&self) -> Option<&Stated> {
        let several = self.several().iter().map(|own| own.state.as_deref());
        several.fold(self.state.as_deref(), newer)
    }

    fn stated(&self) -> Option<&Stated> {
        let others = self.others().iter().map(|(_, share)| share.state.as_deref());
        others.fold(self.own_stated(), newer)
    }

    /// Sets or clears the state of a connection of this node.
    pub(super) fn set_state(&mut self, connection: ConnectionId, value: Option<Json>, now: Timestamp) {
        let known = self.stated().map(|stated| stated.at);
        // Above every known state, whatever the clock says: the latest write must win on every node.
        let at = known.map_or(now, |known| now.max(Timestamp(known.0 + 1)));
        let state = value.map(|value| Box::new(Stated { at, value }));
        match &mut self.connections {
            Connections::One(_) => self.state = state,
            Connections::Unusual(unusual) => {
                let several = match &mut **unusual {
                    Unusual::Lost { .. } => return,
                    Unusual::Several(several) => several,
                    Unusual::Spread(spread) => &mut spread.own,
                };
                if let Some(own) = several.iter_mut().find(|own| own.connection == connection) {
                    own.state = state;
                }
            }
        }
    }

    /// Returns this node's share of the user; `None` without a connection.
    pub(super) fn own_share(&self) -> Option<Share> {
        let connections = self.own_count();
        (connections > 0).then(|| Share {
            connections,
            since: self.since,
            state: self.own_stated().cloned().map(Box::new),
        })
    }

    /// Returns the user as shown to others.
    pub(super) fn shown(&self, user: &UserId) -> Present {
        Present {
            user: user.clone(),
            state: self.stated().map(|stated| stated.value.clone()),
            connections: self.count().max(1),
            since: self.since(),
        }
    }
}

impl Spread {
    const fn of(own: Vec<OwnConnection>) -> Self {
        Self {
            own,
            others: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
