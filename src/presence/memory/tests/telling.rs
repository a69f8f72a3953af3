//! What observers and watchers are told, and when.

use super::*;

use crate::sync::lock;

#[tokio::test(start_paused = true)]
async fn a_large_room_is_told_in_counts_at_most_once_a_second_until_it_is_small_again() {
    let (presence, observer) = (
        MemoryPresence::new(Config {
            listed_max: 10,
            ..Config::default()
        }),
        Recorder::new(0),
    );
    let room = room("r");
    let tabs: Vec<Member> = (0..12).map(|number| tab(&format!("u{number:02}"))).collect();
    for member in &tabs[..10] {
        presence.enter(&room, member, None).unwrap();
    }
    assert_eq!(
        presence
            .observe(&room, observer.clone(), Detail::Members)
            .members
            .unwrap()
            .len(),
        10
    );
    presence.enter(&room, &tabs[10], None).unwrap();
    presence.flush().await;
    let change = observer.take().remove(0);
    assert_eq!(
        (change.counts_only, change.counts.users, change.joined.len()),
        (true, 11, 0)
    );
    assert_eq!(presence.observe(&room, Recorder::new(1), Detail::Members).members, None);
    presence.unobserve(&room, 1);

    presence.enter(&room, &tabs[11], None).unwrap();
    assert_eq!((presence.flush().await, observer.take().len()), (true, 0));
    advance(Duration::from_secs(1)).await;
    assert!(!presence.flush().await);
    assert_eq!(observer.take()[0].counts.users, 12);

    // One tenth below the bound it is told by name again, and everybody is.
    for member in &tabs[..2] {
        presence.leave(&room, member, Departure::Left);
    }
    advance(Duration::from_secs(1)).await;
    presence.flush().await;
    assert!(observer.take()[0].counts_only);
    presence.leave(&room, &tabs[2], Departure::Left);
    advance(Duration::from_secs(1)).await;
    presence.flush().await;
    let change = observer.take().remove(0);
    assert_eq!(
        (
            change.counts_only,
            change.present.len(),
            change.joined.len(),
            change.left.len()
        ),
        (false, 9, 0, 0)
    );
    presence.leave(&room, &tabs[3], Departure::Left);
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[] -[\"u03\"]");
}

#[tokio::test(start_paused = true)]
async fn counts_are_told_at_a_bounded_rate_and_the_last_one_always() {
    let (presence, counting, listing) = (
        MemoryPresence::new(Config::default()),
        Recorder::new(0),
        Recorder::new(1),
    );
    let room = room("r");
    let roster = presence.observe(&room, counting.clone(), Detail::Counts);
    assert_eq!((roster.counts, roster.members), (Counts::default(), None));
    presence.observe(&room, listing.clone(), Detail::Members);
    let counts = |observer: &Recorder| {
        let counts = observer.take().into_iter().map(|change| {
            assert_eq!(change.counts_only, change.detail == Detail::Counts);
            assert_eq!(change.counts_only, !change.lists_users());
            change.counts.users
        });
        counts.collect::<Vec<_>>()
    };
    let mut told = Vec::new();
    for number in 0..10 {
        presence.enter(&room, &tab(&format!("u{number}")), None).unwrap();
        presence.flush().await;
        assert_eq!(counts(&listing), [number + 1]);
        told.extend(counts(&counting));
        advance(Duration::from_millis(50)).await;
    }
    // One in 200 ms, from the first on.
    assert_eq!(told, [1, 5, 9]);
    assert!(presence.flush().await, "the last one is still to be told");
    advance(Duration::from_millis(150)).await;
    assert!(!presence.flush().await);
    assert_eq!(counts(&counting), [10]);
    // What cancels out is not told, and who comes in between makes no difference.
    let eve = tab("eve");
    presence.enter(&room, &eve, None).unwrap();
    let roster = presence.observe(&room, counting.clone(), Detail::Counts);
    assert_eq!(roster.counts.users, 11);
    presence.leave(&room, &eve, Departure::Left);
    advance(Duration::from_millis(200)).await;
    presence.flush().await;
    assert_eq!(counts(&counting), [10], "one roster said 11");
}

#[tokio::test(start_paused = true)]
async fn a_user_that_may_have_been_there_is_told_as_present() {
    let (presence, observer) = (MemoryPresence::new(Config::default()), Recorder::new(0));
    let (room, share) = (
        room("r"),
        Share {
            connections: 1,
            since: Timestamp::now(),
            state: None,
        },
    );
    presence.observe(&room, observer.clone(), Detail::Members);
    for (name, is_news) in [("ada", false), ("bob", true)] {
        presence.set_share(&room, &user(name), Origin { node: 7, is_news }, share.clone());
    }
    presence.flush().await;
    let change = observer.take().remove(0);
    assert_eq!(names(&change.present), [("ada", 1)]);
    assert_eq!(names(&change.joined), [("bob", 1)]);
    // A further connection is no coming, whoever tells it.
    let origin = Origin {
        node: 8,
        is_news: false,
    };
    presence.set_share(&room, &user("bob"), origin, share);
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[(\"bob\", 2)] -[]");
}

#[tokio::test(start_paused = true)]
async fn the_runner_tells_what_happens_and_ends_graces_without_being_asked() {
    let presence = Arc::new(MemoryPresence::new(Config::default()));
    let (room, ada, shutdown) = (room("r"), tab("ada"), CancellationToken::new());
    let (changes, mut told) = tokio::sync::mpsc::channel(1);
    presence.observe(&room, Arc::new(Slow(0, changes)), Detail::Members);
    let story = async {
        presence.enter(&room, &ada, None).unwrap();
        assert_eq!(told.recv().await.unwrap().joined.len(), 1);
        let lost = Instant::now();
        presence.leave(&room, &ada, Departure::Lost);
        assert_eq!(told.recv().await.unwrap().left.len(), 1);
        assert!(lost.elapsed() >= GRACE && lost.elapsed() <= GRACE + Duration::from_millis(100));
        shutdown.cancel();
    };
    let both = async { tokio::join!(Arc::clone(&presence).run(shutdown.clone()), story) };
    tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
}

/// An observer whose mailbox can be full.
struct Slow(u16, tokio::sync::mpsc::Sender<Arc<Change>>);

impl Observer for Slow {
    fn id(&self) -> u16 {
        self.0
    }

    fn observe(&self, change: Arc<Change>) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.1.send(change).await.unwrap_or(()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_observer_gets_fewer_changes_and_does_not_hold_up_the_others_of_its_round() {
    let presence = MemoryPresence::new(Config::default());
    let (changes, mut slow) = tokio::sync::mpsc::channel(1);
    let quick = Recorder::new(1);
    let rooms = [room("a"), room("b"), room("c")];
    for room in &rooms {
        presence.observe(room, Arc::new(Slow(0, changes.clone())), Detail::Members);
        presence.observe(room, quick.clone(), Detail::Members);
        presence.enter(room, &tab("ada"), None).unwrap();
    }
    let mut round = Box::pin(presence.flush());
    assert!(futures_util::poll!(&mut round).is_pending());
    assert_eq!(quick.take().len(), 3);
    for number in 0..10 {
        presence.enter(&rooms[0], &tab(&format!("u{number}")), None).unwrap();
    }
    let reading = async {
        for _ in &rooms {
            slow.recv().await.unwrap();
        }
    };
    tokio::join!(round, reading);
    let ((), change) = tokio::join!(async { assert!(!presence.flush().await) }, slow.recv());
    assert_eq!(change.unwrap().joined.len(), 10);
}

#[tokio::test]
async fn a_watcher_sees_connections_and_a_late_one_is_told_how_much_it_missed() {
    let presence = MemoryPresence::new(Config {
        activity_capacity: 2,
        ..Config::default()
    });
    presence.announce(Activity::Opened(Tenant::default(), tab("nobody watches"), "".into()));
    let (mut watch, ada) = (presence.activity(), tab("ada"));
    presence.announce(Activity::Opened(Tenant::default(), ada.clone(), "spoken".into()));
    presence.announce(Activity::Closed(
        Tenant::default(),
        ada.clone(),
        CloseReason::ClientLeft,
    ));
    assert_eq!(
        watch.try_recv().unwrap(),
        Activity::Opened(Tenant::default(), ada.clone(), "spoken".into())
    );
    assert_eq!(
        watch.try_recv().unwrap(),
        Activity::Closed(Tenant::default(), ada.clone(), CloseReason::ClientLeft)
    );
    for _ in 0..5 {
        presence.enter(&room("r"), &ada, None).unwrap();
        presence.leave(&room("r"), &ada, Departure::Left);
    }
    assert!(matches!(watch.try_recv(), Err(TryRecvError::Lagged(_))));
}

#[tokio::test]
async fn threads_that_enter_and_leave_at_once_lose_nobody_and_leave_nothing() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 400;
    let presence = MemoryPresence::new(Config {
        leave_grace: Duration::ZERO,
        activity_capacity: THREADS * ROUNDS * 8,
        ..Config::default()
    });
    let (observer, rooms) = (Recorder::new(0), [room("a"), room("b")]);
    let mut watch = presence.activity();
    for room in &rooms {
        presence.observe(room, observer.clone(), Detail::Members);
    }
    let live = &|thread: usize| {
        // All threads are tabs of the same two users.
        let tabs = [tab("ada"), tab("bob")];
        for round in 0..ROUNDS {
            let (room, member) = (&rooms[round % 2], &tabs[(round / 2 + thread) % 2]);
            presence.enter(room, member, None).unwrap();
            assert!(presence.reached_now(room, &Except::NOBODY) >= 1);
            presence.leave(room, member, Departure::Lost);
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || live(thread));
        }
        for _ in 0..50 {
            futures_util::FutureExt::now_or_never(presence.flush()).expect("a recorder takes everything at once");
        }
    });
    presence.flush().await;
    let mut shown = std::collections::BTreeSet::new();
    let mut version = 0;
    for change in observer.take() {
        assert!(change.version > std::mem::replace(&mut version, change.version));
        for one in &change.joined {
            assert!(shown.insert((change.room.clone(), one.user.clone())));
        }
        for user in &change.left {
            assert!(shown.remove(&(change.room.clone(), user.clone())));
        }
    }
    assert!(shown.is_empty());
    let told = activities(&mut watch);
    let count = |word: &str| told.iter().filter(|activity| activity.contains(word)).count();
    assert_eq!((count("joined"), count("occupied")), (count("left"), count("vacated")));
    for room in &rooms {
        presence.unobserve(room, 0);
    }
    assert!(presence.stripes.iter().all(|stripe| lock(stripe).rooms.is_empty()));
    assert!(presence.shared.whereabouts.is_empty());
}
