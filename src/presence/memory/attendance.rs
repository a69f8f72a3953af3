//! One user in one room: its connections, its state, and whether it is on its way back.

use crate::event::Timestamp;
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::presence::Present;

/// A user's connections in a room. One is usual, and takes no more than itself.
#[derive(Debug)]
enum Connections {
    One(ConnectionId),
    Unusual(Box<Unusual>),
}

#[derive(Debug)]
enum Unusual {
    /// The last one was lost at this time and the grace period is not over.
    Lost {
        at_ms: u64,
    },
    Several(Vec<ConnectionId>),
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
    state: Option<Box<Json>>,
    since: Timestamp,
}

impl Attendance {
    /// A user that comes by its first connection.
    pub(super) const fn of(connection: ConnectionId, since: Timestamp) -> Self {
        Self {
            connections: Connections::One(connection),
            state: None,
            since,
        }
    }

    pub(super) fn connections(&self) -> &[ConnectionId] {
        match &self.connections {
            Connections::One(connection) => std::slice::from_ref(connection),
            Connections::Unusual(unusual) => match &**unusual {
                Unusual::Lost { .. } => &[],
                Unusual::Several(several) => several,
            },
        }
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.connections().len()).unwrap_or(u32::MAX)
    }

    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.connections().contains(&connection)
    }

    /// When the last connection was lost, if none has come since.
    pub(super) fn lost_at_ms(&self) -> Option<u64> {
        match &self.connections {
            Connections::Unusual(unusual) => match **unusual {
                Unusual::Lost { at_ms } => Some(at_ms),
                Unusual::Several(_) => None,
            },
            Connections::One(_) => None,
        }
    }

    /// Adds a connection that is not there.
    pub(super) fn add(&mut self, connection: ConnectionId) {
        match &mut self.connections {
            Connections::One(first) => self.connections = Unusual::Several(vec![*first, connection]).into(),
            Connections::Unusual(unusual) => match &mut **unusual {
                Unusual::Lost { .. } => self.connections = Connections::One(connection),
                Unusual::Several(several) => several.push(connection),
            },
        }
    }

    /// Takes a connection off.
    pub(super) fn take(&mut self, connection: ConnectionId, now_ms: u64) {
        match &mut self.connections {
            Connections::One(only) if *only == connection => self.connections = Unusual::Lost { at_ms: now_ms }.into(),
            Connections::One(_) => {}
            Connections::Unusual(unusual) => {
                if let Unusual::Several(several) = &mut **unusual {
                    several.retain(|known| *known != connection);
                    if let [last] = several[..] {
                        self.connections = Connections::One(last);
                    }
                }
            }
        }
    }

    pub(super) fn set_state(&mut self, state: Option<Json>) {
        self.state = state.map(Box::new);
    }

    /// How others see the user.
    pub(super) fn shown(&self, user: &UserId) -> Present {
        Present {
            user: user.clone(),
            state: self.state.as_deref().cloned(),
            connections: self.count().max(1),
            since: self.since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each byte here is paid for by every user in every room.
    #[test]
    fn an_attendance_is_small() {
        assert_eq!(size_of::<Attendance>(), 32);
    }
}
