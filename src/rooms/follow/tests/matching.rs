//! Followers by a pattern.

use super::*;
use crate::bus::parts::RoomSet;
use crate::room::RoomPattern;

fn set(pattern: &str) -> Selection {
    Selection::Matching(RoomSet {
        tenant: Tenant::default(),
        pattern: RoomPattern::parse(pattern).unwrap(),
    })
}

impl House {
    async fn follow_all(&self, pattern: &str, since: Option<Vec<Place>>, bounds: FollowBounds) -> Follow {
        let permit = permit();
        self.rooms.follow(&permit, set(pattern), since, bounds).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_match_are_followed_also_when_they_come_to_be_later() {
    let (house, rooms) = (House::keeping(1000), rooms(20));
    store(&*house.bus, &rooms[0], 2).await;
    let mut follow = house.follow_all("r:{id}", None, BOUNDS).await;
    let publishing = rooms.iter().map(|room| {
        let (bus, own) = (house.bus.clone(), room.clone());
        async move {
            store(&*bus, &super::room("other"), 1).await;
            store(&*bus, &own, 30).await
        }
    });
    let (_, events) = tokio::join!(futures_util::future::join_all(publishing), read(&mut follow, 600));
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let by_room = by_room(events);
    assert_eq!(by_room.len(), 20);
    for (room, texts) in by_room {
        assert_eq!(texts, expected, "{room}");
    }
}

#[tokio::test]
async fn every_cursor_of_a_pattern_goes_on_exactly() {
    let (house, rooms) = (House::keeping(100), rooms(7));
    let mut follow = house.follow_all("r:{id}", None, BOUNDS).await;
    let (mut taken, mut cursors) = (Vec::new(), vec![(follow.places(), 0)]);
    for number in 0..42 {
        event(&rooms[number % 7], &number.to_string()).stored(&*house.bus).await;
        if number % 3 == 2 {
            taken.extend(said(&follow.next().await.unwrap()));
            cursors.push((follow.places(), taken.len()));
        }
    }
    assert_eq!(taken.len(), 42);
    for (since, read_before) in cursors {
        let mut again = house.follow_all("r:{id}", Some(since), BOUNDS).await;
        let rest = read(&mut again, 42 - read_before).await;
        assert_eq!(by_room(rest), by_room(taken[read_before..].to_vec()));
    }
}

#[tokio::test]
async fn recovery_and_live_events_of_a_pattern_leave_no_seam() {
    let (house, rooms) = (House::keeping(1000), rooms(40));
    let since = house.follow_all("r:{id}", None, BOUNDS).await.places();
    for room in &rooms {
        store(&*house.bus, room, 3).await;
    }
    let mut follow = house.follow_all("r:{id}", Some(since), BOUNDS).await;
    let mut events = Vec::new();
    while events.len() < 8 {
        events.extend(said(&follow.next().await.unwrap()));
    }
    // Some parts are attached by now, others are not.
    for room in &rooms {
        for text in ["3", "4"] {
            event(room, text).stored(&*house.bus).await;
        }
    }
    let left = 5 * 40 - events.len();
    events.extend(read(&mut follow, left).await);
    for (room, texts) in by_room(events) {
        assert_eq!(texts, ["0", "1", "2", "3", "4"], "{room}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_raises_the_places_of_a_pattern() {
    let (house, rooms) = (House::keeping(2), rooms(1));
    let mut follow = house.follow_all("r:{id}", None, BOUNDS).await;
    // Beyond what the histories of other rooms keep.
    for number in 0..50 {
        store(&*house.bus, &room(&format!("other:{number}")), 5).await;
    }
    while !follow.next().await.unwrap().is_empty() {}
    let since = follow.places();
    drop(follow);
    event(&rooms[0], "e").stored(&*house.bus).await;
    let mut again = house.follow_all("r:{id}", Some(since), BOUNDS).await;
    assert_eq!(read(&mut again, 1).await[0].1, "e");
    let head = crate::bus::Bus::head(&*house.bus, &rooms[0]).await.unwrap();
    assert!(again.places().iter().any(|place| place.position == head));
}

#[tokio::test]
async fn ephemeral_events_of_a_pattern_are_delivered_also_of_unknown_rooms() {
    let house = House::keeping(10);
    let mut follow = house.follow_all("r:{id}", None, BOUNDS).await;
    for name in ["r:unknown", "other"] {
        let typing = event(&room(name), name).retention(Retention::Ephemeral);
        typing.send(&*house.bus).await.unwrap();
    }
    event(&room("r:1"), "end").stored(&*house.bus).await;
    let texts: Vec<String> = read(&mut follow, 2).await.into_iter().map(|(_, text)| text).collect();
    assert!(
        texts.contains(&"r:unknown".to_owned()) && texts.contains(&"end".to_owned()),
        "{texts:?}"
    );
}

#[tokio::test]
async fn slow_reader_of_a_pattern_is_ended_and_goes_on_exactly() {
    let (house, rooms) = (House::keeping(1000), rooms(3));
    let bounds = FollowBounds {
        waiting: ReadBounds {
            events_max: 16,
            bytes_max: 1 << 20,
        },
        ..BOUNDS
    };
    let mut follow = house.follow_all("r:{id}", None, bounds).await;
    for number in 0..12 {
        event(&rooms[number % 3], &number.to_string()).stored(&*house.bus).await;
    }
    let mut all = read(&mut follow, 8).await;
    for number in 12..40 {
        event(&rooms[number % 3], &number.to_string()).stored(&*house.bus).await;
    }
    assert_eq!(follow.next().await, Err(TooSlow));
    let mut again = house.follow_all("r:{id}", Some(follow.places()), BOUNDS).await;
    all.extend(read(&mut again, 32).await);
    for (room, texts) in by_room(all) {
        let first: usize = room.strip_prefix("r:").unwrap().parse().unwrap();
        let expected: Vec<String> = (first..40).step_by(3).map(|number| number.to_string()).collect();
        assert_eq!(texts, expected);
    }
}

#[tokio::test]
async fn followers_by_pattern_keep_no_room_in_memory() {
    let house = House::keeping(10);
    let mut all = Vec::new();
    for _ in 0..200 {
        all.push(house.follow_all("{room*}", None, BOUNDS).await);
    }
    let typing = event(&room("r:1"), "typing").retention(Retention::Ephemeral);
    typing.send(&*house.bus).await.unwrap();
    assert_eq!(house.bus.usage().rooms, 1);
    for follow in &mut all {
        assert_eq!(read(follow, 1).await.len(), 1);
    }
    drop(all);
    assert_eq!(house.rooms.subscriber_ids.used(), 0);
    assert_eq!(house.bus.usage().in_flight_events, 0);
    store(&*house.bus, &room("r:1"), 1).await;
    assert_eq!(house.bus.usage().rooms, 1);
}

#[tokio::test]
async fn another_epoch_or_another_number_of_parts_is_partial() {
    let house = House::keeping(10);
    store(&*house.bus, &room("r:1"), 2).await;
    let foreign = Place::at(Position {
        epoch: Epoch::from_bits(1),
        offset: Offset(1),
    });
    for count in [usize::from(crate::bus::parts::Parts::parts(&*house.bus)), 3] {
        let mut follow = house.follow_all("r:{id}", Some(vec![foreign; count]), BOUNDS).await;
        let step = follow.next().await.unwrap();
        assert!(step.partial && step.events.is_empty(), "{step:?}");
        // Every part says so; then it goes on.
        event(&room("r:1"), "after").stored(&*house.bus).await;
        loop {
            let step = follow.next().await.unwrap();
            if let [(_, text)] = &*said(&step) {
                assert_eq!(text, "after");
                break;
            }
        }
    }
}
