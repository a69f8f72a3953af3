//! The bus's contract, and the guarantees of this bus beyond it.

use super::*;
use crate::bus::conformance::{ALL, Recorder, conformance_suite, event, room, store, text, texts};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::bus::{Delivery, Page};
use crate::event::Retention;
use crate::position::Offset;
use std::time::Duration;

async fn start(history: HistoryLimits) -> Arc<dyn Bus> {
    let history = HistoryRules::new([], history);
    Arc::new(MemoryBus::new(Config {
        history,
        ..Config::default()
    }))
}

mod contract {
    super::conformance_suite!(super::start);
}

/// A bus under a manual clock.
struct Timed {
    bus: MemoryBus,
    clock: Arc<AtomicU64>,
}

impl Timed {
    fn new(config: Config) -> Self {
        let clock = Arc::new(AtomicU64::new(1));
        let bus = MemoryBus::with_clock(config, Clock::Manual(Arc::clone(&clock)));
        Self { bus, clock }
    }

    fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    async fn recovers(&self, room: &Room, since: Position) -> Option<usize> {
        match self.bus.recover(room, since, ALL).await.unwrap() {
            Recovery::Exact(events) => Some(events.len()),
            Recovery::Lost => None,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn expired_events_are_neither_read_nor_recovered() {
    let timed = Timed::new(Config::default());
    let (bus, room) = (&timed.bus, room("r"));
    let first = event(&room, "1").stored(bus).await;
    timed.pass(4 * MINUTE);
    let second = event(&room, "2").stored(bus).await;
    assert_eq!(timed.recovers(&room, first).await, Some(1));
    timed.pass(6 * MINUTE);
    assert_eq!(
        texts(&bus.history(&room, Page::Newest, ALL).await.unwrap().events),
        ["2"]
    );
    let beginning = Position {
        offset: Offset::ZERO,
        ..first
    };
    assert_eq!(timed.recovers(&room, beginning).await, None);
    assert_eq!(timed.recovers(&room, first).await, Some(1));
    timed.pass(4 * MINUTE);
    assert_eq!(timed.recovers(&room, first).await, None);
    assert_eq!(timed.recovers(&room, second).await, Some(0));
    assert_eq!(bus.stats(&room).await.unwrap().events, 0);
}

#[tokio::test]
async fn a_quiet_room_leaves_memory_and_is_still_where_it_was() {
    let timed = Timed::new(Config::default());
    let (bus, quiet) = (&timed.bus, room("quiet"));
    let positions = store(bus, &quiet, 3).await;
    store(bus, &room("busy"), 3).await;
    timed.pass(11 * MINUTE);
    bus.sweep();
    assert_eq!((bus.usage().rooms, bus.usage().history_bytes), (0, 0));
    assert_eq!(bus.head(&quiet).await.unwrap(), positions[2]);
    assert_eq!(timed.recovers(&quiet, positions[2]).await, Some(0));
    assert_eq!(timed.recovers(&quiet, positions[1]).await, None);
    let current = positions[2];
    let stale = event(&quiet, "x").expected(Offset::ZERO).send(bus).await;
    assert_eq!(stale, Err(PublishError::VersionConflict { current }));
    event(&quiet, "x").expected(current.offset).stored(bus).await;
    assert_eq!(timed.recovers(&quiet, current).await, Some(1));
    let history = bus.history(&quiet, Page::Newest, ALL).await.unwrap().events;
    assert_eq!(history[0].link.unwrap().prev, current.offset);
}

#[tokio::test]
async fn of_a_room_forgotten_for_good_the_bus_claims_no_more_than_it_knows() {
    let timed = Timed::new(Config {
        forgotten_rooms_max: 0,
        ..Config::default()
    });
    let (bus, quiet) = (&timed.bus, room("quiet"));
    let positions = store(bus, &quiet, 2).await;
    timed.pass(11 * MINUTE);
    bus.sweep();
    assert_eq!(timed.recovers(&quiet, positions[0]).await, None);
    let stale = event(&quiet, "x").expected(Offset::ZERO).send(bus).await;
    let Err(PublishError::VersionConflict { current }) = stale else {
        panic!("{stale:?}");
    };
    assert!(current.offset >= positions[1].offset);
    let stored = event(&quiet, "x").expected(current.offset).stored(bus).await;
    assert_eq!(timed.recovers(&quiet, current).await, Some(1));
    assert_eq!(timed.recovers(&quiet, positions[0]).await, None);
    let history = bus.history(&quiet, Page::Newest, ALL).await.unwrap().events;
    assert_eq!(history[0].link.unwrap().position, stored);
    assert!(history[0].link.unwrap().prev <= current.offset);
}

#[tokio::test]
async fn a_room_with_a_subscriber_stays() {
    let timed = Timed::new(Config::default());
    let (bus, room) = (&timed.bus, room("r"));
    let member = Recorder::new(0);
    bus.subscribe(&room, member.clone()).await.unwrap();
    timed.pass(60 * MINUTE);
    bus.sweep();
    event(&room, "still there").stored(bus).await;
    assert_eq!(member.seen().len(), 1);
    bus.unsubscribe(&room, 0);
    timed.pass(60 * MINUTE);
    bus.sweep();
    assert_eq!(bus.usage().rooms, 0);
}

#[tokio::test]
async fn a_room_that_was_only_listened_to_leaves_nothing() {
    let bus = MemoryBus::new(Config::default());
    bus.subscribe(&room("r"), Recorder::new(0)).await.unwrap();
    assert_eq!(bus.usage().rooms, 1);
    bus.unsubscribe(&room("r"), 0);
    assert_eq!(bus.usage().rooms, 0);
}

#[tokio::test]
async fn beyond_rooms_max_new_rooms_are_refused_until_old_ones_are_quiet() {
    let timed = Timed::new(Config {
        rooms_max: 2,
        ..Config::default()
    });
    let bus = &timed.bus;
    event(&room("a"), "1").stored(bus).await;
    bus.subscribe(&room("b"), Recorder::new(0)).await.unwrap();
    let refused = event(&room("c"), "1").send(bus).await;
    assert_eq!(refused, Err(PublishError::NotStored("too many rooms")));
    assert!(bus.subscribe(&room("c"), Recorder::new(0)).await.is_err());
    event(&room("a"), "2").stored(bus).await;
    let typing = event(&room("c"), "1").retention(Retention::Ephemeral).send(bus).await;
    assert!(typing.is_ok());
    timed.pass(11 * MINUTE);
    bus.sweep();
    event(&room("c"), "1").stored(bus).await;
    assert_eq!(bus.usage().rooms, 2);
}

#[tokio::test]
async fn a_publisher_pays_for_full_memory_with_its_own_history() {
    let timed = Timed::new(Config {
        history_bytes_max: 10 * (256 + 100),
        ..Config::default()
    });
    let (bus, payload) = (&timed.bus, "x".repeat(100));
    for _ in 0..4 {
        event(&room("quiet"), &payload).stored(bus).await;
    }
    let mut last = None;
    for _ in 0..50 {
        last = Some(event(&room("flood"), &payload).stored(bus).await);
        assert!(bus.usage().history_bytes <= 10 * (256 + 100));
    }
    assert_eq!(bus.stats(&room("quiet")).await.unwrap().events, 4);
    assert_eq!(bus.stats(&room("flood")).await.unwrap().events, 6);
    assert_eq!(timed.recovers(&room("flood"), last.unwrap()).await, Some(0));
    timed.pass(11 * MINUTE);
    bus.sweep();
    assert_eq!(bus.usage().history_bytes, 0);
}

#[tokio::test]
async fn only_the_newest_names_have_last_values_and_not_for_ever() {
    let timed = Timed::new(Config {
        last_value_names_max: 2,
        ..Config::default()
    });
    let (bus, room) = (&timed.bus, room("r"));
    for name in ["a", "b", "c", "b"] {
        event(&room, name)
            .name(name)
            .retention(Retention::LastValue)
            .stored(bus)
            .await;
    }
    timed.pass(60 * MINUTE);
    bus.sweep();
    assert_eq!(texts(&bus.last_values(&room).await.unwrap()), ["c", "b"]);
    timed.pass(24 * 60 * MINUTE);
    assert!(bus.last_values(&room).await.unwrap().is_empty());
    bus.sweep();
    assert_eq!((bus.usage().rooms, bus.usage().history_bytes), (0, 0));
}

#[tokio::test]
async fn a_key_is_forgotten_when_its_window_is_over() {
    let timed = Timed::new(Config::default());
    let (bus, room) = (&timed.bus, room("r"));
    let first = event(&room, "1").key("k").stored(bus).await;
    timed.pass(Duration::from_millis(119_999));
    assert_eq!(
        event(&room, "1").key("k").send(bus).await.unwrap().position,
        Some(first)
    );
    timed.pass(Duration::from_millis(1));
    assert_ne!(event(&room, "2").key("k").stored(bus).await, first);
}

#[tokio::test]
async fn a_repeated_ephemeral_event_is_shown_once() {
    let bus = MemoryBus::new(Config::default());
    let (room, member) = (room("r"), Recorder::new(0));
    bus.subscribe(&room, member.clone()).await.unwrap();
    let typing = event(&room, "typing").retention(Retention::Ephemeral).key("k");
    assert!(!typing.clone().send(&bus).await.unwrap().duplicate);
    let again = typing.send(&bus).await.unwrap();
    assert_eq!((again.position, again.duplicate), (None, true));
    assert_eq!(member.seen().len(), 1);
}

#[tokio::test]
async fn an_event_larger_than_the_history_is_delivered_and_not_kept() {
    let limits = HistoryLimits {
        bytes_max: 10,
        ..HistoryLimits::default()
    };
    let bus = start(limits).await;
    let (room, member) = (room("r"), Recorder::new(0));
    bus.subscribe(&room, member.clone()).await.unwrap();
    let before = event(&room, "small").stored(&*bus).await;
    let head = event(&room, "eleven byte").stored(&*bus).await;
    assert_eq!(member.seen().len(), 2);
    assert!(matches!(bus.recover(&room, before, ALL).await.unwrap(), Recovery::Lost));
    assert!(matches!(bus.recover(&room, head, ALL).await.unwrap(), Recovery::Exact(events) if events.is_empty()));
}

/// A slow consumer: keeps deliveries, as a shard does that lags.
struct Slow(Mutex<Vec<Arc<Delivery>>>);

impl Subscriber for Slow {
    fn id(&self) -> u16 {
        0
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.0.lock().unwrap().push(delivery);
    }

    fn reset(&self, _: Room, _: Position) {}
}

#[tokio::test]
async fn a_publisher_waits_until_slow_subscribers_have_taken_something() {
    let bus = MemoryBus::new(Config {
        in_flight_events_max: 2,
        in_flight_wait_max: MINUTE,
        ..Config::default()
    });
    let (room, slow) = (room("r"), Arc::new(Slow(Mutex::default())));
    bus.subscribe(&room, slow.clone()).await.unwrap();
    store(&bus, &room, 2).await;
    assert_eq!(bus.usage().in_flight_events, 2);
    let mut waiting = Box::pin(event(&room, "2").send(&bus));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(slow.0.lock().unwrap().remove(0));
    waiting.await.unwrap();
    let held: Vec<String> = slow.0.lock().unwrap().iter().map(|held| text(&held.event)).collect();
    assert_eq!(held, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_waits_too_long_is_refused() {
    let bus = MemoryBus::new(Config {
        in_flight_events_max: 1,
        ..Config::default()
    });
    let (room, slow) = (room("r"), Arc::new(Slow(Mutex::default())));
    bus.subscribe(&room, slow.clone()).await.unwrap();
    event(&room, "1").stored(&bus).await;
    let refused = event(&room, "2").send(&bus).await;
    assert_eq!(refused, Err(PublishError::NotStored("too many events in flight")));
    assert_eq!(bus.stats(&room).await.unwrap().events, 1);
}

#[tokio::test(start_paused = true)]
async fn the_runner_sweeps_every_room_within_an_interval_and_ends() {
    let timed = Timed::new(Config::default());
    let shutdown = CancellationToken::new();
    store(&timed.bus, &room("r"), 3).await;
    timed.pass(11 * MINUTE);
    let bus = Arc::new(timed.bus);
    let running = Arc::clone(&bus).run(shutdown.clone());
    let watching = async {
        tokio::time::sleep(Config::default().sweep_interval).await;
        assert_eq!(bus.usage().rooms, 0);
        shutdown.cancel();
    };
    tokio::join!(running, watching);
}

#[tokio::test]
async fn every_start_is_a_new_epoch() {
    let (one, other) = (MemoryBus::new(Config::default()), MemoryBus::new(Config::default()));
    let room = room("r");
    let position = event(&room, "1").stored(&one).await;
    event(&room, "1").stored(&other).await;
    let answer = other.recover(&room, position, ALL).await.unwrap();
    assert!(matches!(answer, Recovery::Lost));
}

#[tokio::test]
async fn a_waiting_publish_that_is_dropped_stores_nothing() {
    let bus = MemoryBus::new(Config {
        in_flight_events_max: 1,
        ..Config::default()
    });
    let (room, slow) = (room("r"), Arc::new(Slow(Mutex::default())));
    bus.subscribe(&room, slow.clone()).await.unwrap();
    event(&room, "1").stored(&bus).await;
    let mut waiting = Box::pin(event(&room, "2").send(&bus));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    slow.0.lock().unwrap().clear();
    assert_eq!(bus.usage().in_flight_events, 0);
    assert_eq!(bus.stats(&room).await.unwrap().events, 1);
}
