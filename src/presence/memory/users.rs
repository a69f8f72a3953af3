//! The users of one room, by id. Most rooms hold one or a few users: a sorted list without spare capacity. Large rooms are
//! a tree, so entering stays cheap and pages need no sorting.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Bound;

use hashbrown::HashTable;

use super::attendance::Attendance;
use super::share::Share;
use crate::event::Timestamp;
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;
use crate::presence::Member;

/// The most users of a list. A tree becomes a list again below half of it, so that it does not flap.
const FEW_MAX: usize = 16;

/// The users of a room.
#[derive(Debug)]
pub(super) enum Users {
    Few(Vec<(UserId, Attendance)>),
    Many(Box<Many>),
}

/// The users of a large room.
#[derive(Debug, Default)]
pub(super) struct Many {
    users: BTreeMap<UserId, Attendance>,
    /// Half of each connection id, to look a connection up without a search. Random, so it is its own hash.
    connections: HashTable<NonZeroU64>,
}

impl Users {
    pub(super) const fn new() -> Self {
        Self::Few(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.users.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find(&self, user: &UserId) -> Option<&Attendance> {
        match self {
            Self::Few(few) => place(few, user).ok().map(|index| &few[index].1),
            Self::Many(many) => many.users.get(user),
        }
    }

    fn find_mut(&mut self, user: &UserId) -> Option<&mut Attendance> {
        match self {
            Self::Few(few) => place(few, user).ok().map(|index| &mut few[index].1),
            Self::Many(many) => many.users.get_mut(user),
        }
    }

    /// Reports whether a connection of any user is here.
    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        match self {
            Self::Few(few) => few.iter().any(|(_, attendance)| attendance.has(connection)),
            Self::Many(many) => many
                .connections
                .find(connection.half().get(), |half| *half == connection.half())
                .is_some(),
        }
    }

    /// Sets the state of a connection that is here.
    pub(super) fn set_state(&mut self, member: &Member, state: Option<Json>, now: Timestamp) {
        if let Some(attendance) = self.find_mut(&member.user) {
            attendance.set_state(member.connection, state, now);
        }
    }

    /// Sets another node's share of a user who is here. Returns the same as [`Attendance::set_share`].
    pub(super) fn set_share(&mut self, user: &UserId, node: u64, share: Share) -> bool {
        let attendance = self.find_mut(user);
        attendance.is_some_and(|attendance| attendance.set_share(node, share))
    }

    /// Removes another node's share of a user who is here.
    pub(super) fn take_share(&mut self, user: &UserId, node: u64, lost_ms: u64) {
        if let Some(attendance) = self.find_mut(user) {
            attendance.take_share(node, lost_ms);
        }
    }

    /// Inserts a new user.
    pub(super) fn insert(&mut self, user: UserId, attendance: Attendance) {
        if let Self::Few(few) = self
            && few.len() >= FEW_MAX
        {
            *self = Self::Many(Box::new(few.drain(..).collect()));
        }
        match self {
            Self::Few(few) => {
                let (Ok(index) | Err(index)) = place(few, &user);
                // Exact: most rooms stay this small, and spare capacity would cost each of them.
                few.reserve_exact(1);
                few.insert(index, (user, attendance));
            }
            Self::Many(many) => many.extend([(user, attendance)]),
        }
    }

    /// Adds a further connection of a user who is here, with or without connections.
    pub(super) fn connect(&mut self, user: &UserId, connection: ConnectionId) {
        let Some(attendance) = self.find_mut(user) else { return };
        attendance.add(connection);
        if let Self::Many(many) = self {
            many.connected(connection);
        }
    }

    /// Removes a connection of a user who is here.
    pub(super) fn disconnect(&mut self, user: &UserId, connection: ConnectionId, now_ms: u64) {
        let Some(attendance) = self.find_mut(user) else { return };
        attendance.take(connection, now_ms);
        if let Self::Many(many) = self {
            many.disconnected(connection);
        }
    }

    pub(super) fn remove(&mut self, user: &UserId) {
        match self {
            Self::Few(few) => {
                if let Ok(index) = place(few, user) {
                    few.remove(index);
                }
            }
            Self::Many(many) => {
                let removed = many.users.remove(user);
                for connection in removed.iter().flat_map(Attendance::connections) {
                    many.disconnected(connection);
                }
            }
        }
        if let Self::Many(many) = self
            && many.users.len() < FEW_MAX / 2
        {
            *self = Self::Few(std::mem::take(&mut many.users).into_iter().collect());
        }
    }

    /// Returns the users after `after`, in order.
    pub(super) fn after<'u>(
        &'u self,
        after: Option<&UserId>,
    ) -> Box<dyn Iterator<Item = (&'u UserId, &'u Attendance)> + 'u> {
        match self {
            Self::Few(few) => {
                let start = after.map_or(0, |after| few.partition_point(|(user, _)| user <= after));
                Box::new(few[start..].iter().map(|(user, attendance)| (user, attendance)))
            }
            Self::Many(many) => {
                let start = after.map_or(Bound::Unbounded, Bound::Excluded);
                Box::new(many.users.range::<UserId, _>((start, Bound::Unbounded)))
            }
        }
    }

    /// Returns all users, in order.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (&UserId, &Attendance)> + '_> {
        self.after(None)
    }
}

impl Many {
    fn connected(&mut self, connection: ConnectionId) {
        let half = connection.half();
        self.connections.insert_unique(half.get(), half, |half| half.get());
    }

    fn disconnected(&mut self, connection: ConnectionId) {
        let half = connection.half();
        if let Ok(found) = self.connections.find_entry(half.get(), |other| *other == half) {
            found.remove();
        }
        if self.connections.len() < self.connections.capacity() / 4 {
            let left = self.connections.len() * 2;
            self.connections.shrink_to(left, |half| half.get());
        }
    }
}

impl Extend<(UserId, Attendance)> for Many {
    fn extend<I: IntoIterator<Item = (UserId, Attendance)>>(&mut self, users: I) {
        for (user, attendance) in users {
            for connection in attendance.connections() {
                self.connected(connection);
            }
            self.users.insert(user, attendance);
        }
    }
}

impl FromIterator<(UserId, Attendance)> for Many {
    fn from_iter<I: IntoIterator<Item = (UserId, Attendance)>>(users: I) -> Self {
        let mut many = Self::default();
        many.extend(users);
        many
    }
}

fn place(few: &[(UserId, Attendance)], user: &UserId) -> Result<usize, usize> {
    few.binary_search_by(|(known, _)| known.cmp(user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn user(number: u8) -> UserId {
        UserId::parse(&format!("u{number:03}")).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn a_list_that_becomes_a_tree_and_back_holds_the_same(steps in proptest::collection::vec((0u8..40, 0u8..5), 1..300)) {
            let (mut users, mut model, mut connections) = (Users::new(), BTreeSet::new(), BTreeMap::new());
            for (number, step) in steps {
                let user = user(number);
                // Grows first and shrinks later, so that both forms and both changes are met.
                let insert = step > 1;
                if insert && model.insert(user.clone()) {
                    let connection = ConnectionId::random();
                    connections.insert(user.clone(), connection);
                    users.insert(user.clone(), Attendance::of(connection, Timestamp(0)));
                } else if !insert && model.remove(&user) {
                    users.remove(&user);
                }
                if let Some(connection) = connections.get(&user) {
                    proptest::prop_assert_eq!(users.has(*connection), model.contains(&user));
                }
                proptest::prop_assert_eq!(users.find(&user).is_some(), model.contains(&user));
                proptest::prop_assert_eq!(users.len(), model.len());
            }
            proptest::prop_assert!(users.iter().map(|(user, _)| user).eq(model.iter()));
            let after = user(20);
            let later = model.iter().filter(|user| **user > after);
            proptest::prop_assert!(users.after(Some(&after)).map(|(user, _)| user).eq(later));
        }
    }
}
