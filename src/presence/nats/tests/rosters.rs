//! Rosters, pages and counts over nodes: complete, or said to be partial.

use super::support::{Counter, TestNode, eventually, room};
use super::*;

/// A lease longer than any test.
const ENDLESS: Duration = Duration::from_secs(3600);

/// A roster for an observer of a node, as a session asks for it.
async fn observe(node: &TestNode, room: &Room, counter: &Arc<Counter>) -> (bool, Vec<String>) {
    let is_complete = node.presence.confirm(room).await;
    let observer = Arc::clone(counter) as Arc<dyn Observer>;
    let roster = node.presence.observe(room, observer, Detail::Members);
    counter.begins_at(roster.version);
    let users = roster.members.unwrap().into_iter();
    (is_complete, users.map(|one| one.user.as_str().to_owned()).collect())
}

/// Waits until a node knows a room completely.
async fn confirmed(node: &TestNode, room: &Room) {
    eventually("a complete roster", async || {
        node.presence.confirm(room).await.then_some(())
    })
    .await;
}

async fn three(server: &NatsServer) -> [TestNode; 3] {
    let url = server.url();
    let [one, two, three] = ["one", "two", "three"].map(|name| TestNode::start(&url, name, NO_GRACE));
    let nodes = [one.await, two.await, three.await];
    for node in &nodes {
        node.knows_nodes(2).await;
    }
    nodes
}

#[tokio::test]
async fn a_complete_roster_has_everyone_who_was_there_before() {
    let server = NatsServer::start().await;
    let nodes = three(&server).await;
    let (mut counters, mut complete) = (Vec::new(), 0);
    let room = room("r");
    // Each comes right after the one before, on another node.
    for number in 0u16..12 {
        let node = &nodes[usize::from(number) % 3];
        // Nodes that know each other answer; a busy machine may delay a reply, not every one.
        confirmed(node, &room).await;
        let counter = Counter::new(number);
        let (is_complete, users) = observe(node, &room, &counter).await;
        let before: Vec<String> = (0..number).map(|number| format!("u{number:02}")).collect();
        if is_complete {
            assert_eq!(users, before);
            complete += 1;
        }
        node.enter(&room, &format!("u{number:02}"));
        counters.push((number, counter));
    }
    assert!(complete > 0, "every roster is partial");
    for node in &nodes {
        let all: Vec<String> = (0..12).map(|number| format!("u{number:02}")).collect();
        let all: Vec<(&str, u32)> = all.iter().map(|user| (user.as_str(), 1)).collect();
        node.shows(&room, &all).await;
        node.presence.memory.flush().await;
    }
    for (number, counter) in counters {
        let seen = counter.seen();
        for before in 0..number {
            assert!(!seen.contains(&format!("+u{before:02}")), "{number} is told {seen:?}");
        }
    }
}

#[tokio::test]
async fn what_a_stopped_node_has_is_told_as_present_and_once() {
    let server = NatsServer::start().await;
    let [one, two, three] = three(&server).await;
    let room = room("r");
    one.enter(&room, "ada");
    three.enter(&room, "eve");
    // However long what follows takes: the node may be given up meanwhile.
    two.knows_lease(&one, ENDLESS);
    let stopped = one.freeze().await;
    let counter = Counter::new(0);
    let (is_complete, users) = observe(&two, &room, &counter).await;
    assert!(!is_complete, "one of the nodes was not heard");
    assert!(!users.contains(&"ada".to_owned()));
    // Nothing is waited for beyond the bound, by the clock that bounds it, and the answer is as honest.
    let is_complete = tokio::select! {
        biased;
        is_complete = two.presence.confirm(&room) => is_complete,
        () = tokio::time::sleep(2 * CONFIRM_WITHIN) => panic!("not bounded by {CONFIRM_WITHIN:?}"),
    };
    assert!(!is_complete);
    let page = two.presence.page(&room, None, 10).await;
    assert!(page.partial);
    assert!(two.presence.occupancy(&super::support::room("other")).await.partial);
    let eve = UserId::parse("eve").unwrap();
    assert!(two.presence.rooms_of(&Tenant::default(), &eve).await.partial);
    drop(stopped);
    two.shows(&room, &[("ada", 1), ("eve", 1)]).await;
    confirmed(&two, &room).await;
    one.enter(&room, "bob");
    eventually("bob to be told", || async {
        two.presence.memory.flush().await;
        counter.seen().contains(&"+bob".to_owned()).then_some(())
    })
    .await;
    let seen = counter.seen();
    assert_eq!(seen.iter().filter(|told| told.ends_with("ada")).count(), 1, "{seen:?}");
    assert!(
        seen.contains(&"=ada".to_owned()) && !seen.contains(&"+eve".to_owned()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn questions_of_a_node_that_does_not_follow_are_answered_completely() {
    let server = NatsServer::start().await;
    let [one, two, three] = three(&server).await;
    let (room, ada) = (room("r"), UserId::parse("ada").unwrap());
    for number in 0..20 {
        one.enter(&room, &format!("u{number:02}"));
        two.enter(&room, "ada");
        let page = three.presence.page(&room, None, 100).await;
        if !page.partial {
            assert_eq!(
                (page.counts.users, page.counts.connections),
                (number + 2, 2 * (number + 1))
            );
            assert_eq!(u32::try_from(page.members.len()), Ok(number + 2));
        }
        let rooms = three.presence.rooms_of(&Tenant::default(), &ada).await;
        if !rooms.partial {
            assert_eq!(rooms.rooms[0].1.connections, number + 1);
        }
    }
    eventually("a complete page", || async {
        let page = three.presence.page(&room, None, 100).await;
        (!page.partial).then_some(())
    })
    .await;
    let nobody = eventually("a complete answer", || async {
        let occupancy = three.presence.occupancy(&super::support::room("nobody")).await;
        (!occupancy.partial).then_some(occupancy)
    });
    assert_eq!(nobody.await, Occupancy::default());
    assert!(three.shown(&room).is_empty(), "it keeps nothing of it");
}

#[tokio::test]
async fn reached_is_exact_or_not_known() {
    let server = NatsServer::start().await;
    let [one, two, three] = three(&server).await;
    let room = room("r");
    let reach = async |except: &Except, members: u32| {
        eventually("the number to be known", || async {
            let told = three.presence.reach(&room, except).count().await;
            assert!(told.is_none_or(|told| told == members), "{told:?} of {members}");
            told
        })
        .await
    };
    assert_eq!(reach(&Except::NOBODY, 0).await, 0, "nobody is there for sure");
    let mut members = Vec::new();
    for number in 0..10 {
        // Right after each coming, and right after each going.
        members.push(one.enter(&room, "ada"));
        members.push(two.enter(&room, &format!("u{number}")));
        reach(&Except::NOBODY, 2 * (number + 1)).await;
    }
    let tab = members[0].connection;
    reach(&Except::new(vec![tab], vec![]), 19).await;
    reach(
        &Except::new(vec![tab, members[1].connection], vec![members[0].user.clone()]),
        9,
    )
    .await;
    one.presence.leave(&room, &members[0], Departure::Lost);
    reach(&Except::NOBODY, 19).await;
    three.knows_lease(&one, ENDLESS);
    let stopped = one.freeze().await;
    for _ in 0..3 {
        assert_eq!(three.presence.reach(&room, &Except::NOBODY).count().await, None);
    }
    drop(stopped);
    reach(&Except::NOBODY, 19).await;
    three
        .presence
        .nodes
        .lease_released(one.presence.nodes.own().incarnation);
    one.kill();
    reach(&Except::NOBODY, 10).await;
}

#[tokio::test]
async fn a_node_given_up_leaves_answers_incomplete_until_its_lease_ends() {
    let server = NatsServer::start().await;
    let [one, two, three] = three(&server).await;
    let (room, ada) = (room("r"), UserId::parse("ada").unwrap());
    for node in [&one, &two, &three] {
        node.enter(&room, "ada");
    }
    let lease = Duration::from_secs(6);
    let began = Instant::now();
    three.knows_lease(&one, lease);
    three.knows_lease(&two, lease);
    // Neither what is stopped nor what is killed says goodbye.
    let _stopped = one.freeze().await;
    two.kill();
    loop {
        let reached = three.presence.reach(&room, &Except::NOBODY).count().await;
        let is_complete = three.presence.confirm(&room).await;
        let rooms = three.presence.rooms_of(&Tenant::default(), &ada).await;
        let elsewhere = three.presence.occupancy(&super::support::room("elsewhere")).await;
        if began.elapsed() < lease {
            assert_eq!((reached, is_complete), (None, false), "{:?}", began.elapsed());
            assert!(rooms.partial && elsewhere.partial);
        } else if reached.is_some() && is_complete && !rooms.partial && !elsewhere.partial {
            break assert_eq!(reached, Some(1));
        }
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_node_that_says_goodbye_is_not_waited_for() {
    let server = NatsServer::start().await;
    let [one, two, _three] = three(&server).await;
    let room = room("r");
    one.enter(&room, "ada");
    two.knows_lease(&one, ENDLESS);
    one.stop.cancel();
    one.tasks.close();
    one.tasks.wait().await;
    eventually("the number without it", || async {
        let told = two.presence.reach(&room, &Except::NOBODY).count().await;
        told.filter(|told| *told == 0)
    })
    .await;
    assert!(two.presence.confirm(&room).await);
}
