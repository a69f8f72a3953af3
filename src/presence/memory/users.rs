//! The users of one room, by id. Most rooms hold one or a few users, so those are a sorted list that takes only what it
//! holds; large rooms are a tree, so that entering stays cheap and pages need no sorting.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::attendance::Attendance;
use crate::identity::UserId;

/// The most users of a list; a tree goes back to a list below half of it.
const FEW_MAX: usize = 16;

/// The users of a room.
#[derive(Debug)]
pub(super) enum Users {
    Few(Vec<(UserId, Attendance)>),
    Many(BTreeMap<UserId, Attendance>),
}

impl Users {
    pub(super) const fn new() -> Self {
        Self::Few(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find(&self, user: &UserId) -> Option<&Attendance> {
        match self {
            Self::Few(few) => place(few, user).ok().map(|index| &few[index].1),
            Self::Many(many) => many.get(user),
        }
    }

    pub(super) fn find_mut(&mut self, user: &UserId) -> Option<&mut Attendance> {
        match self {
            Self::Few(few) => place(few, user).ok().map(|index| &mut few[index].1),
            Self::Many(many) => many.get_mut(user),
        }
    }

    /// Puts a user in who is not there.
    pub(super) fn insert(&mut self, user: UserId, attendance: Attendance) {
        if let Self::Few(few) = self
            && few.len() >= FEW_MAX
        {
            *self = Self::Many(few.drain(..).collect());
        }
        match self {
            Self::Few(few) => {
                let (Ok(index) | Err(index)) = place(few, &user);
                few.reserve_exact(1);
                few.insert(index, (user, attendance));
            }
            Self::Many(many) => {
                many.insert(user, attendance);
            }
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
                many.remove(user);
            }
        }
        if let Self::Many(many) = self
            && many.len() < FEW_MAX / 2
        {
            *self = Self::Few(std::mem::take(many).into_iter().collect());
        }
    }

    /// The users after `after`, in order.
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
                Box::new(many.range::<UserId, _>((start, Bound::Unbounded)))
            }
        }
    }

    /// All users, in order.
    pub(super) fn iter(&self) -> Box<dyn Iterator<Item = (&UserId, &Attendance)> + '_> {
        self.after(None)
    }
}

fn place(few: &[(UserId, Attendance)], user: &UserId) -> Result<usize, usize> {
    few.binary_search_by(|(known, _)| known.cmp(user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::identity::ConnectionId;
    use std::collections::BTreeSet;

    fn user(number: u8) -> UserId {
        UserId::parse(&format!("u{number:03}")).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn a_list_that_becomes_a_tree_and_back_holds_the_same(steps in proptest::collection::vec((0u8..40, 0u8..5), 1..300)) {
            let (mut users, mut model) = (Users::new(), BTreeSet::new());
            for (number, step) in steps {
                let user = user(number);
                // Grows first and shrinks later, so that both forms and both changes are met.
                let insert = step > 1;
                if insert && model.insert(user.clone()) {
                    users.insert(user.clone(), Attendance::of(ConnectionId::random(), Timestamp(0)));
                } else if !insert && model.remove(&user) {
                    users.remove(&user);
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
