//! The contract of [`crate::presence`], told as stories; `model` says the same at random.

mod model;

use std::time::Duration;

use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::advance;

use super::*;
use crate::error::CloseReason;
use crate::identity::ConnectionId;

const GRACE: Duration = Duration::from_secs(5);

fn room(name: &str) -> Room {
    Room::parse(&Tenant::default(), name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn tab(name: &str) -> Member {
    Member {
        connection: ConnectionId::random(),
        user: user(name),
    }
}

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).unwrap()
}

/// An observer that keeps what it is told.
struct Recorder {
    id: u16,
    seen: Mutex<Vec<Arc<Change>>>,
}

impl Recorder {
    fn new(id: u16) -> Arc<Self> {
        let seen = Mutex::default();
        Arc::new(Self { id, seen })
    }

    fn take(&self) -> Vec<Arc<Change>> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Observer for Recorder {
    fn id(&self) -> u16 {
        self.id
    }

    fn observe(&self, change: Arc<Change>) -> BoxFuture<'_, ()> {
        self.seen.lock().unwrap().push(change);
        Box::pin(std::future::ready(()))
    }
}

fn names(present: &[Present]) -> Vec<(&str, u32)> {
    present
        .iter()
        .map(|present| (present.user.as_str(), present.connections))
        .collect()
}

/// What one flush told about `joined`, `updated` and `left`.
async fn told(presence: &MemoryPresence, observer: &Recorder) -> Option<String> {
    presence.flush().await;
    let changes = observer.take();
    assert!(changes.len() <= 1, "more than one change in one flush");
    let change = changes.first()?;
    let left: Vec<&str> = change.left.iter().map(UserId::as_str).collect();
    Some(format!(
        "+{:?} ~{:?} -{left:?}",
        names(&change.joined),
        names(&change.updated)
    ))
}

fn activities(watch: &mut broadcast::Receiver<Activity>) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match watch.try_recv() {
            Ok(Activity::Joined(room, user)) => seen.push(format!("{} joined {}", user.as_str(), room.name())),
            Ok(Activity::Left(room, user)) => seen.push(format!("{} left {}", user.as_str(), room.name())),
            Ok(Activity::Occupied(room)) => seen.push(format!("{} occupied", room.name())),
            Ok(Activity::Vacated(room)) => seen.push(format!("{} vacated", room.name())),
            Ok(other) => seen.push(format!("{other:?}")),
            Err(TryRecvError::Empty) => return seen,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_tabs_one_closes_and_nobody_has_left() {
    let (presence, observer) = (MemoryPresence::new(Config::default()), Recorder::new(0));
    let (room, first, second) = (room("r"), tab("ada"), tab("ada"));
    let mut watch = presence.activity();
    presence.observe(&room, observer.clone());
    presence.enter(&room, &first, None).unwrap();
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[(\"ada\", 1)] ~[] -[]");
    presence.enter(&room, &second, None).unwrap();
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[(\"ada\", 2)] -[]");
    presence.leave(&room, &first, Departure::Lost);
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[(\"ada\", 1)] -[]");
    advance(2 * GRACE).await;
    assert_eq!(told(&presence, &observer).await, None);
    presence.leave(&room, &second, Departure::Lost);
    advance(GRACE).await;
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[] -[\"ada\"]");
    assert_eq!(
        activities(&mut watch),
        ["r occupied", "ada joined r", "ada left r", "r vacated"]
    );
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_within_the_grace_period_has_never_left() {
    let (presence, observer) = (MemoryPresence::new(Config::default()), Recorder::new(0));
    let (room, before, after) = (room("r"), tab("ada"), tab("ada"));
    presence.enter(&room, &before, Some(json("1"))).unwrap();
    presence.observe(&room, observer.clone());
    let mut watch = presence.activity();
    presence.leave(&room, &before, Departure::Lost);
    assert_eq!(told(&presence, &observer).await, None);
    advance(Duration::from_millis(4999)).await;
    assert_eq!(told(&presence, &observer).await, None);
    presence.enter(&room, &after, None).unwrap();
    advance(2 * GRACE).await;
    assert_eq!(told(&presence, &observer).await, None);
    let page = presence.page(&room, None, 10).await;
    assert_eq!(
        (names(&page.members), &page.members[0].state),
        (vec![("ada", 1)], &Some(json("1")))
    );
    presence.leave(&room, &after, Departure::Lost);
    presence.enter(&room, &before, Some(json("2"))).unwrap();
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[(\"ada\", 1)] -[]");
    assert!(activities(&mut watch).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_user_is_shown_with_one_connection_and_reached_by_none() {
    let presence = MemoryPresence::new(Config::default());
    let (room, ada, bob) = (room("r"), tab("ada"), tab("bob"));
    for member in [&ada, &bob] {
        presence.enter(&room, member, None).unwrap();
    }
    presence.leave(&room, &ada, Departure::Lost);
    presence.flush().await;
    assert_eq!(
        names(&presence.page(&room, None, 10).await.members),
        [("ada", 1), ("bob", 1)]
    );
    let shown = Counts {
        users: 2,
        connections: 2,
    };
    assert_eq!(presence.occupancy_now(&room).counts, shown);
    assert_eq!(presence.reached(&room, &Except::NOBODY), 1);
    assert_eq!(presence.rooms_of(&Tenant::default(), &user("ada")).await.len(), 1);
    advance(GRACE).await;
    presence.flush().await;
    assert_eq!(presence.occupancy_now(&room).counts.users, 1);
    assert!(presence.rooms_of(&Tenant::default(), &user("ada")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_was_told_to_go_is_gone_at_once() {
    let (presence, observer) = (MemoryPresence::new(Config::default()), Recorder::new(0));
    let (room, ada) = (room("r"), tab("ada"));
    presence.enter(&room, &ada, None).unwrap();
    presence.observe(&room, observer.clone());
    presence.leave(&room, &ada, Departure::Left);
    assert_eq!(presence.occupancy_now(&room).counts, Counts::default());
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[] -[\"ada\"]");
    let (presence, ada) = (
        MemoryPresence::new(Config {
            leave_grace: Duration::ZERO,
            ..Config::default()
        }),
        tab("ada"),
    );
    presence.enter(&room, &ada, None).unwrap();
    presence.leave(&room, &ada, Departure::Lost);
    assert_eq!(presence.occupancy_now(&room).counts, Counts::default());
}

#[tokio::test(start_paused = true)]
async fn what_cancels_out_between_two_flushes_is_not_told() {
    let (presence, observer) = (MemoryPresence::new(Config::default()), Recorder::new(0));
    let (room, ada, bob) = (room("r"), tab("ada"), tab("bob"));
    presence.observe(&room, observer.clone());
    presence.enter(&room, &ada, None).unwrap();
    presence.leave(&room, &ada, Departure::Left);
    assert_eq!(told(&presence, &observer).await, None);
    for state in ["1", "2", "3"] {
        presence.enter(&room, &bob, Some(json(state))).unwrap();
    }
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[(\"bob\", 1)] ~[] -[]");
    presence.enter(&room, &bob, Some(json("4"))).unwrap();
    presence.enter(&room, &bob, Some(json("3"))).unwrap();
    assert_eq!(told(&presence, &observer).await, None);
    presence.enter(&room, &bob, None).unwrap();
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[(\"bob\", 1)] -[]");
}

#[tokio::test(start_paused = true)]
async fn a_roster_shows_what_observers_were_told_and_the_next_change_the_rest() {
    let (presence, early, late) = (
        MemoryPresence::new(Config::default()),
        Recorder::new(0),
        Recorder::new(1),
    );
    let (room, ada, bob, eve) = (room("r"), tab("ada"), tab("bob"), tab("eve"));
    presence.enter(&room, &ada, None).unwrap();
    presence.enter(&room, &eve, None).unwrap();
    let first = presence.observe(&room, early.clone());
    assert_eq!(names(first.members.as_deref().unwrap()), [("ada", 1), ("eve", 1)]);
    presence.enter(&room, &bob, None).unwrap();
    presence.leave(&room, &ada, Departure::Left);
    let second = presence.observe(&room, late.clone());
    assert_eq!(first, second);
    presence.flush().await;
    for observer in [early, late] {
        let changes = observer.take();
        assert_eq!(names(&changes[0].joined), [("bob", 1)]);
        assert_eq!(changes[0].left, [user("ada")]);
        assert!(changes[0].version > first.version);
    }
}

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
    assert_eq!(presence.observe(&room, observer.clone()).members.unwrap().len(), 10);
    presence.enter(&room, &tabs[10], None).unwrap();
    presence.flush().await;
    let change = observer.take().remove(0);
    assert_eq!(
        (change.counts_only, change.counts.users, change.joined.len()),
        (true, 11, 0)
    );
    assert_eq!(presence.observe(&room, Recorder::new(1)).members, None);
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
        (change.counts_only, change.joined.len(), change.left.len()),
        (false, 9, 0)
    );
    presence.leave(&room, &tabs[3], Departure::Left);
    assert_eq!(told(&presence, &observer).await.unwrap(), "+[] ~[] -[\"u03\"]");
}

#[tokio::test]
async fn pages_are_sorted_by_user_and_walk_everybody_once() {
    let presence = MemoryPresence::new(Config::default());
    let room = room("r");
    let mut expected = Vec::new();
    for number in 0..50 {
        let name = format!("u{}", number * 7 % 50);
        presence.enter(&room, &tab(&name), None).unwrap();
        expected.push(user(&name));
    }
    expected.sort();
    let (mut walked, mut after) = (Vec::new(), None);
    loop {
        let page = presence.page(&room, after.as_ref(), 7).await;
        assert_eq!(page.counts.users, 50);
        walked.extend(page.members.into_iter().map(|present| present.user));
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(walked, expected);
    let exact = presence.page(&room, None, 50).await;
    assert_eq!((exact.members.len(), exact.next_after), (50, None));
}

#[tokio::test]
async fn each_connection_left_out_is_left_out_once() {
    let presence = MemoryPresence::new(Config::default());
    let (room, elsewhere) = (
        room("r"),
        super::super::Room::parse(&Tenant::parse("other").unwrap(), "r").unwrap(),
    );
    let (ada, ada2, bob, eve) = (tab("ada"), tab("ada"), tab("bob"), tab("eve"));
    for member in [&ada, &ada2, &bob] {
        presence.enter(&room, member, None).unwrap();
    }
    presence.enter(&elsewhere, &eve, None).unwrap();
    let reached = |connections: &[&Member], users: &[&str]| {
        let connections = connections.iter().map(|member| member.connection).collect();
        let users = users.iter().map(|name| user(name)).collect();
        presence.reached(&room, &Except::new(connections, users))
    };
    assert_eq!(reached(&[], &[]), 3);
    assert_eq!(reached(&[&ada], &[]), 2);
    assert_eq!(reached(&[&ada, &ada], &["bob", "bob"]), 1);
    assert_eq!(reached(&[&ada], &["ada"]), 1);
    assert_eq!(reached(&[&eve], &["eve", "nobody"]), 3);
    assert_eq!(reached(&[&ada, &ada2, &bob], &["ada", "bob"]), 0);
    assert_eq!(presence.reached(&super::tests::room("unknown"), &Except::NOBODY), 0);
}

#[tokio::test]
async fn a_user_is_found_in_its_rooms_by_name_and_only_in_its_tenant() {
    let presence = MemoryPresence::new(Config::default());
    let (ada, again) = (tab("ada"), tab("ada"));
    for name in ["b", "a"] {
        presence.enter(&room(name), &ada, None).unwrap();
    }
    presence.enter(&room("b"), &again, None).unwrap();
    let other = Tenant::parse("other").unwrap();
    presence
        .enter(&Room::parse(&other, "c").unwrap(), &tab("ada"), None)
        .unwrap();
    let found = presence.rooms_of(&Tenant::default(), &user("ada")).await;
    let found: Vec<(&str, u32)> = found
        .iter()
        .map(|(room, present)| (room.name(), present.connections))
        .collect();
    assert_eq!(found, [("a", 1), ("b", 2)]);
    assert!(presence.rooms_of(&other, &user("bob")).await.is_empty());
}

#[tokio::test]
async fn a_state_that_is_too_large_changes_nothing() {
    let presence = MemoryPresence::new(Config::default());
    let (room, ada) = (room("r"), tab("ada"));
    let of_size = |bytes: usize| Some(json(&format!("\"{}\"", "x".repeat(bytes - 2))));
    let refused = presence.enter(&room, &ada, of_size(1025));
    assert_eq!(refused, Err(StateTooLarge { max: 1024 }));
    assert_eq!(presence.occupancy_now(&room).counts, Counts::default());
    assert_eq!(presence.enter(&room, &ada, of_size(1024)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn whatever_has_left_leaves_nothing_behind() {
    let (presence, observer) = (MemoryPresence::new(Config::default()), Recorder::new(0));
    let (room, ada, stranger) = (room("r"), tab("ada"), tab("eve"));
    presence.leave(&room, &stranger, Departure::Lost);
    presence.observe(&room, observer.clone());
    presence.enter(&room, &ada, None).unwrap();
    presence.leave(&room, &stranger, Departure::Lost);
    presence.leave(&room, &ada, Departure::Lost);
    presence.leave(&room, &ada, Departure::Lost);
    presence.unobserve(&room, 7);
    advance(GRACE).await;
    assert!(!presence.flush().await);
    presence.unobserve(&room, 0);
    assert!(presence.stripes.iter().all(|stripe| lock(stripe).rooms.is_empty()));
    assert!(presence.shared.whereabouts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_runner_tells_what_happens_and_ends_graces_without_being_asked() {
    let presence = Arc::new(MemoryPresence::new(Config::default()));
    let (room, ada, shutdown) = (room("r"), tab("ada"), CancellationToken::new());
    let (changes, mut told) = tokio::sync::mpsc::channel(1);
    presence.observe(&room, Arc::new(Slow(0, changes)));
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
        presence.observe(room, Arc::new(Slow(0, changes.clone())));
        presence.observe(room, quick.clone());
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
    presence.announce(Activity::Opened(Tenant::default(), tab("nobody watches")));
    let (mut watch, ada) = (presence.activity(), tab("ada"));
    presence.announce(Activity::Opened(Tenant::default(), ada.clone()));
    presence.announce(Activity::Closed(
        Tenant::default(),
        ada.clone(),
        CloseReason::ClientLeft,
    ));
    assert_eq!(
        watch.try_recv().unwrap(),
        Activity::Opened(Tenant::default(), ada.clone())
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
        presence.observe(room, observer.clone());
    }
    let live = &|thread: usize| {
        // All threads are tabs of the same two users.
        let tabs = [tab("ada"), tab("bob")];
        for round in 0..ROUNDS {
            let (room, member) = (&rooms[round % 2], &tabs[(round / 2 + thread) % 2]);
            presence.enter(room, member, None).unwrap();
            assert!(presence.reached(room, &Except::NOBODY) >= 1);
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
