//! Guarantees to a publisher.

use super::*;
use crate::event::Timestamp;
use crate::identity::{ConnectionId, UserId};
use crate::json::Json;

pub(crate) async fn acknowledged_events_are_in_the_history(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    for number in 0..20 {
        let position = event(&room, &number.to_string()).stored(&*bus).await;
        let newest = ReadBounds { events_max: 1, ..ALL };
        let history = bus
            .history(&room, super::super::Page::Newest, newest)
            .await
            .unwrap()
            .events;
        assert_eq!(history[0].link.unwrap().position, position);
    }
}

pub(crate) async fn an_event_carries_everything_that_was_published(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let member = Recorder::new(0);
    bus.subscribe(&room, member.clone()).await.unwrap();
    let user = UserId::parse("ada").unwrap();
    let mut draft = event(&room, "").name("task:created").retention(Retention::LastValue);
    draft.0.payload = Payload::Json(Json::parse("{\"a\": 1}").unwrap());
    draft.0.actor = Some(user.clone());
    draft.0.except = Except::new(vec![ConnectionId::random()], vec![user]);
    let (publish, before) = (draft.0.clone(), Timestamp::now());
    let position = draft.stored(&*bus).await;
    let live = member.wait_for(1).await;
    let read = bus
        .history(&room, super::super::Page::Newest, ALL)
        .await
        .unwrap()
        .events;
    for seen in [&live[0], &read[0]] {
        assert_eq!((&seen.room, seen.id, &seen.name), (&room, publish.id, &publish.name));
        assert_eq!((seen.retention, &seen.actor), (publish.retention, &publish.actor));
        assert_eq!((&seen.except, &seen.payload), (&publish.except, &publish.payload));
        assert_eq!(seen.link.unwrap().position, position);
        assert!(seen.time >= before && seen.time <= Timestamp::now());
    }
}

pub(crate) async fn offsets_increase_and_each_event_names_the_one_before_it_in_its_room(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let rooms = [room("a"), room("b"), room("c")];
    for number in 0..60 {
        event(&rooms[number % 7 % 3], "x").stored(&*bus).await;
    }
    for room in &rooms {
        let history = bus.history(room, super::super::Page::Newest, ALL).await.unwrap().events;
        let mut prev = Offset::ZERO;
        for event in history {
            let link = event.link.unwrap();
            assert_eq!(link.prev, prev);
            assert!(link.position.offset > prev);
            prev = link.position.offset;
        }
        assert!(prev > Offset::ZERO);
    }
}

pub(crate) async fn one_name_in_two_tenants_is_two_rooms(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let of = |tenant| Room::parse(&Tenant::parse(tenant).unwrap(), "project:7").unwrap();
    let member = Recorder::new(0);
    bus.subscribe(&of("b"), member.clone()).await.unwrap();
    event(&of("a"), "for a").key("k").stored(&*bus).await;
    event(&of("b"), "for b").key("k").stored(&*bus).await;
    assert_eq!(texts(&member.wait_for(1).await), ["for b"]);
    let history = bus
        .history(&of("a"), super::super::Page::Newest, ALL)
        .await
        .unwrap()
        .events;
    assert_eq!(texts(&history), ["for a"]);
}

pub(crate) async fn a_repeated_key_stores_and_delivers_once(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let member = Recorder::new(0);
    bus.subscribe(&room, member.clone()).await.unwrap();
    let first = event(&room, "paid").key("order-1").stored(&*bus).await;
    event(&room, "other").stored(&*bus).await;
    for _ in 0..3 {
        let again = event(&room, "paid").key("order-1").send(&*bus).await.unwrap();
        assert_eq!((again.position, again.duplicate), (Some(first), true));
    }
    event(&room, "end").stored(&*bus).await;
    assert_eq!(texts(&member.wait_for(3).await), ["paid", "other", "end"]);
    let history = bus
        .history(&room, super::super::Page::Newest, ALL)
        .await
        .unwrap()
        .events;
    assert_eq!(texts(&history), ["paid", "other", "end"]);
}

pub(crate) async fn a_key_with_another_event_is_refused(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    event(&room, "1").key("k").stored(&*bus).await;
    let mut acted = event(&room, "1").key("k");
    acted.0.actor = Some(UserId::parse("ada").unwrap());
    let mut json = event(&room, "1").key("k");
    json.0.payload = Payload::Json(Json::parse("1").unwrap());
    let others = [
        event(&room, "2").key("k"),
        event(&room, "1").key("k").name("other"),
        event(&room, "1").key("k").retention(Retention::LastValue),
        acted,
        json,
    ];
    for other in others {
        assert_eq!(other.send(&*bus).await, Err(PublishError::KeyReused));
    }
    assert_eq!(bus.stats(&room).await.unwrap().events, 1);
}

pub(crate) async fn a_key_is_scoped_to_its_room(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let first = event(&room("a"), "1").key("k").stored(&*bus).await;
    let second = event(&room("b"), "2").key("k").stored(&*bus).await;
    assert_ne!(first, second);
}

pub(crate) async fn a_key_is_scoped_to_its_publisher(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    // A client takes the key before the backend does, with another event and with the same one.
    let by_ada = event(&room, "guessed").key_of("ada", "order-17").stored(&*bus).await;
    let by_ben = event(&room, "paid").key_of("ben", "order-17").stored(&*bus).await;
    let by_backend = event(&room, "paid").key("order-17").stored(&*bus).await;
    // On behalf of a user a backend is still the backend.
    let mut on_behalf = event(&room, "paid").key("order-18");
    on_behalf.0.actor = Some(UserId::parse("ada").unwrap());
    let on_behalf = on_behalf.stored(&*bus).await;
    let other = event(&room, "1").key_of("ada", "order-18").stored(&*bus).await;
    let all = std::collections::HashSet::from([by_ada, by_ben, by_backend, on_behalf, other]);
    assert_eq!(all.len(), 5);
    let again = event(&room, "guessed")
        .key_of("ada", "order-17")
        .send(&*bus)
        .await
        .unwrap();
    assert_eq!((again.position, again.duplicate), (Some(by_ada), true));
    let reused = event(&room, "another").key_of("ada", "order-17").send(&*bus).await;
    assert_eq!(reused, Err(PublishError::KeyReused));
}

pub(crate) async fn the_expected_version_is_the_head(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let positions = store(&*bus, &room, 2).await;
    let [stale, head] = positions[..] else { panic!() };
    for wrong in [Offset::ZERO, stale.offset, Offset(head.offset.0 + 1), Offset(u64::MAX)] {
        let refused = event(&room, "no").expected(wrong).send(&*bus).await;
        assert_eq!(refused, Err(PublishError::VersionConflict { current: head }));
    }
    let next = event(&room, "yes").expected(head.offset).stored(&*bus).await;
    assert_eq!(bus.head(&room).await.unwrap(), next);
    assert_eq!(bus.stats(&room).await.unwrap().events, 3);
}

pub(crate) async fn a_room_without_events_is_expected_at_zero_or_at_its_told_head(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    store(&*bus, &room("busy"), 5).await;
    event(&room("a"), "1").expected(Offset::ZERO).stored(&*bus).await;
    let told = bus.head(&room("b")).await.unwrap();
    store(&*bus, &room("busy"), 5).await;
    event(&room("b"), "1").expected(told.offset).stored(&*bus).await;
    let never_told = event(&room("c"), "1").expected(Offset(u64::MAX)).send(&*bus).await;
    assert!(matches!(never_told, Err(PublishError::VersionConflict { .. })));
}

pub(crate) async fn a_conflict_names_a_position_that_works(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    for room in [room("with"), room("without")] {
        if room.name() == "with" {
            store(&*bus, &room, 3).await;
        }
        let refused = event(&room, "x").expected(Offset(u64::MAX)).send(&*bus).await;
        let Err(PublishError::VersionConflict { current }) = refused else {
            panic!("{refused:?}");
        };
        event(&room, "x").expected(current.offset).stored(&*bus).await;
    }
}

pub(crate) async fn of_racing_expectations_exactly_one_wins(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let mut head = Offset::ZERO;
    for _ in 0..50 {
        let racers = (0..8).map(|_| {
            let (bus, draft) = (bus.clone(), event(&room, "x").expected(head));
            #[expect(clippy::disallowed_methods, reason = "joined below")]
            tokio::spawn(async move { draft.send(&*bus).await })
        });
        let racers: Vec<_> = racers.collect();
        let mut winners = Vec::new();
        let mut told = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(published) => winners.push(published.position.unwrap()),
                Err(PublishError::VersionConflict { current }) => told.push(current),
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((winners.len(), told.len()), (1, 7));
        assert!(told.iter().all(|current| *current == winners[0]));
        head = winners[0].offset;
    }
    assert_eq!(bus.stats(&room).await.unwrap().events, 50);
}

pub(crate) async fn a_repeated_conditional_publish_is_a_duplicate_and_no_conflict(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let draft = event(&room, "x").key("k").expected(Offset::ZERO);
    let first = draft.clone().stored(&*bus).await;
    let again = draft.send(&*bus).await.unwrap();
    assert_eq!((again.position, again.duplicate), (Some(first), true));
}

pub(crate) async fn ephemeral_events_have_no_position_and_are_not_kept(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let head = event(&room, "kept").stored(&*bus).await;
    let published = event(&room, "typing").retention(Retention::Ephemeral).send(&*bus).await;
    assert_eq!(published.unwrap().position, None);
    assert_eq!(bus.head(&room).await.unwrap(), head);
    let history = bus
        .history(&room, super::super::Page::Newest, ALL)
        .await
        .unwrap()
        .events;
    assert_eq!(texts(&history), ["kept"]);
    let next = event(&room, "next").stored(&*bus).await;
    let history = bus
        .history(&room, super::super::Page::After(head.offset), ALL)
        .await
        .unwrap()
        .events;
    let link = history[0].link.unwrap();
    assert_eq!((link.prev, link.position), (head.offset, next));
}

pub(crate) async fn several_together_are_as_one_after_the_other(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let (a, b) = (room("a"), room("b"));
    let member = Recorder::new(0);
    for room in [&a, &b] {
        bus.subscribe(room, member.clone()).await.unwrap();
    }
    let drafts = [
        event(&a, "1").key("k"),
        event(&a, "2"),
        event(&a, "1").key("k"),
        event(&a, "other").key("k"),
        event(&b, "3"),
        event(&b, "4").retention(Retention::Ephemeral),
        event(&b, "conflict").expected(Offset(u64::MAX)),
        event(&a, "5"),
    ];
    let parcels = drafts.map(|draft| Parcel {
        envelope: Envelope(draft.0),
        span: tracing::Span::none(),
    });
    let outcomes = bus.publish_all(parcels.into()).await;
    let position = |index: usize| outcomes[index].as_ref().unwrap().position;
    assert_eq!(position(2), position(0));
    let duplicates = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map(|done| done.duplicate));
    let told: Vec<_> = duplicates.map(Result::ok).collect();
    let (new, repeated) = (Some(false), Some(true));
    assert_eq!(told, [new, new, repeated, None, new, new, None, new]);
    assert_eq!(outcomes[3], Err(PublishError::KeyReused));
    assert!(matches!(outcomes[6], Err(PublishError::VersionConflict { .. })));
    assert_eq!(position(5), None);
    assert!(position(0).map(|at| at.offset) < position(1).map(|at| at.offset));
    assert!(position(1).map(|at| at.offset) < position(7).map(|at| at.offset));
    let seen = member.wait_for(5).await;
    for (room, expected) in [(&a, &["1", "2", "5"][..]), (&b, &["3", "4"])] {
        let of_room = seen.iter().filter(|event| event.room == *room);
        assert_eq!(of_room.map(|event| text(event)).collect::<Vec<_>>(), expected);
    }
    let history = bus.history(&a, super::super::Page::Newest, ALL).await.unwrap().events;
    assert_eq!(texts(&history), ["1", "2", "5"]);
    assert!(bus.publish_all(Vec::new()).await.is_empty());
}
