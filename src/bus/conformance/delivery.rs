//! Guarantees to a subscriber.

use super::*;

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(crate) async fn a_subscriber_gets_every_later_event_once_and_in_order(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let member = Recorder::new(0);
    let head = bus.subscribe(&room, member.clone()).await.unwrap();
    store(&*bus, &room, 100).await;
    let seen = member.wait_for(100).await;
    assert_eq!(texts(&seen), numbers(0..100));
    let mut last = head.offset;
    for event in seen {
        let link = event.link.unwrap();
        assert!(link.prev <= last, "a gap before {link:?}");
        assert!(link.position.offset > last);
        last = link.position.offset;
    }
}

pub(crate) async fn what_came_before_the_subscription_is_not_delivered(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let before = store(&*bus, &room, 3).await;
    let member = Recorder::new(0);
    let head = bus.subscribe(&room, member.clone()).await.unwrap();
    assert_eq!(head, before[2]);
    event(&room, "live").stored(&*bus).await;
    assert_eq!(texts(&member.wait_for(1).await), ["live"]);
}

pub(crate) async fn ephemeral_events_keep_their_publishers_order(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let member = Recorder::new(0);
    bus.subscribe(&room, member.clone()).await.unwrap();
    for number in 0..50 {
        let published = event(&room, &number.to_string())
            .retention(Retention::Ephemeral)
            .send(&*bus)
            .await;
        assert!(!published.unwrap().duplicate);
    }
    let seen = member.wait_for(50).await;
    assert_eq!(texts(&seen), numbers(0..50));
    assert!(seen.iter().all(|event| event.link.is_none()));
}

pub(crate) async fn two_subscriptions_of_one_id_are_one(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let member = Recorder::new(3);
    bus.subscribe(&room, member.clone()).await.unwrap();
    bus.subscribe(&room, member.clone()).await.unwrap();
    store(&*bus, &room, 5).await;
    assert_eq!(texts(&member.wait_for(5).await), numbers(0..5));
    bus.unsubscribe(&room, 3);
    let other = Recorder::new(4);
    bus.subscribe(&room, other.clone()).await.unwrap();
    event(&room, "end").stored(&*bus).await;
    other.wait_for(1).await;
    assert_eq!(member.seen().len(), 5);
}

pub(crate) async fn after_unsubscribing_others_still_receive(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let (gone, staying) = (Recorder::new(1), Recorder::new(2));
    bus.subscribe(&room, gone.clone()).await.unwrap();
    bus.subscribe(&room, staying.clone()).await.unwrap();
    bus.unsubscribe(&room, 1);
    bus.unsubscribe(&room, 9);
    store(&*bus, &room, 3).await;
    assert_eq!(texts(&staying.wait_for(3).await), numbers(0..3));
    assert!(gone.seen().is_empty());
}

pub(crate) async fn concurrent_publishers_make_one_order_for_all_subscribers(start: impl Start) {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 200;
    let bus = start(HistoryLimits {
        events_max: PUBLISHERS * EACH,
        ..HistoryLimits::default()
    })
    .await;
    let room = room("r");
    let members = [Recorder::new(0), Recorder::new(1)];
    for member in &members {
        bus.subscribe(&room, member.clone()).await.unwrap();
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (bus, room) = (bus.clone(), room.clone());
        let publishing = async move {
            for number in 0..EACH {
                event(&room, &format!("{publisher} {number}")).stored(&*bus).await;
            }
        };
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        tokio::spawn(publishing)
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.unwrap();
    }
    let [one, other] = [
        members[0].wait_for(PUBLISHERS * EACH).await,
        members[1].wait_for(PUBLISHERS * EACH).await,
    ];
    assert_eq!(texts(&one), texts(&other));
    let history = bus
        .history(&room, super::super::Page::Newest, ALL)
        .await
        .unwrap()
        .events;
    assert_eq!(offsets(&history), offsets(&one));
    let chained = one
        .windows(2)
        .all(|pair| pair[1].link.unwrap().prev == pair[0].offset().unwrap());
    assert!(chained, "an event does not follow the one it names");
    for publisher in 0..PUBLISHERS {
        let prefix = format!("{publisher} ");
        let own: Vec<String> = texts(&one)
            .into_iter()
            .filter_map(|text| text.strip_prefix(&prefix).map(Into::into))
            .collect();
        assert_eq!(own, numbers(0..EACH));
    }
}

pub(crate) async fn members_of_other_rooms_are_left_alone(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let member = Recorder::new(0);
    for name in ["a", "b"] {
        bus.subscribe(&room(name), member.clone()).await.unwrap();
    }
    event(&room("c"), "not ours").stored(&*bus).await;
    bus.unsubscribe(&room("a"), 0);
    event(&room("a"), "not any more").stored(&*bus).await;
    event(&room("b"), "ours").stored(&*bus).await;
    assert_eq!(texts(&member.wait_for(1).await), ["ours"]);
}
