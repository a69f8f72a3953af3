//! Several nodes and a real `nats-server`, told as stories. What a network can do to them is in `sim`.

mod rosters;
mod support;

use std::time::{Duration, Instant};

use self::support::{Counter, PATIENCE, TestNode, room};
use super::*;
use crate::testing::nats::NatsServer;
use crate::testing::proxy::Proxy;

const NO_GRACE: Duration = Duration::ZERO;

#[tokio::test]
async fn who_comes_late_sees_everybody() {
    let server = NatsServer::start().await;
    let one = TestNode::start(&server.url(), "one", NO_GRACE).await;
    let room = room("r");
    let members: Vec<Member> = (0..300)
        .map(|number| one.enter(&room, &format!("u{number:03}")))
        .collect();
    let two = TestNode::start(&server.url(), "two", NO_GRACE).await;
    two.enter(&room, "z");
    let all = || members.iter().map(|member| (member.user.as_str(), 1)).chain([("z", 1)]);
    let all: Vec<(&str, u32)> = all().collect();
    two.shows(&room, &all).await;
    one.shows(&room, &all).await;
    for member in &members {
        one.presence.leave(&room, member, Departure::Left);
    }
    two.shows(&room, &[("z", 1)]).await;
}

#[tokio::test]
async fn a_user_with_tabs_on_two_nodes_is_one_user_and_leaves_with_the_last() {
    let server = NatsServer::start().await;
    let one = TestNode::start(&server.url(), "one", NO_GRACE).await;
    let two = TestNode::start(&server.url(), "two", NO_GRACE).await;
    let (room, counter) = (room("r"), Counter::new(0));
    one.presence.observe(&room, counter.clone(), Detail::Members);
    let first = one.enter(&room, "ada");
    let second = two.enter(&room, "ada");
    one.shows(&room, &[("ada", 2)]).await;
    two.shows(&room, &[("ada", 2)]).await;
    one.presence.leave(&room, &first, Departure::Left);
    two.shows(&room, &[("ada", 1)]).await;
    one.shows(&room, &[("ada", 1)]).await;
    two.presence.leave(&room, &second, Departure::Left);
    one.shows(&room, &[]).await;
    let began = Instant::now();
    while counter.seen() != ["+ada", "-ada"] {
        assert!(began.elapsed() < PATIENCE, "{:?}", counter.seen());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn members_of_a_killed_node_are_gone_everywhere_within_five_seconds() {
    for grace in [NO_GRACE, Duration::from_secs(5)] {
        // A machine with other worries may need a second try.
        let mut tries = Vec::new();
        while tries.iter().all(|took| *took > Duration::from_millis(5200)) {
            assert!(tries.len() < 3, "grace {grace:?}: {tries:?}");
            tries.push(killed_node_is_gone_after(grace).await);
        }
    }
}

async fn killed_node_is_gone_after(grace: Duration) -> Duration {
    let server = NatsServer::start().await;
    let url = server.url();
    let [one, two, three] = ["one", "two", "three"].map(|name| TestNode::start(&url, name, grace));
    let (one, two, three) = (one.await, two.await, three.await);
    let room = room("r");
    for number in 0..500 {
        one.enter(&room, &format!("u{number:03}"));
    }
    two.enter(&room, "x");
    three.enter(&room, "y");
    for node in [&two, &three] {
        node.knows_nodes(2).await;
        while node.shown(&room).len() != 502 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    one.kill();
    let took = two.shows(&room, &[("x", 1), ("y", 1)]).await;
    three.shows(&room, &[("x", 1), ("y", 1)]).await;
    println!("grace {grace:?}: gone after {took:?}");
    took
}

#[tokio::test]
async fn a_node_that_is_cut_off_and_comes_back_agrees_with_the_others() {
    let server = NatsServer::start().await;
    let proxy = Proxy::before(server.address()).await;
    let one = TestNode::start(&proxy.url(), "one", NO_GRACE).await;
    let two = TestNode::start(&server.url(), "two", NO_GRACE).await;
    let room = room("r");
    let (ada, _bob) = (one.enter(&room, "ada"), one.enter(&room, "bob"));
    let eve = two.enter(&room, "eve");
    let all = [("ada", 1), ("bob", 1), ("eve", 1)];
    one.shows(&room, &all).await;
    two.shows(&room, &all).await;
    proxy.cut();
    two.shows(&room, &[("eve", 1)]).await;
    one.presence.leave(&room, &ada, Departure::Left);
    one.enter(&room, "cid");
    two.presence.leave(&room, &eve, Departure::Left);
    two.enter(&room, "fay");
    proxy.mend();
    let all = [("bob", 1), ("cid", 1), ("fay", 1)];
    println!("agreed after {:?}", one.shows(&room, &all).await);
    two.shows(&room, &all).await;
}

#[tokio::test]
async fn a_node_that_was_stopped_comes_back_without_ghosts() {
    let server = NatsServer::start().await;
    let one = TestNode::start(&server.url(), "one", NO_GRACE).await;
    let two = TestNode::start(&server.url(), "two", NO_GRACE).await;
    let room = room("r");
    let ada = one.enter(&room, "ada");
    let eve = two.enter(&room, "eve");
    one.shows(&room, &[("ada", 1), ("eve", 1)]).await;
    two.shows(&room, &[("ada", 1), ("eve", 1)]).await;
    let frozen = one.freeze().await;
    two.shows(&room, &[("eve", 1)]).await;
    two.presence.leave(&room, &eve, Departure::Left);
    two.enter(&room, "fay");
    // What a stopped process' clients do is found when it goes on.
    one.presence.leave(&room, &ada, Departure::Left);
    one.enter(&room, "bob");
    drop(frozen);
    for node in [&one, &two] {
        node.shows(&room, &[("bob", 1), ("fay", 1)]).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_when_nats_is_restarted() {
    let server = NatsServer::start().await;
    let one = TestNode::start(&server.url(), "one", NO_GRACE).await;
    let two = TestNode::start(&server.url(), "two", NO_GRACE).await;
    let room = room("r");
    let ada = one.enter(&room, "ada");
    two.enter(&room, "eve");
    two.shows(&room, &[("ada", 1), ("eve", 1)]).await;
    server.kill();
    one.presence.leave(&room, &ada, Departure::Left);
    one.enter(&room, "bob");
    two.enter(&room, "fay");
    let late = super::tests::room("late");
    two.enter(&late, "eve");
    server.restart().await;
    one.enter(&late, "bob");
    for node in [&one, &two] {
        node.shows(&room, &[("bob", 1), ("eve", 1), ("fay", 1)]).await;
        node.shows(&late, &[("bob", 1), ("eve", 1)]).await;
    }
}

#[tokio::test]
async fn a_node_answers_for_rooms_it_does_not_serve() {
    let server = NatsServer::start().await;
    let url = server.url();
    let [one, two, three] = ["one", "two", "three"].map(|name| TestNode::start(&url, name, NO_GRACE));
    let (one, two, three) = (one.await, two.await, three.await);
    three.knows_nodes(2).await;
    let room = room("r");
    for user in ["ada", "bob", "cid"] {
        one.enter(&room, user);
    }
    two.enter(&room, "ada");
    two.enter(&super::tests::room("s"), "ada");
    two.shows(&room, &[("ada", 2), ("bob", 1), ("cid", 1)]).await;
    let occupancy = three.presence.occupancy(&room).await;
    assert_eq!((occupancy.counts.users, occupancy.counts.connections), (3, 4));
    assert!(occupancy.since.is_some());
    let first = three.presence.page(&room, None, 2).await;
    assert_eq!((first.members[0].connections, first.members.len()), (2, 2));
    let second = three.presence.page(&room, first.next_after.as_ref(), 2).await;
    assert_eq!((second.members[0].user.as_str(), second.next_after), ("cid", None));
    let ada = UserId::parse("ada").unwrap();
    let rooms = three.presence.rooms_of(&Tenant::default(), &ada).await.rooms;
    let rooms: Vec<_> = rooms
        .iter()
        .map(|(room, shown)| (room.name(), shown.connections))
        .collect();
    assert_eq!(rooms, [("r", 2), ("s", 1)]);
    let empty = super::tests::room("empty");
    assert_eq!(three.presence.occupancy(&empty).await, Occupancy::default());
    assert!(three.presence.page(&empty, None, 10).await.members.is_empty());
    assert!(
        three.presence.memory.find(&Tenant::default(), &ada).is_empty(),
        "it keeps nothing of it"
    );
}

#[tokio::test]
async fn a_watcher_is_told_once_of_what_happens_on_any_node() {
    let server = NatsServer::start().await;
    let one = TestNode::start(&server.url(), "one", NO_GRACE).await;
    let two = TestNode::start(&server.url(), "two", NO_GRACE).await;
    let mut watch = two.presence.activity();
    let probe = Tenant::parse("probe").unwrap();
    let member = one.enter(&room("other"), "eve");
    // The subscription comes into effect a moment after the call.
    let began = Instant::now();
    while !matches!(watch.try_recv(), Ok(Activity::Opened(tenant, ..)) if tenant == probe) {
        assert!(began.elapsed() < PATIENCE);
        one.presence
            .announce(Activity::Opened(probe.clone(), member.clone(), "".into()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let room = room("r");
    let here = two.enter(&room, "ada");
    two.shows(&room, &[("ada", 1)]).await;
    let there = one.enter(&room, "bob");
    two.shows(&room, &[("ada", 1), ("bob", 1)]).await;
    one.presence.leave(&room, &there, Departure::Left);
    two.shows(&room, &[("ada", 1)]).await;
    two.presence.leave(&room, &here, Departure::Left);
    let (ada, bob) = (here.user, there.user);
    let joined = |user: &UserId| Activity::Joined(room.clone(), user.clone());
    let left = |user: &UserId| Activity::Left(room.clone(), user.clone());
    let mut told = Vec::new();
    while ![left(&ada), left(&bob)].iter().all(|last| told.contains(last)) {
        let activity = tokio::time::timeout(PATIENCE, watch.recv()).await;
        told.push(activity.unwrap().unwrap());
    }
    for expected in [joined(&ada), joined(&bob), left(&bob), left(&ada)] {
        assert_eq!(
            told.iter().filter(|one| **one == expected).count(),
            1,
            "{expected:?} in {told:?}"
        );
    }
}

#[tokio::test]
async fn a_node_that_ends_in_order_has_told_who_left() {
    let server = NatsServer::start().await;
    let one = TestNode::start(&server.url(), "one", NO_GRACE).await;
    let two = TestNode::start(&server.url(), "two", NO_GRACE).await;
    let room = room("r");
    let ada = one.enter(&room, "ada");
    one.enter(&room, "bob");
    two.enter(&room, "eve");
    two.knows_nodes(1).await;
    two.shows(&room, &[("ada", 1), ("bob", 1), ("eve", 1)]).await;
    one.presence.leave(&room, &ada, Departure::Left);
    one.presence.leave_all().await;
    // The node goes on: nothing but what it told can have shown it.
    two.shows(&room, &[("bob", 1), ("eve", 1)]).await;
    one.stop.cancel();
    one.tasks.close();
    one.tasks.wait().await;
    let took = two.shows(&room, &[("eve", 1)]).await;
    assert!(
        took < Duration::from_millis(2500),
        "it was given up for its silence instead: {took:?}"
    );
}
