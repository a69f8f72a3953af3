//! Runs random histories of rooms against a naive model that keeps everything and counts from the end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::bus::conformance::{ALL, Recorder, event, offsets, room};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::event::{Payload, Retention};
use crate::position::Offset;

const ROOMS: u8 = 3;
const EVENTS_MAX: usize = 5;
const BYTES_MAX: usize = 100;
const AGE_MS: u64 = 1000;
const NAMES_MAX: usize = 2;
const VALUE_AGE_MS: u64 = 3000;
const WINDOW_MS: u64 = 1500;

/// The version that a publisher expects of the room.
#[derive(Debug, Clone, Copy)]
enum Expects {
    Anything,
    Nothing,
    Head,
    Stale,
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        room: u8,
        name: u8,
        bytes: usize,
        retention: Retention,
        key: Option<u8>,
        expects: Expects,
    },
    Subscribe {
        room: u8,
        id: u16,
    },
    Unsubscribe {
        room: u8,
        id: u16,
    },
    Wait {
        ms: u64,
    },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let retention = prop_oneof![
        Just(Retention::Reliable),
        Just(Retention::Ephemeral),
        Just(Retention::LastValue)
    ];
    let expects = prop_oneof![
        6 => Just(Expects::Anything),
        1 => Just(Expects::Nothing),
        2 => Just(Expects::Head),
        1 => Just(Expects::Stale),
    ];
    let bytes = prop_oneof![8 => Just(7usize), 2 => Just(45), 1 => Just(101)];
    let key = proptest::option::weighted(0.3, 0u8..3);
    let publish = (0..ROOMS, 0u8..4, bytes, retention, key, expects);
    let publish = publish.prop_map(|(room, name, bytes, retention, key, expects)| Step::Publish {
        room,
        name,
        bytes,
        retention,
        key,
        expects,
    });
    prop_oneof![
        10 => publish,
        1 => (0..ROOMS, 0u16..2).prop_map(|(room, id)| Step::Subscribe { room, id }),
        1 => (0..ROOMS, 0u16..2).prop_map(|(room, id)| Step::Unsubscribe { room, id }),
        2 => prop_oneof![Just(1), Just(400), Just(1000), Just(3000)].prop_map(|ms| Step::Wait { ms }),
        2 => Just(Step::Sweep),
    ]
}

/// An event as the model keeps it: for ever.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    offset: Offset,
    prev: Offset,
    at_ms: u64,
    bytes: usize,
    name: u8,
    last_value: bool,
}

type Body = (u8, usize, Retention);

/// A subscriber, and the position of each event that it must have received.
type Subscribed = (Arc<Recorder>, Vec<Option<Offset>>);

struct World {
    bus: MemoryBus,
    clock: Arc<AtomicU64>,
    /// The bus remembers the heads of rooms that left memory.
    remembers: bool,
    stored: BTreeMap<u8, Vec<Stored>>,
    keys: HashMap<(u8, u8), (Body, Option<Offset>, u64)>,
    subscribers: BTreeMap<(u8, u16), Subscribed>,
}

impl World {
    fn new(remembers: bool) -> Self {
        let limits = HistoryLimits {
            events_max: EVENTS_MAX,
            age_max: Duration::from_millis(AGE_MS),
            bytes_max: BYTES_MAX,
        };
        let config = Config {
            history: HistoryRules::new([], limits),
            last_value_names_max: NAMES_MAX,
            last_value_age_max: Duration::from_millis(VALUE_AGE_MS),
            idempotency_window: Duration::from_millis(WINDOW_MS),
            room_idle_max: Duration::ZERO,
            forgotten_rooms_max: if remembers { 10_000 } else { 0 },
            ..Config::default()
        };
        let clock = Arc::new(AtomicU64::new(1));
        Self {
            bus: MemoryBus::with_clock(config, Clock::Manual(Arc::clone(&clock))),
            clock,
            remembers,
            stored: BTreeMap::new(),
            keys: HashMap::new(),
            subscribers: BTreeMap::new(),
        }
    }

    fn room(number: u8) -> Room {
        room(&format!("r{number}"))
    }

    fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn events(&self, room: u8) -> &[Stored] {
        self.stored.get(&room).map_or(&[], Vec::as_slice)
    }

    fn head(&self, room: u8) -> Offset {
        self.events(room).last().map_or(Offset::ZERO, |last| last.offset)
    }

    /// Returns the longest run of newest events that is within every limit.
    fn kept(&self, room: u8) -> &[Stored] {
        let (events, now_ms) = (self.events(room), self.now_ms());
        let mut bytes = 0;
        let kept = events.iter().rev().take(EVENTS_MAX).take_while(|event| {
            bytes += event.bytes;
            bytes <= BYTES_MAX && now_ms - event.at_ms < AGE_MS
        });
        &events[events.len() - kept.count()..]
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Publish { .. } => self.publish(step).await,
            Step::Subscribe { room, id } => {
                let recorder = Recorder::new(id);
                let head = self.bus.subscribe(&Self::room(room), recorder.clone()).await.unwrap();
                self.check_head(room, head.offset);
                self.subscribers.insert((room, id), (recorder, Vec::new()));
            }
            Step::Unsubscribe { room, id } => {
                self.bus.unsubscribe(&Self::room(room), id);
                self.subscribers.remove(&(room, id));
            }
            Step::Wait { ms } => {
                self.clock.fetch_add(ms, Ordering::SeqCst);
            }
            Step::Sweep => self.bus.sweep(),
        }
    }

    async fn publish(&mut self, step: Step) {
        let Step::Publish {
            room,
            name,
            bytes,
            retention,
            key,
            expects,
        } = step
        else {
            unreachable!("only called for a publish");
        };
        let told = self.bus.head(&Self::room(room)).await.unwrap().offset;
        let stale = self
            .events(room)
            .iter()
            .rev()
            .nth(1)
            .map_or(Offset::ZERO, |stale| stale.offset);
        let expected = match expects {
            Expects::Anything => None,
            Expects::Nothing => Some(Offset::ZERO),
            Expects::Head => Some(told),
            Expects::Stale => Some(stale),
        };
        let mut draft = event(&Self::room(room), "")
            .name(&format!("n{name}"))
            .retention(retention);
        draft.0.payload = Payload::Binary(Bytes::from(vec![0; bytes]));
        draft.0.expected = expected;
        if let Some(key) = key {
            draft = draft.key(&format!("k{key}"));
        }
        let body = (name, bytes, retention);
        let known = key.and_then(|key| self.keys.get(&(room, key)));
        let known = known.filter(|(_, _, at_ms)| self.now_ms() - at_ms < WINDOW_MS).copied();
        let answer = draft.send(&self.bus).await;
        match (answer, known) {
            (Ok(published), Some((first, offset, _))) => {
                assert!(published.duplicate && first == body);
                assert_eq!(published.position.map(|position| position.offset), offset);
            }
            (Err(PublishError::KeyReused), Some((first, _, _))) => assert_ne!(first, body),
            (Ok(published), None) => {
                assert!(!published.duplicate);
                let offset = published.position.map(|position| position.offset);
                self.accepted(room, body, expected, offset);
                if let Some(key) = key {
                    self.keys.insert((room, key), (body, offset, self.now_ms()));
                }
            }
            (Err(PublishError::VersionConflict { current }), None) => {
                assert!(!matches!(expects, Expects::Head), "the told head is refused");
                assert!(expected != Some(self.head(room)) || !self.remembers);
                self.check_head(room, current.offset);
            }
            (answer, known) => panic!("{answer:?} with {known:?}"),
        }
    }

    fn accepted(&mut self, room: u8, (name, bytes, retention): Body, expected: Option<Offset>, offset: Option<Offset>) {
        let (head, at_ms) = (self.head(room), self.now_ms());
        for (_, due) in self
            .subscribers
            .iter_mut()
            .filter(|((there, _), _)| *there == room)
            .map(|(_, one)| one)
        {
            due.push(offset);
        }
        assert_eq!(offset.is_none(), retention == Retention::Ephemeral);
        let Some(offset) = offset else { return };
        assert!(
            offset
                > self
                    .stored
                    .keys()
                    .map(|room| self.head(*room))
                    .max()
                    .unwrap_or_default()
        );
        assert!(expected.is_none_or(|expected| expected == head || !self.remembers && expected > head));
        self.stored.entry(room).or_default().push(Stored {
            offset,
            prev: head,
            at_ms,
            bytes,
            name,
            last_value: retention == Retention::LastValue,
        });
    }

    fn check_head(&self, room: u8, told: Offset) {
        let head = self.head(room);
        assert!(
            told == head || !self.remembers && told > head,
            "{told} is told, the head is {head}"
        );
    }

    async fn check(&self) {
        for number in 0..ROOMS {
            let room = Self::room(number);
            let kept: Vec<Offset> = self.kept(number).iter().map(|event| event.offset).collect();
            let history = self.bus.history(&room, Page::Newest, ALL).await.unwrap().events;
            assert_eq!(offsets(&history), kept);
            for (event, stored) in history.iter().zip(self.kept(number)) {
                let prev = event.link.unwrap().prev;
                assert!(prev == stored.prev || !self.remembers && prev > stored.prev && prev < stored.offset);
            }
            let stats = self.bus.stats(&room).await.unwrap();
            let bytes: usize = self.kept(number).iter().map(|event| event.bytes).sum();
            assert_eq!((stats.events, stats.bytes), (kept.len(), bytes));
            self.check_head(number, stats.head.offset);
            self.check_values(number).await;
            self.check_recovery(number, stats.head).await;
        }
        for (recorder, due) in self.subscribers.values() {
            let seen = recorder.seen();
            let seen: Vec<Option<Offset>> = seen.iter().map(|event| event.offset()).collect();
            assert_eq!(seen, *due);
        }
    }

    async fn check_values(&self, room: u8) {
        let mut newest: Vec<&Stored> = Vec::new();
        for value in self.events(room).iter().rev().filter(|event| event.last_value) {
            if newest.iter().all(|known| known.name != value.name) && newest.len() < NAMES_MAX {
                newest.push(value);
            }
        }
        newest.retain(|value| self.now_ms() - value.at_ms < VALUE_AGE_MS);
        newest.reverse();
        let values = self.bus.last_values(&Self::room(room)).await.unwrap();
        assert_eq!(
            offsets(&values),
            newest.iter().map(|value| value.offset).collect::<Vec<_>>()
        );
    }

    /// Recovers from every position there ever was, and from those between them.
    async fn check_recovery(&self, room: u8, head: Position) {
        let newest = (0..ROOMS).map(|room| self.head(room)).max().unwrap_or_default();
        let dropped = self.events(room).len() - self.kept(room).len();
        let trimmed = self.events(room)[..dropped]
            .last()
            .map_or(Offset::ZERO, |last| last.offset);
        for offset in (0..=newest.0).rev().take(30).map(Offset) {
            let since = Position { offset, ..head };
            let later = self.events(room).iter().filter(|event| event.offset > offset);
            let later: Vec<Offset> = later.map(|event| event.offset).collect();
            match self.bus.recover(&Self::room(room), since, ALL).await.unwrap() {
                Recovery::Exact(missed) => {
                    assert_eq!(offsets(&missed), later);
                    assert!(offset >= trimmed);
                }
                Recovery::Lost => assert!(
                    offset < trimmed || !self.remembers && offset < newest,
                    "{offset} is lost"
                ),
            }
        }
    }
}

fn live(steps: Vec<Step>, remembers: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(remembers);
        for step in steps {
            world.take(step).await;
            world.check().await;
        }
    });
}

proptest! {
    #[test]
    fn a_bus_that_remembers_heads_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..80)) {
        live(steps, true);
    }

    #[test]
    fn a_bus_that_forgets_heads_errs_only_towards_lost_and_conflict(steps in proptest::collection::vec(step(), 1..80)) {
        live(steps, false);
    }
}
