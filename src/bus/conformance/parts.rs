//! Following rooms by a pattern.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{PATIENCE, Start, event, room, store, text};
use crate::bus::Bus;
use crate::bus::history::HistoryLimits;
use crate::bus::parts::{Follower, Place, Restart, RoomSet};
use crate::event::Event;
use crate::position::{Epoch, Offset, Position};
use crate::room::{Room, RoomPattern, Tenant};

/// A delivery or the end of an attachment.
enum Told {
    Event(u16, Arc<Event>),
    Detached(u16),
}

struct Recorder {
    id: u16,
    rooms: RoomSet,
    told: Mutex<Vec<Told>>,
    grown: Notify,
}

impl Follower for Recorder {
    fn id(&self) -> u16 {
        self.id
    }

    fn rooms(&self) -> &RoomSet {
        &self.rooms
    }

    fn deliver(&self, part: u16, event: Arc<Event>) {
        self.told.lock().unwrap().push(Told::Event(part, event));
        self.grown.notify_one();
    }

    fn detach(&self, part: u16) {
        self.told.lock().unwrap().push(Told::Detached(part));
        self.grown.notify_one();
    }
}

/// A reader that follows the parts as the contract says.
pub(crate) struct Reader {
    bus: Arc<dyn Bus>,
    recorder: Arc<Recorder>,
    follower: Arc<dyn Follower>,
    pub(crate) places: Vec<Option<Place>>,
    waiting: Vec<u16>,
    pub(crate) events: Vec<Arc<Event>>,
    /// The places behind each event.
    pub(crate) cursors: Vec<Vec<Option<Place>>>,
    pub(crate) restarts: Vec<Restart>,
    pub(crate) partial: bool,
}

impl Reader {
    pub(crate) async fn begin(bus: &Arc<dyn Bus>, id: u16, pattern: &str, since: Option<Vec<Option<Place>>>) -> Self {
        let rooms = RoomSet {
            tenant: Tenant::default(),
            pattern: RoomPattern::parse(pattern).unwrap(),
        };
        let recorder = Arc::new(Recorder {
            id,
            rooms,
            told: Mutex::default(),
            grown: Notify::new(),
        });
        let parts = bus.parts();
        let mut reader = Self {
            bus: Arc::clone(bus),
            follower: recorder.clone(),
            recorder,
            places: since.unwrap_or_else(|| vec![None; usize::from(parts)]),
            waiting: (0..parts).collect(),
            events: Vec::new(),
            cursors: Vec::new(),
            restarts: Vec::new(),
            partial: false,
        };
        reader.attach().await;
        reader
    }

    async fn attach(&mut self) {
        while let Some(&part) = self.waiting.first() {
            let at = usize::from(part);
            // NATS may be busy; the contract allows it to say so.
            let Ok(page) = self.bus.follow(part, self.places[at], &self.follower).await else {
                tokio::task::yield_now().await;
                continue;
            };
            self.restarts.extend(page.restarts);
            self.partial |= page.partial;
            for event in page.events {
                self.take(part, event, page.through.gapped);
            }
            self.places[at] = Some(page.through);
            if page.attached {
                self.waiting.remove(0);
            }
        }
    }

    fn take(&mut self, part: u16, event: Arc<Event>, gapped: bool) {
        if let Some(link) = event.link {
            let place = &mut self.places[usize::from(part)];
            if place.is_some_and(|place| place.position.offset >= link.position.offset) {
                return;
            }
            *place = Some(Place {
                position: link.position,
                gapped,
            });
        }
        self.events.push(event);
        self.cursors.push(self.places.clone());
    }

    /// Takes what was told, and follows again what was detached.
    pub(crate) async fn turn(&mut self) {
        let all = std::mem::take(&mut *self.recorder.told.lock().unwrap());
        for told in all {
            match told {
                Told::Event(part, event) if !self.waiting.contains(&part) => self.take(part, event, false),
                Told::Event(..) => {}
                Told::Detached(part) => self.waiting.push(part),
            }
        }
        self.attach().await;
    }

    /// Reads until there are so many events, and returns them.
    pub(crate) async fn wait_for(&mut self, count: usize) -> Vec<Arc<Event>> {
        let recorder = Arc::clone(&self.recorder);
        let reading = async {
            while self.events.len() < count {
                let grown = recorder.grown.notified();
                self.turn().await;
                if self.events.len() < count {
                    grown.await;
                }
            }
        };
        let read = timeout(PATIENCE, reading).await;
        read.unwrap_or_else(|_| panic!("{} of {count} events came", self.events.len()));
        assert_eq!(self.events.len(), count);
        self.events.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.bus.unfollow(self.recorder.id);
    }
}

fn by_room(events: &[Arc<Event>]) -> HashMap<Room, Vec<String>> {
    let mut rooms: HashMap<Room, Vec<String>> = HashMap::new();
    for event in events {
        rooms.entry(event.room.clone()).or_default().push(text(event));
    }
    rooms
}

fn counted(to: usize) -> Vec<String> {
    (0..to).map(|number| number.to_string()).collect()
}

pub(crate) async fn a_follower_gets_the_later_events_of_every_room_that_matches(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let rooms: Vec<Room> = (0..8).map(|number| room(&format!("f:{number}"))).collect();
    store(&*bus, &rooms[0], 2).await;
    let mut reader = Reader::begin(&bus, 40_000, "f:{id}", None).await;
    let publishing = rooms.iter().map(|room| store(&*bus, room, 10));
    let (_, events) = tokio::join!(futures_util::future::join_all(publishing), reader.wait_for(80));
    let by_room = by_room(&events);
    assert_eq!(by_room.len(), rooms.len(), "rooms that were not known before");
    for texts in by_room.values() {
        assert_eq!(*texts, counted(10));
    }
    assert!(reader.restarts.is_empty() && !reader.partial);
}

pub(crate) async fn a_follower_is_left_alone_by_other_rooms_and_tenants(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let mut reader = Reader::begin(&bus, 40_001, "f:{id}", None).await;
    let foreign = Room::parse(&Tenant::parse("other").unwrap(), "f:1").unwrap();
    for room in [&room("g:1"), &room("f:1:x"), &foreign] {
        store(&*bus, room, 3).await;
    }
    event(&room("f:1"), "own").stored(&*bus).await;
    assert_eq!(text(&reader.wait_for(1).await[0]), "own");
}

pub(crate) async fn from_every_place_exactly_the_later_events_are_read(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let mut reader = Reader::begin(&bus, 40_002, "f:{id}", None).await;
    let mut cursors = vec![reader.places.clone()];
    for number in 0..30 {
        let room = room(&format!("f:{}", number % 4));
        event(&room, &number.to_string()).stored(&*bus).await;
        store(&*bus, &super::room("other"), 1).await;
    }
    let events = reader.wait_for(30).await;
    cursors.extend(reader.cursors.clone());
    for (read_before, since) in cursors.into_iter().enumerate() {
        let mut again = Reader::begin(&bus, 40_003, "f:{id}", Some(since)).await;
        let rest = again.wait_for(30 - read_before).await;
        assert_eq!(by_room(&rest), by_room(&events[read_before..]));
        assert!(again.restarts.is_empty() && !again.partial);
        // Each names an event that the reader has, or none that it has not.
        for event in &rest {
            let link = event.link.unwrap();
            let original = events.iter().find(|known| known.id == event.id).unwrap();
            assert!(link.prev <= original.link.unwrap().prev.max(link.prev));
            assert_eq!(link.position, original.link.unwrap().position);
        }
    }
}

pub(crate) async fn another_epoch_is_told_as_partial(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    store(&*bus, &room("f:1"), 3).await;
    let foreign = Place::at(Position {
        epoch: Epoch::from_bits(1),
        offset: Offset(1),
    });
    let since = vec![Some(foreign); usize::from(bus.parts())];
    let mut reader = Reader::begin(&bus, 40_004, "f:{id}", Some(since)).await;
    assert!(reader.partial && reader.events.is_empty());
    event(&room("f:1"), "after").stored(&*bus).await;
    assert_eq!(text(&reader.wait_for(1).await[0]), "after");
}

pub(crate) async fn a_room_that_has_dropped_events_is_named(start: impl Start) {
    let limits = HistoryLimits {
        events_max: 3,
        ..HistoryLimits::default()
    };
    let bus = start(limits).await;
    let (whole, cut) = (room("f:whole"), room("f:cut"));
    for room in [&whole, &cut] {
        store(&*bus, room, 1).await;
    }
    let reader = Reader::begin(&bus, 40_005, "f:{id}", None).await;
    let since = reader.places.clone();
    drop(reader);
    store(&*bus, &whole, 2).await;
    store(&*bus, &cut, 6).await;
    let mut reader = Reader::begin(&bus, 40_006, "f:{id}", Some(since)).await;
    let named: Vec<&Room> = reader.restarts.iter().map(|(room, _)| room).collect();
    assert!(named == [&cut] || reader.partial, "{named:?}");
    let head = reader
        .restarts
        .iter()
        .find(|(room, _)| *room == cut)
        .map(|(_, head)| *head);
    if let Some(head) = head {
        let kept = reader.events.iter().filter(|event| event.room == cut);
        assert!(kept.into_iter().all(|event| event.offset() > Some(head.offset)));
    }
    let of_whole = by_room(&reader.events).remove(&whole).unwrap_or_default();
    assert_eq!(of_whole, counted(2));
    let count = reader.events.len();
    event(&cut, "after").stored(&*bus).await;
    assert_eq!(text(reader.wait_for(count + 1).await.last().unwrap()), "after");
}

pub(crate) async fn an_ended_follower_gets_nothing_and_others_go_on(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let ended = Reader::begin(&bus, 40_007, "f:{id}", None).await;
    let mut going_on = Reader::begin(&bus, 40_008, "{any*}", None).await;
    bus.unfollow(40_007);
    store(&*bus, &room("f:1"), 5).await;
    assert_eq!(going_on.wait_for(5).await.len(), 5);
    assert!(ended.recorder.told.lock().unwrap().is_empty());
    assert_eq!(bus.followed(0, 40_007), None);
}

pub(crate) async fn what_was_followed_reaches_beyond_other_rooms_events(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let mut reader = Reader::begin(&bus, 40_009, "f:{id}", None).await;
    let stored = store(&*bus, &room("other"), 3).await;
    event(&room("f:1"), "marker").stored(&*bus).await;
    reader.wait_for(1).await;
    let raised = async {
        let is_reached = |part| {
            let at = bus.followed(part, 40_009);
            at.is_some_and(|at| at.epoch == stored[2].epoch && at.offset >= stored[2].offset)
        };
        while !(0..bus.parts()).any(is_reached) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, raised).await.unwrap();
}
