//! Random lives of rooms against a naive model: what is asked is what is so, and whoever applies changes to the roster it
//! was given sees what is there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

use crate::sync::lock;

const ROOMS: u8 = 2;
const USERS: u8 = 8;
const TABS: u8 = 2;
const LISTED_MAX: u32 = 5;

#[derive(Debug, Clone)]
enum Step {
    Enter {
        room: u8,
        user: u8,
        tab: u8,
        state: Option<u8>,
    },
    Leave {
        room: u8,
        user: u8,
        tab: u8,
        departure: Departure,
    },
    Observe {
        room: u8,
        observer: u16,
    },
    Unobserve {
        room: u8,
        observer: u16,
    },
    Wait {
        ms: u64,
    },
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..ROOMS, 0..USERS, 0..TABS);
    let departure = prop_oneof![Just(Departure::Left), Just(Departure::Lost)];
    let state = proptest::option::of(0u8..3);
    prop_oneof![
        6 => (place(), state).prop_map(|((room, user, tab), state)| Step::Enter { room, user, tab, state }),
        5 => (place(), departure)
            .prop_map(|((room, user, tab), departure)| Step::Leave { room, user, tab, departure }),
        1 => (0..ROOMS, 0u16..2).prop_map(|(room, observer)| Step::Observe { room, observer }),
        1 => (0..ROOMS, 0u16..2).prop_map(|(room, observer)| Step::Unobserve { room, observer }),
        2 => prop_oneof![Just(10), Just(300), Just(1000), Just(2500)].prop_map(|ms| Step::Wait { ms }),
        3 => Just(Step::Flush),
    ]
}

#[derive(Debug, Default)]
struct Modelled {
    /// The tabs that are there, with the state each has set and its turn.
    tabs: BTreeMap<u8, Option<(u64, u8)>>,
    /// The state of the tab that was lost last.
    lost: Option<(u64, u8)>,
    lost_ms: Option<u64>,
}

impl Modelled {
    fn state(&self) -> Option<u8> {
        let there = self.tabs.values().flatten().max();
        there
            .or(self.lost.as_ref().filter(|_| self.tabs.is_empty()))
            .map(|(_, state)| *state)
    }
}

/// One observer of one room and what it has made of what it was told.
struct Replica {
    recorder: Arc<Recorder>,
    roster: Roster,
}

impl Replica {
    /// Applies a change and insists that it is a difference: who joins was not there, who leaves or changes was.
    fn apply(&mut self, change: &Change) {
        if !change.known.contains(&self.roster.version) {
            return;
        }
        assert!(change.version > self.roster.version);
        self.roster.version = change.version;
        self.roster.counts = change.counts;
        if change.counts_only {
            assert!(!change.lists_users());
            self.roster.members = None;
            return;
        }
        let was_counted = self.roster.members.is_none();
        let known = self.roster.members.take().unwrap_or_default();
        let mut members: BTreeMap<UserId, Present> = known.into_iter().map(|one| (one.user.clone(), one)).collect();
        for user in &change.left {
            assert!(members.remove(user).is_some(), "{user:?} left and was not there");
        }
        for one in &change.updated {
            let was = members.insert(one.user.clone(), one.clone());
            assert!(was.is_some_and(|was| was != *one), "{one:?} was not different");
        }
        assert!(was_counted || change.present.is_empty());
        for one in change.joined.iter().chain(&change.present) {
            assert!(
                members.insert(one.user.clone(), one.clone()).is_none(),
                "{one:?} was there"
            );
        }
        self.roster.members = Some(members.into_values().collect());
    }
}

struct World {
    presence: MemoryPresence,
    members: BTreeMap<(u8, u8), ConnectionId>,
    model: BTreeMap<(u8, u8), Modelled>,
    replicas: BTreeMap<(u8, u16), Replica>,
    watch: broadcast::Receiver<Activity>,
    watched: BTreeSet<(String, String)>,
    now_ms: u64,
    /// Counts the states that were set.
    turn: u64,
}

impl World {
    fn new() -> Self {
        let presence = MemoryPresence::new(Config {
            listed_max: LISTED_MAX,
            ..Config::default()
        });
        let tabs = (0..USERS).flat_map(|user| (0..TABS).map(move |tab| (user, tab)));
        Self {
            watch: presence.activity(),
            presence,
            members: tabs.map(|at| (at, ConnectionId::random())).collect(),
            model: BTreeMap::new(),
            replicas: BTreeMap::new(),
            watched: BTreeSet::new(),
            now_ms: 0,
            turn: 0,
        }
    }

    fn room(number: u8) -> Room {
        super::room(&format!("r{number}"))
    }

    fn member(&self, user: u8, tab: u8) -> Member {
        Member {
            connection: self.members[&(user, tab)],
            user: super::user(&format!("u{user}")),
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Enter { room, user, tab, state } => self.enter(room, user, tab, state),
            Step::Leave {
                room,
                user,
                tab,
                departure,
            } => self.leave(room, user, tab, departure),
            Step::Observe { room, observer } => self.observe(room, observer),
            Step::Unobserve { room, observer } => {
                self.presence.unobserve(&Self::room(room), observer);
                self.replicas.remove(&(room, observer));
            }
            Step::Wait { ms } => {
                advance(Duration::from_millis(ms)).await;
                self.now_ms += ms;
            }
            Step::Flush => self.flush().await,
        }
    }

    fn enter(&mut self, room: u8, user: u8, tab: u8, state: Option<u8>) {
        let text = state.map(|state| json(&state.to_string()));
        self.presence
            .enter(&Self::room(room), &self.member(user, tab), text)
            .unwrap();
        let modelled = self.model.entry((room, user)).or_default();
        let renewed = modelled.tabs.contains_key(&tab);
        // The first tab that comes back takes over what the lost one said.
        let said = modelled.tabs.entry(tab).or_insert(modelled.lost.take());
        if state.is_some() || renewed {
            self.turn += 1;
            *said = state.map(|state| (self.turn, state));
        }
        modelled.lost_ms = None;
    }

    fn leave(&mut self, room: u8, user: u8, tab: u8, departure: Departure) {
        self.presence
            .leave(&Self::room(room), &self.member(user, tab), departure);
        let Some(modelled) = self.model.get_mut(&(room, user)) else {
            return;
        };
        let Some(said) = modelled.tabs.remove(&tab) else { return };
        if modelled.tabs.is_empty() {
            modelled.lost = said;
            modelled.lost_ms = Some(self.now_ms);
            if departure == Departure::Left {
                self.model.remove(&(room, user));
            }
        }
    }

    fn observe(&mut self, room: u8, observer: u16) {
        let recorder = Recorder::new(observer);
        let roster = self
            .presence
            .observe(&Self::room(room), recorder.clone(), Detail::Members);
        // A roster shows what is so, whatever the others have been told.
        let page = self.presence.page_now(&Self::room(room), None, usize::MAX);
        assert_eq!(roster.counts, page.counts);
        assert!(roster.members.as_ref().is_none_or(|members| *members == page.members));
        self.replicas.insert((room, observer), Replica { recorder, roster });
    }

    async fn flush(&mut self) {
        self.presence.flush().await;
        let grace_ms = u64::try_from(GRACE.as_millis()).unwrap();
        let now_ms = self.now_ms;
        self.model
            .retain(|_, modelled| modelled.lost_ms.is_none_or(|lost_ms| now_ms - lost_ms < grace_ms));
        for ((room, _), replica) in &mut self.replicas {
            for change in replica.recorder.take() {
                assert_eq!(change.room, Self::room(*room));
                replica.apply(&change);
            }
            let page = self.presence.page(&Self::room(*room), None, usize::MAX).await;
            if let Some(members) = &replica.roster.members {
                assert!(page.counts.users <= LISTED_MAX);
                assert_eq!((members, replica.roster.counts), (&page.members, page.counts));
            } else {
                assert!(page.counts.users > 0, "an empty room is told in counts for ever");
            }
        }
    }

    /// Everything that can be asked agrees with the model.
    async fn check(&mut self) {
        for room in 0..ROOMS {
            self.check_room(room).await;
        }
        for user in 0..USERS {
            let found = self
                .presence
                .rooms_of(&Tenant::default(), &self.member(user, 0).user)
                .await;
            let found: Vec<String> = found.rooms.iter().map(|(room, _)| room.name().to_owned()).collect();
            let rooms = self.model.keys().filter(|(_, there)| *there == user);
            assert_eq!(found, rooms.map(|(room, _)| format!("r{room}")).collect::<Vec<_>>());
        }
        self.check_activity();
    }

    async fn check_room(&self, room: u8) {
        let there = || self.model.range((room, 0)..=(room, u8::MAX));
        let page = self.presence.page(&Self::room(room), None, usize::MAX).await;
        let shown: Vec<_> = page
            .members
            .iter()
            .map(|one| (one.user.clone(), one.state.clone(), one.connections))
            .collect();
        let modelled = there().map(|((_, user), modelled)| {
            let state = modelled.state().map(|state| json(&state.to_string()));
            let connections = u32::try_from(modelled.tabs.len()).unwrap().max(1);
            (self.member(*user, 0).user, state, connections)
        });
        assert_eq!(shown, modelled.collect::<Vec<_>>());
        let counts = Counts {
            users: u32::try_from(shown.len()).unwrap(),
            connections: shown.iter().map(|(_, _, connections)| connections).sum(),
        };
        assert_eq!(
            (page.counts, self.presence.occupancy_now(&Self::room(room)).counts),
            (counts, counts)
        );
        // User 0 and the first tabs of users 0 and 1 are left out.
        let connections = vec![self.members[&(0, 0)], self.members[&(1, 0)]];
        let except = Except::new(connections, vec![self.member(0, 0).user]);
        let reached = there().flat_map(|((_, user), modelled)| modelled.tabs.keys().map(move |tab| (*user, *tab)));
        let reached = reached
            .filter(|(user, tab)| *user != 0 && (*user, *tab) != (1, 0))
            .count();
        assert_eq!(self.presence.reached_now(&Self::room(room), &except) as usize, reached);
    }

    fn check_activity(&mut self) {
        while let Ok(activity) = self.watch.try_recv() {
            let in_room = |watched: &BTreeSet<(String, String)>, room: &Room| {
                watched.iter().filter(|(name, _)| name == room.name()).count()
            };
            match activity {
                Activity::Occupied(room) | Activity::Vacated(room) => {
                    assert_eq!(in_room(&self.watched, &room), 0);
                }
                Activity::Joined(room, user) => {
                    assert!(self.watched.insert((room.name().to_owned(), user.as_str().to_owned())));
                }
                Activity::Left(room, user) => {
                    assert!(self.watched.remove(&(room.name().to_owned(), user.as_str().to_owned())));
                }
                other => panic!("{other:?}"),
            }
        }
        let there = self
            .model
            .keys()
            .map(|(room, user)| (format!("r{room}"), format!("u{user}")));
        assert_eq!(self.watched, there.collect());
    }

    async fn end(mut self) {
        for (user, tab) in self.members.clone().into_keys() {
            for room in 0..ROOMS {
                self.leave(room, user, tab, Departure::Lost);
            }
        }
        self.take(Step::Wait { ms: 10_000 }).await;
        self.flush().await;
        self.check().await;
        for (room, observer) in std::mem::take(&mut self.replicas).into_keys() {
            self.presence.unobserve(&Self::room(room), observer);
        }
        assert!(self.presence.stripes.iter().all(|stripe| lock(stripe).rooms.is_empty()));
        assert!(self.presence.shared.whereabouts.is_empty());
    }
}

proptest! {
    #[test]
    fn presence_is_what_the_model_says_and_observers_can_follow_it(steps in proptest::collection::vec(step(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.end().await;
        });
    }
}
