//! One user's connections on several nodes: what each node shows, against a model that knows all connections.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NODES: usize = 3;
const TABS: usize = 6;

/// Each byte here is paid for by every user in every room.
#[test]
fn an_attendance_is_small() {
    assert_eq!((size_of::<Attendance>(), size_of::<Unusual>()), (32, 48));
}

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

fn ada() -> UserId {
    UserId::parse("ada").unwrap()
}

fn share(since: u64, state: Option<(u64, &str)>) -> Share {
    let stated = |(at, text): (u64, &str)| Stated {
        at: Timestamp(at),
        value: json(text),
    };
    Share {
        connections: 1,
        since: Timestamp(since),
        state: state.map(stated).map(Box::new),
    }
}

fn shown_state(attendance: &Attendance) -> Option<String> {
    attendance.shown(&ada()).state.map(|state| state.as_str().to_owned())
}

#[test]
fn since_is_kept_and_state_ends_with_another_nodes_connection() {
    let mut attendance = Attendance::of(ConnectionId::random(), Timestamp(7));
    assert!(
        attendance.set_share(1, share(5, Some((9, "1")))),
        "an earlier coming is new"
    );
    assert!(!attendance.set_share(2, share(6, Some((8, "2")))));
    assert_eq!(shown_state(&attendance).as_deref(), Some("1"));
    attendance.take_share(1, 0);
    assert_eq!(shown_state(&attendance).as_deref(), Some("2"));
    attendance.take_share(2, 0);
    let shown = attendance.shown(&ada());
    assert_eq!((shown.since, shown.connections, shown.state), (Timestamp(5), 1, None));
}

#[test]
fn a_clock_that_is_behind_does_not_make_a_newer_state_older() {
    let connection = ConnectionId::random();
    let mut attendance = Attendance::of(connection, Timestamp(7));
    attendance.set_share(1, share(5, Some((9, "1"))));
    attendance.set_state(connection, Some(json("2")), Timestamp(3));
    assert_eq!(shown_state(&attendance).as_deref(), Some("2"));
    assert_eq!(attendance.own_share().unwrap().state.unwrap().at, Timestamp(10));
}

#[test]
fn a_lost_user_of_another_node_is_shown_as_before() {
    let mut attendance = Attendance::away(1, share(5, Some((9, "1"))));
    let before = attendance.shown(&ada());
    attendance.take_share(1, 70);
    assert_eq!((attendance.lost_at_ms(), attendance.own_share()), (Some(70), None));
    assert_eq!(attendance.shown(&ada()), before);
    attendance.add(ConnectionId::random());
    assert_eq!(
        attendance.shown(&ada()),
        before,
        "the one that comes back takes it over"
    );
}

/// Something that one tab does, or that a node tells the others.
#[derive(Debug, Clone)]
enum Step {
    Come(usize),
    Go(usize),
    Say(usize, Option<u8>),
    /// From one node to another.
    Tell(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..TABS).prop_map(Step::Come),
        2 => (0..TABS).prop_map(Step::Go),
        4 => (0..TABS, proptest::option::of(0u8..100)).prop_map(|(tab, state)| Step::Say(tab, state)),
        4 => (0..NODES, 0..NODES).prop_map(|(from, to)| Step::Tell(from, to)),
    ]
}

/// Tab `n` is on node `n % NODES`. A user that is nowhere is forgotten at once, as without a grace period.
struct World {
    nodes: [Option<Attendance>; NODES],
    tabs: [ConnectionId; TABS],
    /// The tabs that are there, with what each said and when.
    there: BTreeMap<usize, Option<(u64, u8)>>,
    now: u64,
}

impl World {
    fn new() -> Self {
        Self {
            nodes: [const { None }; NODES],
            tabs: std::array::from_fn(|_| ConnectionId::random()),
            there: BTreeMap::new(),
            now: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        self.now += 1;
        match *step {
            Step::Come(tab) if !self.there.contains_key(&tab) => {
                self.there.insert(tab, None);
                match &mut self.nodes[tab % NODES] {
                    Some(attendance) => attendance.add(self.tabs[tab]),
                    node => *node = Some(Attendance::of(self.tabs[tab], Timestamp(self.now))),
                }
            }
            Step::Go(tab) if self.there.remove(&tab).is_some() => {
                let node = &mut self.nodes[tab % NODES];
                node.as_mut().unwrap().take(self.tabs[tab], self.now);
                node.take_if(|attendance| attendance.lost_at_ms().is_some());
            }
            Step::Say(tab, state) => {
                let Some(said) = self.there.get_mut(&tab) else { return };
                *said = state.map(|state| (self.now, state));
                let attendance = self.nodes[tab % NODES].as_mut().unwrap();
                let value = state.map(|state| json(&state.to_string()));
                attendance.set_state(self.tabs[tab], value, Timestamp(self.now));
            }
            Step::Tell(from, to) => self.tell(from, to),
            Step::Come(_) | Step::Go(_) => {}
        }
    }

    /// Tells one node what another one has; nothing is told twice or once, but absolute.
    fn tell(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let share = self.nodes[from].as_ref().and_then(Attendance::own_share);
        let node = &mut self.nodes[to];
        match (share, &mut *node) {
            (Some(share), Some(attendance)) => {
                attendance.set_share(from as u64, share);
            }
            (Some(share), None) => *node = Some(Attendance::away(from as u64, share)),
            (None, Some(attendance)) => {
                attendance.take_share(from as u64, self.now);
                node.take_if(|attendance| attendance.lost_at_ms().is_some());
            }
            (None, None) => {}
        }
    }
}

proptest! {
    /// Told in any order and any number of times, all nodes come to show the same: the state that was said last by a
    /// connection that is still there.
    #[test]
    fn every_node_shows_the_last_state_of_a_living_connection(
        steps in proptest::collection::vec(step(), 1..80),
        order in Just((0..NODES * NODES * 2).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        // Each pair twice, in any order.
        for pair in order.into_iter().map(|pair| pair / 2) {
            world.tell(pair / NODES, pair % NODES);
        }
        let state = world.there.values().flatten().max().map(|(_, state)| state.to_string());
        for node in &world.nodes {
            prop_assert_eq!(node.is_some(), !world.there.is_empty());
            if let Some(attendance) = node {
                prop_assert_eq!(attendance.count() as usize, world.there.len());
                prop_assert_eq!(shown_state(attendance), state.clone());
            }
        }
    }
}
