//! Guarantees to a reader of the history.

use super::super::Page;
use super::*;

const fn bounds(events_max: usize, bytes_max: usize) -> ReadBounds {
    ReadBounds { events_max, bytes_max }
}

pub(crate) async fn pages_are_oldest_first_and_bounded(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let at: Vec<Offset> = store(&*bus, &room, 10).await.iter().map(|at| at.offset).collect();
    let cases: [(Page, ReadBounds, &[&str]); 9] = [
        (Page::Newest, bounds(3, 100), &["7", "8", "9"]),
        (Page::Newest, bounds(100, 2), &["8", "9"]),
        (Page::Newest, bounds(0, 100), &[]),
        (Page::After(at[4]), bounds(3, 100), &["5", "6", "7"]),
        (Page::After(at[4]), bounds(100, 2), &["5", "6"]),
        (Page::After(at[9]), ALL, &[]),
        (Page::Before(at[4]), bounds(3, 100), &["1", "2", "3"]),
        (Page::Before(at[4]), bounds(100, 2), &["2", "3"]),
        (Page::Before(at[0]), ALL, &[]),
    ];
    for (page, bounds, expected) in cases {
        let events = bus.history(&room, page, bounds).await.unwrap().events;
        assert_eq!(texts(&events), expected, "{page:?} {bounds:?}");
    }
}

pub(crate) async fn a_page_has_at_least_one_event(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    for payload in ["long one", "long two"] {
        event(&room, payload).stored(&*bus).await;
    }
    let newest = bus.history(&room, Page::Newest, bounds(10, 1)).await.unwrap().events;
    assert_eq!(texts(&newest), ["long two"]);
    let oldest = bus
        .history(&room, Page::After(Offset::ZERO), bounds(10, 1))
        .await
        .unwrap()
        .events;
    assert_eq!(texts(&oldest), ["long one"]);
}

pub(crate) async fn a_page_says_whether_a_bound_has_cut_it(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let at: Vec<Offset> = store(&*bus, &room, 5).await.iter().map(|at| at.offset).collect();
    for (page, bounds, more) in [
        // The bound equals the number of events.
        (Page::Newest, bounds(5, 100), false),
        (Page::Newest, bounds(4, 100), true),
        (Page::Newest, bounds(100, 5), false),
        (Page::Newest, bounds(100, 4), true),
        (Page::Newest, bounds(0, 100), true),
        (Page::Before(at[3]), bounds(3, 100), false),
        (Page::Before(at[3]), bounds(2, 100), true),
        (Page::Before(at[3]), bounds(100, 2), true),
        (Page::Before(at[0]), bounds(1, 100), false),
        (Page::After(at[1]), bounds(3, 100), false),
        (Page::After(at[1]), bounds(2, 100), true),
        (Page::After(at[1]), bounds(100, 2), true),
        (Page::After(at[4]), bounds(1, 100), false),
    ] {
        let cut = bus.history(&room, page, bounds).await.unwrap();
        assert_eq!(cut.more, more, "{page:?} {bounds:?}");
    }
}

pub(crate) async fn a_page_says_whether_everything_after_its_beginning_is_kept(start: impl Start) {
    let limits = HistoryLimits {
        events_max: 5,
        ..HistoryLimits::default()
    };
    let bus = start(limits).await;
    let (room, quiet) = (room("r"), super::room("quiet"));
    let told = bus.head(&quiet).await.unwrap();
    let at = store(&*bus, &room, 12).await;
    let complete = async |room: &Room, offset| {
        let one = bounds(1, 100);
        bus.history(room, Page::After(offset), one).await.unwrap().complete
    };
    for (index, at) in at.iter().enumerate() {
        assert_eq!(complete(&room, at.offset).await, index >= 6, "after {index}");
    }
    assert!(!complete(&room, Offset::ZERO).await);
    assert!(!complete(&room, Offset(u64::MAX)).await);
    assert!(complete(&quiet, told.offset).await);
    let last = *at.last().unwrap();
    bus.subscribe(&room, Recorder::new(0)).await.unwrap();
    store(&*bus, &room, 1).await;
    assert!(complete(&room, last.offset).await && !complete(&room, at[6].offset).await);
}

/// A first event whose predecessor is not kept must not look as if it followed on a position before that.
pub(crate) async fn the_oldest_event_does_not_claim_to_follow_on_an_older_position(start: impl Start) {
    let limits = HistoryLimits {
        events_max: 5,
        ..HistoryLimits::default()
    };
    let bus = start(limits).await;
    let room = room("r");
    let at = store(&*bus, &room, 12).await;
    let dropped = at[6].offset;
    for page in [Page::Newest, Page::After(Offset::ZERO), Page::Before(Offset(u64::MAX))] {
        let events = bus.history(&room, page, ALL).await.unwrap().events;
        let prev = events[0].link.unwrap().prev;
        assert!(prev >= dropped, "{page:?}: {prev} is before {dropped}");
    }
}

pub(crate) async fn walking_the_pages_reads_everything_once(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let stored: Vec<Offset> = store(&*bus, &room, 25).await.iter().map(|at| at.offset).collect();
    let (mut forwards, mut after) = (Vec::new(), Offset::ZERO);
    loop {
        let page = bus
            .history(&room, Page::After(after), bounds(4, 1000))
            .await
            .unwrap()
            .events;
        let Some(last) = page.last() else { break };
        after = last.offset().unwrap();
        forwards.extend(offsets(&page));
    }
    assert_eq!(forwards, stored);
    let (mut backwards, mut before) = (Vec::new(), Offset(u64::MAX));
    loop {
        let page = bus
            .history(&room, Page::Before(before), bounds(4, 1000))
            .await
            .unwrap()
            .events;
        let Some(first) = page.first() else { break };
        before = first.offset().unwrap();
        backwards.splice(0..0, offsets(&page));
    }
    assert_eq!(backwards, stored);
}

pub(crate) async fn the_newest_value_of_each_name_is_kept(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("r");
    let value = |name, payload| event(&room, payload).name(name).retention(Retention::LastValue);
    for (name, payload) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1"), ("b", "b2")] {
        value(name, payload).stored(&*bus).await;
    }
    event(&room, "reliable").name("a").stored(&*bus).await;
    let values = bus.last_values(&room).await.unwrap();
    assert_eq!(texts(&values), ["a2", "c1", "b2"]);
    let history = bus.history(&room, Page::Newest, ALL).await.unwrap().events;
    assert_eq!(texts(&history), ["a1", "b1", "a2", "c1", "b2", "reliable"]);
}

pub(crate) async fn stats_tell_head_events_and_bytes(start: impl Start) {
    let bus = start(HistoryLimits {
        events_max: 3,
        ..HistoryLimits::default()
    })
    .await;
    let room = room("r");
    let mut head = None;
    for payload in ["1", "22", "333", "4444"] {
        head = Some(event(&room, payload).stored(&*bus).await);
    }
    let stats = bus.stats(&room).await.unwrap();
    assert_eq!((Some(stats.head), stats.events, stats.bytes), (head, 3, 9));
}

pub(crate) async fn an_unknown_room_is_empty(start: impl Start) {
    let bus = start(HistoryLimits::default()).await;
    let room = room("nobody was ever here");
    let stats = bus.stats(&room).await.unwrap();
    assert_eq!((stats.events, stats.bytes), (0, 0));
    assert_eq!(stats.head.epoch, bus.head(&room).await.unwrap().epoch);
    assert!(bus.history(&room, Page::Newest, ALL).await.unwrap().events.is_empty());
    assert!(bus.last_values(&room).await.unwrap().is_empty());
    bus.unsubscribe(&room, 0);
}
