//! One user in one room: its connections, its state, and whether it is on its way back.

use super::share::{Share, Stated, newer};
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
    /// Some are on other nodes.
    Spread(Spread),
}

/// Connections on several nodes, at least one of them another one.
#[derive(Debug)]
struct Spread {
    own: Vec<ConnectionId>,
    /// By incarnation.
    others: Vec<(u64, Share)>,
}

impl From<Unusual> for Connections {
    fn from(unusual: Unusual) -> Self {
        Self::Unusual(Box::new(unusual))
    }
}

impl From<Vec<ConnectionId>> for Connections {
    fn from(several: Vec<ConnectionId>) -> Self {
        match several[..] {
            [only] => Self::One(only),
            _ => Unusual::Several(several).into(),
        }
    }
}

/// A user in a room.
#[derive(Debug)]
pub(super) struct Attendance {
    connections: Connections,
    /// What this node knows; while it has no connection of the user, what others know counts instead.
    state: Option<Box<Stated>>,
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

    /// A user that comes by another node.
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

    /// The connections of this node.
    pub(super) fn connections(&self) -> &[ConnectionId] {
        match &self.connections {
            Connections::One(connection) => std::slice::from_ref(connection),
            Connections::Unusual(unusual) => match &**unusual {
                Unusual::Lost { .. } => &[],
                Unusual::Several(several) => several,
                Unusual::Spread(spread) => &spread.own,
            },
        }
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

    /// How many connections there are on all nodes.
    pub(super) fn count(&self) -> u32 {
        let own = u32::try_from(self.connections().len()).unwrap_or(u32::MAX);
        self.others()
            .iter()
            .fold(own, |count, (_, share)| count.saturating_add(share.connections))
    }

    /// How many connections a node has of the user; `None`: none.
    pub(super) fn count_of(&self, node: u64) -> Option<u32> {
        let share = self.others().iter().find(|(known, _)| *known == node);
        share.map(|(_, share)| share.connections)
    }

    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.connections().contains(&connection)
    }

    /// When the last connection was lost, if none has come since.
    pub(super) fn lost_at_ms(&self) -> Option<u64> {
        match &self.connections {
            Connections::Unusual(unusual) => match **unusual {
                Unusual::Lost { at_ms } => Some(at_ms),
                Unusual::Several(_) | Unusual::Spread(_) => None,
            },
            Connections::One(_) => None,
        }
    }

    /// Adds a connection that is not there.
    pub(super) fn add(&mut self, connection: ConnectionId) {
        if self.connections().is_empty() {
            self.settle();
        }
        match &mut self.connections {
            Connections::One(first) => self.connections = Unusual::Several(vec![*first, connection]).into(),
            Connections::Unusual(unusual) => match &mut **unusual {
                Unusual::Lost { .. } => self.connections = Connections::One(connection),
                Unusual::Several(several) => several.push(connection),
                Unusual::Spread(spread) => spread.own.push(connection),
            },
        }
    }

    /// Takes a connection off.
    pub(super) fn take(&mut self, connection: ConnectionId, now_ms: u64) {
        match &mut self.connections {
            Connections::One(only) if *only == connection => self.connections = Unusual::Lost { at_ms: now_ms }.into(),
            Connections::One(_) => {}
            Connections::Unusual(unusual) => match &mut **unusual {
                Unusual::Several(several) => {
                    several.retain(|known| *known != connection);
                    if let [last] = several[..] {
                        self.connections = Connections::One(last);
                    }
                }
                Unusual::Spread(spread) => spread.own.retain(|known| *known != connection),
                Unusual::Lost { .. } => {}
            },
        }
    }

    /// Sets what another node has of the user. Answers whether this node, which has connections of the user too, has
    /// learned something from it that it has to pass on.
    pub(super) fn set_share(&mut self, node: u64, share: Share) -> bool {
        let mut spread = match std::mem::replace(&mut self.connections, Unusual::Lost { at_ms: 0 }.into()) {
            Connections::One(only) => Spread::of(vec![only]),
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
        has_own && self.settle()
    }

    /// Takes off what another node had of the user.
    pub(super) fn take_share(&mut self, node: u64, lost_ms: u64) {
        if self.connections().is_empty() {
            self.settle();
        }
        let Connections::Unusual(unusual) = &mut self.connections else {
            return;
        };
        let Unusual::Spread(spread) = &mut **unusual else {
            return;
        };
        spread.others.retain(|(known, _)| *known != node);
        if spread.others.is_empty() {
            self.connections = match std::mem::take(&mut spread.own) {
                own if own.is_empty() => Unusual::Lost { at_ms: lost_ms }.into(),
                own => own.into(),
            };
        }
    }

    /// Makes what all nodes know what this one knows. Answers whether that was something new.
    fn settle(&mut self) -> bool {
        if self.others().is_empty() {
            return false;
        }
        let (since, state) = (self.since(), self.stated().cloned());
        let is_new = since != self.since || state.as_ref() != self.state.as_deref();
        self.since = since;
        self.state = state.map(Box::new);
        is_new
    }

    /// Whether what this node knows counts.
    fn own_counts(&self) -> bool {
        !self.connections().is_empty() || self.others().is_empty()
    }

    fn since(&self) -> Timestamp {
        let own = self.own_counts().then_some(self.since);
        let others = self.others().iter().map(|(_, share)| share.since);
        others.chain(own).min().unwrap_or(self.since)
    }

    fn stated(&self) -> Option<&Stated> {
        let own = self.state.as_deref().filter(|_| self.own_counts());
        let others = self.others().iter().map(|(_, share)| share.state.as_deref());
        others.fold(own, newer)
    }

    pub(super) fn set_state(&mut self, value: Option<Json>, now: Timestamp) {
        let known = self.stated().map(|stated| stated.at);
        // To have said nothing needs no place, to have taken something back does.
        if value.is_some() || known.is_some() {
            let at = known.map_or(now, |known| now.max(Timestamp(known.0 + 1)));
            self.state = Some(Box::new(Stated { at, value }));
        }
    }

    /// What this node has of the user; `None`: no connection.
    pub(super) fn own_share(&self) -> Option<Share> {
        let connections = u32::try_from(self.connections().len()).unwrap_or(u32::MAX);
        (connections > 0).then(|| Share {
            connections,
            since: self.since,
            state: self.state.clone(),
        })
    }

    /// How others see the user.
    pub(super) fn shown(&self, user: &UserId) -> Present {
        Present {
            user: user.clone(),
            state: self.stated().and_then(|stated| stated.value.clone()),
            connections: self.count().max(1),
            since: self.since(),
        }
    }
}

impl Spread {
    const fn of(own: Vec<ConnectionId>) -> Self {
        Self {
            own,
            others: Vec::new(),
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

    fn share(since: u64, state: Option<(u64, &str)>) -> Share {
        let stated = |(at, text): (u64, &str)| Stated {
            at: Timestamp(at),
            value: Some(Json::parse(text.to_owned()).unwrap()),
        };
        Share {
            connections: 1,
            since: Timestamp(since),
            state: state.map(stated).map(Box::new),
        }
    }

    #[test]
    fn what_another_node_knows_is_kept_when_its_connections_end() {
        let user = UserId::parse("ada").unwrap();
        let mut ada = Attendance::of(ConnectionId::random(), Timestamp(7));
        assert!(
            ada.set_share(1, share(5, Some((9, "1")))),
            "an earlier coming and a state are new"
        );
        assert!(!ada.set_share(2, share(6, Some((8, "2")))));
        ada.take_share(1, 0);
        ada.take_share(2, 0);
        let shown = ada.shown(&user);
        assert_eq!((shown.since, shown.connections), (Timestamp(5), 1));
        assert_eq!(shown.state.unwrap().as_str(), "1");
        ada.set_state(None, Timestamp(3));
        assert_eq!(
            ada.own_share().unwrap().state.unwrap().at,
            Timestamp(10),
            "a clock that is behind is not obeyed"
        );
    }

    #[test]
    fn a_user_of_another_node_that_is_lost_is_shown_as_it_was() {
        let user = UserId::parse("ada").unwrap();
        let mut ada = Attendance::away(1, share(5, Some((9, "1"))));
        let before = ada.shown(&user);
        ada.take_share(1, 70);
        assert_eq!((ada.lost_at_ms(), ada.own_share()), (Some(70), None));
        assert_eq!(ada.shown(&user), before);
    }
}
