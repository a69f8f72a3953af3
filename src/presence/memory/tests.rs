//! The contract of [`crate::presence`], told as stories; `model` says the same at random.

mod model;
mod queries;
mod telling;

use std::time::Duration;

use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::advance;

use super::*;
use crate::error::CloseReason;
use crate::event::Timestamp;
use crate::identity::ConnectionId;
use crate::presence::Present;
use crate::sync::lock;

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
    presence.observe(&room, observer.clone(), Detail::Members);
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
    presence.observe(&room, observer.clone(), Detail::Members);
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
    assert_eq!(presence.reached_now(&room, &Except::NOBODY), 1);
    assert_eq!(presence.rooms_of(&Tenant::default(), &user("ada")).await.rooms.len(), 1);
    advance(GRACE).await;
    presence.flush().await;
    assert_eq!(presence.occupancy_now(&room).counts.users, 1);
    assert!(
        presence
            .rooms_of(&Tenant::default(), &user("ada"))
            .await
            .rooms
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn who_was_told_to_go_is_gone_at_once() {
    let (presence, observer) = (MemoryPresence::new(Config::default()), Recorder::new(0));
    let (room, ada) = (room("r"), tab("ada"));
    presence.enter(&room, &ada, None).unwrap();
    presence.observe(&room, observer.clone(), Detail::Members);
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
    presence.observe(&room, observer.clone(), Detail::Members);
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
async fn a_roster_shows_who_is_there_and_changes_what_came_after_it() {
    let (presence, early, late) = (
        MemoryPresence::new(Config::default()),
        Recorder::new(0),
        Recorder::new(1),
    );
    let (room, ada, bob, eve) = (room("r"), tab("ada"), tab("bob"), tab("eve"));
    presence.enter(&room, &ada, None).unwrap();
    presence.enter(&room, &eve, None).unwrap();
    let first = presence.observe(&room, early.clone(), Detail::Members);
    assert_eq!(names(first.members.as_deref().unwrap()), [("ada", 1), ("eve", 1)]);
    presence.enter(&room, &bob, None).unwrap();
    presence.leave(&room, &ada, Departure::Left);
    let second = presence.observe(&room, late.clone(), Detail::Members);
    assert_eq!(names(second.members.as_deref().unwrap()), [("bob", 1), ("eve", 1)]);
    assert!(second.version > first.version);
    let fay = tab("fay");
    presence.enter(&room, &fay, None).unwrap();
    presence.leave(&room, &bob, Departure::Left);
    presence.flush().await;
    for observer in [early, late] {
        let changes = observer.take();
        let of = |roster: &Roster| {
            let known = |change: &&Arc<Change>| change.known.contains(&roster.version);
            let [change] = changes.iter().filter(known).collect::<Vec<_>>()[..] else {
                panic!("one change for each roster: {changes:?}")
            };
            (names(&change.joined), change.left.clone())
        };
        assert_eq!(
            of(&first),
            (vec![("fay", 1)], vec![user("ada")]),
            "bob came and went in between"
        );
        assert_eq!(of(&second), (vec![("fay", 1)], vec![user("bob")]));
    }
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
    presence.observe(&room, observer.clone(), Detail::Members);
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
