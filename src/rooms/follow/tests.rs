//! Followers over the in-process bus.

mod matching;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Follow, FollowBounds, Selection, Step, TooSlow};
use crate::bus::ReadBounds;
use crate::bus::conformance::{ALL, Draft, event, room, store, text};
use crate::bus::history::{HistoryLimits, HistoryRules};
use crate::bus::memory::{self, MemoryBus};
use crate::bus::parts::Place;
use crate::event::Retention;
use crate::policy::{Service, TenantPermit};
use crate::position::{Epoch, Offset, Position};
use crate::presence;
use crate::presence::memory::MemoryPresence;
use crate::room::{Room, Tenant};
use crate::rooms::Rooms;

/// Long enough for a slow machine; nothing waits for it to pass.
const BOUNDS: FollowBounds = FollowBounds {
    waiting: ALL,
    step: ReadBounds {
        events_max: 8,
        bytes_max: 1 << 20,
    },
    idle_max: Duration::from_secs(60),
};

struct House {
    bus: Arc<MemoryBus>,
    rooms: Rooms,
}

impl House {
    fn keeping(events_max: usize) -> Self {
        let limits = HistoryLimits {
            events_max,
            ..HistoryLimits::default()
        };
        let bus = Arc::new(MemoryBus::new(memory::Config {
            history: HistoryRules::new([], limits),
            ..memory::Config::default()
        }));
        let presence = Arc::new(MemoryPresence::new(presence::memory::Config::default()));
        Self {
            rooms: Rooms::new(bus.clone(), presence),
            bus,
        }
    }

    async fn follow(&self, rooms: &[Room], since: Option<Vec<Place>>) -> Follow {
        self.follow_within(rooms, since, BOUNDS).await
    }

    async fn follow_within(&self, rooms: &[Room], since: Option<Vec<Place>>, bounds: FollowBounds) -> Follow {
        let permit = permit();
        let following = self
            .rooms
            .follow(&permit, Selection::Named(rooms.to_vec()), since, bounds);
        following.await.unwrap()
    }
}

fn permit() -> TenantPermit {
    let service = Service {
        name: "agent".into(),
        publish: false,
        read: false,
        manage: false,
        subscribe: true,
        tenants: None,
    };
    service.permit_tenant(Tenant::default()).unwrap()
}

fn rooms(count: usize) -> Vec<Room> {
    (0..count).map(|number| room(&format!("r:{number}"))).collect()
}

fn said(step: &Step) -> Vec<(String, String)> {
    let said = |event: &Arc<crate::event::Event>| (event.room.name().to_owned(), text(event));
    step.events.iter().map(said).collect()
}

/// Reads so many events, none of which begins a room anew.
async fn read(follow: &mut Follow, count: usize) -> Vec<(String, String)> {
    let mut events = Vec::new();
    while events.len() < count {
        let step = follow.next().await.unwrap();
        assert!(step.resyncs.is_empty(), "{step:?}");
        events.extend(said(&step));
    }
    assert_eq!(events.len(), count);
    events
}

fn by_room(events: Vec<(String, String)>) -> HashMap<String, Vec<String>> {
    let mut rooms: HashMap<String, Vec<String>> = HashMap::new();
    for (room, text) in events {
        rooms.entry(room).or_default().push(text);
    }
    rooms
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishes_arrive_once_and_in_order() {
    let (house, rooms) = (House::keeping(1000), rooms(3));
    let mut follow = house.follow(&rooms, None).await;
    let publishing = rooms.iter().map(|room| {
        let (bus, room) = (house.bus.clone(), room.clone());
        async move { store(&*bus, &room, 200).await }
    });
    let (_, events) = tokio::join!(futures_util::future::join_all(publishing), read(&mut follow, 600));
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let by_room = by_room(events);
    assert_eq!(by_room.len(), 3);
    for (room, texts) in by_room {
        assert_eq!(texts, expected, "{room}");
    }
}

#[tokio::test]
async fn every_cursor_of_a_run_goes_on_exactly() {
    let (house, rooms) = (House::keeping(100), rooms(2));
    let mut follow = house.follow(&rooms, None).await;
    let mut taken = Vec::new();
    let mut cursors = vec![(follow.places(), 0)];
    for number in 0..40 {
        let room = &rooms[usize::from(number % 3 == 0)];
        event(room, &number.to_string()).stored(&*house.bus).await;
        if number % 5 == 4 {
            taken.extend(said(&follow.next().await.unwrap()));
            cursors.push((follow.places(), taken.len()));
        }
    }
    assert_eq!(taken.len(), 40);
    for (since, read_before) in cursors {
        let mut again = house.follow(&rooms, Some(since)).await;
        let rest = read(&mut again, 40 - read_before).await;
        assert_eq!(by_room(rest), by_room(taken[read_before..].to_vec()));
    }
}

#[tokio::test]
async fn recovery_and_live_events_leave_no_seam() {
    let (house, rooms) = (House::keeping(1000), rooms(40));
    let since: Vec<Place> = house.follow(&rooms, None).await.places();
    for room in &rooms {
        store(&*house.bus, room, 3).await;
    }
    let mut follow = house.follow(&rooms, Some(since)).await;
    let mut events = read(&mut follow, 8).await;
    // Some rooms are recovered by now, others are not even subscribed.
    for room in &rooms {
        for text in ["3", "4"] {
            event(room, text).stored(&*house.bus).await;
        }
    }
    events.extend(read(&mut follow, 5 * 40 - 8).await);
    for (room, texts) in by_room(events) {
        assert_eq!(texts, ["0", "1", "2", "3", "4"], "{room}");
    }
}

#[tokio::test]
async fn lost_history_begins_the_room_anew_and_no_other() {
    let (house, rooms) = (House::keeping(3), rooms(2));
    let since: Vec<Place> = house.follow(&rooms, None).await.places();
    let lost = store(&*house.bus, &rooms[0], 5).await;
    store(&*house.bus, &rooms[1], 3).await;
    let mut follow = house.follow(&rooms, Some(since)).await;
    let step = follow.next().await.unwrap();
    assert_eq!(step.resyncs.len(), 1);
    assert_eq!((&step.resyncs[0].room, step.resyncs[0].head), (&rooms[0], lost[4]));
    let texts: Vec<String> = said(&step).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["0", "1", "2"]);
    event(&rooms[0], "5").stored(&*house.bus).await;
    assert_eq!(read(&mut follow, 1).await[0].1, "5");
}

#[tokio::test]
async fn another_epoch_begins_every_room_anew() {
    let (house, rooms) = (House::keeping(3), rooms(2));
    store(&*house.bus, &rooms[0], 2).await;
    let foreign = Place::at(Position {
        epoch: Epoch::from_bits(1),
        offset: Offset(1),
    });
    let mut follow = house.follow(&rooms, Some(vec![foreign; 2])).await;
    let step = follow.next().await.unwrap();
    assert_eq!((step.resyncs.len(), step.events.len()), (2, 0));
    let positions: Vec<Place> = follow.places();
    assert!(step.resyncs.iter().map(|resync| Place::at(resync.head)).eq(positions));
}

#[tokio::test]
async fn slow_reader_is_ended_and_goes_on_exactly() {
    let (house, rooms) = (House::keeping(1000), rooms(1));
    let bounds = FollowBounds {
        waiting: ReadBounds {
            events_max: 16,
            bytes_max: 1 << 20,
        },
        ..BOUNDS
    };
    let mut follow = house.follow_within(&rooms, None, bounds).await;
    store(&*house.bus, &rooms[0], 16).await;
    assert_eq!(read(&mut follow, 8).await.len(), 8);
    // 8 are taken out, and 8 wait: the ninth is one too many.
    for number in 16..25 {
        event(&rooms[0], &number.to_string()).stored(&*house.bus).await;
    }
    assert_eq!(follow.next().await, Err(TooSlow));
    let positions = follow.places();
    let mut again = house.follow(&rooms, Some(positions)).await;
    let texts: Vec<String> = read(&mut again, 17).await.into_iter().map(|(_, text)| text).collect();
    assert!(texts.into_iter().eq((8..25).map(|number| number.to_string())));
}

#[tokio::test]
async fn bytes_that_wait_are_bounded_too() {
    let (house, rooms) = (House::keeping(10), rooms(1));
    let bounds = FollowBounds {
        waiting: ReadBounds {
            events_max: 100,
            bytes_max: 2000,
        },
        ..BOUNDS
    };
    let mut follow = house.follow_within(&rooms, None, bounds).await;
    // A single event fits, whatever its size.
    event(&rooms[0], &"x".repeat(5000)).stored(&*house.bus).await;
    assert_eq!(read(&mut follow, 1).await.len(), 1);
    for _ in 0..2 {
        event(&rooms[0], &"x".repeat(900)).stored(&*house.bus).await;
    }
    assert_eq!(follow.next().await, Err(TooSlow));
}

#[tokio::test]
async fn ephemeral_events_are_delivered_and_move_no_position() {
    let (house, rooms) = (House::keeping(10), rooms(1));
    let mut follow = house.follow(&rooms, None).await;
    let before: Vec<Place> = follow.places();
    let typing: Draft = event(&rooms[0], "typing").retention(Retention::Ephemeral);
    typing.send(&*house.bus).await.unwrap();
    assert_eq!(read(&mut follow, 1).await[0].1, "typing");
    assert_eq!(follow.places(), before);
}

#[tokio::test(start_paused = true)]
async fn silence_is_reported_after_its_time() {
    let (house, rooms) = (House::keeping(10), rooms(1));
    let mut follow = house.follow(&rooms, None).await;
    let began = tokio::time::Instant::now();
    assert!(follow.next().await.unwrap().is_empty());
    assert!(began.elapsed() >= BOUNDS.idle_max);
}

#[tokio::test]
async fn dropped_followers_leave_nothing() {
    let (house, rooms) = (House::keeping(10), rooms(5));
    let mut all = Vec::new();
    for number in 0..200 {
        let since: Option<Vec<Place>> = all.last().map(|follow: &Follow| follow.places());
        let mut follow = house.follow(&rooms, since.filter(|_| number % 2 == 0)).await;
        event(&rooms[0], "e").stored(&*house.bus).await;
        follow.next().await.unwrap();
        all.push(follow);
    }
    assert_eq!(house.rooms.subscriber_ids.used(), 200);
    drop(all);
    assert_eq!(house.rooms.subscriber_ids.used(), 0);
    assert_eq!(house.bus.usage().in_flight_events, 0);
    // A room that nothing was published in leaves memory with its last subscriber.
    assert_eq!(house.bus.usage().rooms, 1);
}
