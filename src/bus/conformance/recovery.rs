//! Guarantees to a reader that resumes.

use super::super::Recovery;
use super::*;
use crate::position::Epoch;

async fn recover(bus: &dyn Bus, room: &Room, since: Position, bounds: ReadBounds) -> Option<Vec<Arc<Event>>> {
    match bus.recover(room, since, bounds).await.unwrap() {
        Recovery::Exact(events) => Some(events),
        Recovery::Lost => None,
    }
}

fn keeping(events_max: usize) -> HistoryLimits {
    HistoryLimits {
        events_max,
        ..HistoryLimits::default()
    }
}

pub(crate) async fn from_every_position_exactly_the_later_events_are_recovered(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let mut positions = Vec::new();
    for _ in 0..20 {
        positions.extend(store(&*bus, &room, 1).await);
        store(&*bus, &super::room("other"), 1).await;
    }
    for (index, since) in positions.iter().enumerate() {
        let missed = recover(&*bus, &room, *since, ALL).await.unwrap();
        let later: Vec<Offset> = positions[index + 1..].iter().map(|later| later.offset).collect();
        assert_eq!(offsets(&missed), later);
    }
}

pub(crate) async fn from_the_head_of_a_room_without_events_everything_is_recovered(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    store(&*bus, &room("other"), 5).await;
    let (told, subscribed) = (room("told"), room("subscribed"));
    let heads = [
        (bus.head(&told).await.unwrap(), &told),
        (bus.subscribe(&subscribed, Recorder::new(0)).await.unwrap(), &subscribed),
    ];
    for (head, room) in heads {
        assert_eq!(
            recover(&*bus, room, head, ALL).await.map(|missed| missed.len()),
            Some(0)
        );
        store(&*bus, &super::room("other"), 5).await;
        store(&*bus, room, 3).await;
        let missed = recover(&*bus, room, head, ALL).await.unwrap();
        assert_eq!(texts(&missed), ["0", "1", "2"]);
        assert!(missed[0].link.unwrap().prev <= head.offset);
    }
}

pub(crate) async fn another_epoch_and_a_position_of_the_future_are_lost(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let head = store(&*bus, &room, 3).await[2];
    let elsewhere = Position {
        epoch: Epoch::random(),
        ..head
    };
    let future = Position {
        offset: Offset(u64::MAX),
        ..head
    };
    for since in [elsewhere, future] {
        assert!(recover(&*bus, &room, since, ALL).await.is_none());
        assert!(recover(&*bus, &super::room("unknown"), since, ALL).await.is_none());
    }
}

pub(crate) async fn what_the_history_has_dropped_is_lost_and_never_answered_in_part(start: impl Start) {
    let bus = start(keeping(5)).await;
    let room = room("r");
    let positions = store(&*bus, &room, 12).await;
    for (index, since) in positions.iter().enumerate() {
        let missed = recover(&*bus, &room, *since, ALL).await;
        let later = positions.len() - 1 - index;
        assert_eq!(missed.map(|missed| missed.len()), (later <= 5).then_some(later));
    }
    let beginning = Position {
        offset: Offset::ZERO,
        ..positions[0]
    };
    assert!(recover(&*bus, &room, beginning, ALL).await.is_none());
}

/// Events kept of other rooms prove nothing about this one.
pub(crate) async fn beside_older_events_of_other_rooms_dropped_ones_are_lost(start: impl Start) {
    const ROOMS: usize = 20;
    let bus = start(keeping(5)).await;
    let rooms: Vec<Room> = (0..ROOMS).map(|number| room(&format!("r{number}"))).collect();
    for room in &rooms {
        store(&*bus, &super::room(&format!("beside {}", room.name())), 1).await;
    }
    let mut told = Vec::new();
    for room in &rooms {
        told.push(bus.head(room).await.unwrap());
    }
    let mut positions = vec![Vec::new(); ROOMS];
    for _ in 0..8 {
        for (room, positions) in rooms.iter().zip(&mut positions) {
            positions.extend(store(&*bus, room, 1).await);
        }
    }
    for ((room, positions), told) in rooms.iter().zip(&positions).zip(told) {
        assert!(recover(&*bus, room, told, ALL).await.is_none());
        for (index, since) in positions.iter().enumerate() {
            let missed = recover(&*bus, room, *since, ALL).await;
            let later = positions.len() - 1 - index;
            assert_eq!(missed.map(|missed| missed.len()), (later <= 5).then_some(later));
        }
    }
}

pub(crate) async fn more_than_the_bounds_is_lost(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let mut positions = Vec::new();
    for _ in 0..10 {
        positions.push(event(&room, "1234567890").stored(&*bus).await);
    }
    let missing = |events_max, bytes_max| ReadBounds { events_max, bytes_max };
    for (bounds, allowed) in [(missing(9, 90), true), (missing(8, 90), false), (missing(9, 89), false)] {
        let missed = recover(&*bus, &room, positions[0], bounds).await;
        assert_eq!(missed.map(|missed| missed.len()), allowed.then_some(9));
    }
}

pub(crate) async fn without_history_only_the_head_itself_is_recovered(start: impl Start) {
    let bus = start(keeping(0)).await;
    let room = room("r");
    let positions = store(&*bus, &room, 2).await;
    assert!(recover(&*bus, &room, positions[0], ALL).await.is_none());
    assert_eq!(
        recover(&*bus, &room, positions[1], ALL)
            .await
            .map(|missed| missed.len()),
        Some(0)
    );
}

pub(crate) async fn recovering_and_subscribing_leave_no_seam(start: impl Start) {
    const EVENTS: usize = 400;
    let bus = start(keeping(EVENTS)).await;
    let room = room("r");
    let since = bus.head(&room).await.unwrap();
    let publisher = {
        let (bus, room) = (bus.clone(), room.clone());
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        tokio::spawn(async move { store(&*bus, &room, EVENTS).await })
    };
    let mut members = Vec::new();
    for id in 0..20 {
        let member = Recorder::new(id);
        let head = bus.subscribe(&room, member.clone()).await.unwrap();
        let missed = recover(&*bus, &room, since, ALL).await.unwrap();
        members.push((member, head, missed));
        tokio::task::yield_now().await;
    }
    let stored: Vec<Offset> = publisher.await.unwrap().iter().map(|at| at.offset).collect();
    for (member, head, missed) in members {
        // The recovery holds at least everything up to the subscription's head; what it holds beyond is delivered live,
        // too.
        let caught_up = offsets(&missed).last().copied().unwrap_or(since.offset);
        assert!(caught_up >= head.offset || missed.is_empty());
        let later = stored.iter().filter(|offset| **offset > head.offset).count();
        let live = offsets(&member.wait_for(later).await);
        let mut all = offsets(&missed);
        all.extend(live.into_iter().filter(|offset| *offset > caught_up));
        assert_eq!(all, stored);
    }
}
