//! A made-up node's life, told in any order, more than once and with holes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::event::Timestamp;
use crate::presence::memory::Share;

/// What a node had after each of its updates, and the updates.
#[derive(Debug, Default)]
struct Life {
    updates: Vec<Update>,
    states: Vec<BTreeMap<UserId, u32>>,
}

impl Life {
    /// Each step sets a user's connections.
    fn of(steps: &[(u8, u32)]) -> Self {
        let mut life = Self::default();
        let mut state = BTreeMap::new();
        for (number, (user, connections)) in (2..).zip(steps) {
            let user = UserId::parse(&format!("u{user}")).unwrap();
            match connections {
                0 => state.remove(&user),
                _ => state.insert(user.clone(), *connections),
            };
            let previous = life.updates.last().map_or(0, |last: &Update| last.version);
            life.updates
                .push(update(number, previous, vec![changed(&user, *connections)]));
            life.states.push(state.clone());
        }
        life
    }

    /// Everything there was after an update, as an answer says it.
    fn answer(&self, at: usize) -> Update {
        let state = &self.states[at];
        let all = state.iter().map(|(user, connections)| changed(user, *connections));
        update(self.updates[at].version, 0, all.collect())
    }
}

fn update(version: u64, previous: u64, changes: Vec<Changed>) -> Update {
    Update {
        version,
        previous,
        changes,
        occupied_since: None,
        begins: false,
    }
}

fn changed(user: &UserId, connections: u32) -> Changed {
    let share = || Share {
        connections,
        since: Timestamp(1),
        state: None,
    };
    Changed {
        user: user.clone(),
        now: (connections > 0).then(share).ok_or(Departure::Left),
    }
}

/// What is shown of the node.
#[derive(Default)]
struct View {
    other: PeerView,
    shown: BTreeMap<UserId, u32>,
}

impl View {
    fn hear(&mut self, update: Update) -> bool {
        let (changes, is_current) = match self.other.update(update, 0) {
            Merged::Current(changes) => (changes, true),
            Merged::Missing(changes) => (changes, false),
        };
        for one in changes {
            match one.now {
                Ok(share) => self.shown.insert(one.user, share.connections),
                Err(_) => self.shown.remove(&one.user),
            };
        }
        is_current
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u32)>> {
    proptest::collection::vec((0u8..5, 0u32..3), 1..HELD_MAX)
}

proptest! {
    #[test]
    fn updates_come_to_the_same_in_any_order_and_number(
        steps in steps(),
        order in Just((0..HELD_MAX * 2).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let life = Life::of(&steps);
        let mut view = View::default();
        // Each comes twice, somewhere.
        for at in order.into_iter().map(|at| at / 2).filter(|at| *at < life.updates.len()) {
            view.hear(life.updates[at].clone());
        }
        prop_assert_eq!(&view.shown, life.states.last().unwrap());
        let stand = view.other.book.stand(7);
        prop_assert_eq!(view.other.stand(stand, 0), Merged::Current(Vec::new()));
    }

    #[test]
    fn what_is_missing_is_noticed_and_repaired_by_an_answer(
        steps in steps(),
        heard in proptest::collection::vec((any::<Index>(), any::<bool>()), 0..40),
    ) {
        let life = Life::of(&steps);
        let mut view = View::default();
        for (at, is_answer) in heard {
            let at = at.index(life.updates.len());
            let said = if is_answer { life.answer(at) } else { life.updates[at].clone() };
            let is_current = view.hear(said);
            let known = view.other.book.version;
            // What is shown is what there was at the version that is known.
            let then = life.updates.iter().position(|update| update.version == known);
            prop_assert_eq!(&view.shown, &then.map(|then| life.states[then].clone()).unwrap_or_default());
            prop_assert_eq!(is_current, view.other.heard_of == known);
        }
        prop_assert!(view.hear(life.answer(life.updates.len() - 1)));
        prop_assert_eq!(&view.shown, life.states.last().unwrap());
    }
}
