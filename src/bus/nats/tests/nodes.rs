//! Two nodes on one server.

use super::servers::NatsServer;
use super::{Node, keeping, settings, until};
use crate::bus::conformance::{ALL, Recorder, event, offsets, room, store, text, texts};
use crate::bus::history::HistoryLimits;
use crate::bus::{Bus as _, Page, PublishError, Recovery};
use crate::event::Retention;
use crate::nats::Live;
use crate::position::Offset;

async fn two() -> (NatsServer, Node, Node) {
    let server = NatsServer::start().await;
    let settings = settings(&server);
    let one = Node::start(&settings, keeping(HistoryLimits::default())).await;
    let other = Node::start(&settings, keeping(HistoryLimits::default())).await;
    (server, one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_two_nodes_see_the_events_of_both_in_one_order() {
    let (_server, one, other) = two().await;
    let room = room("r");
    let members = [Recorder::new(0), Recorder::new(0)];
    one.bus.subscribe(&room, members[0].clone()).await.unwrap();
    other.bus.subscribe(&room, members[1].clone()).await.unwrap();
    tokio::join!(store(&*one.bus, &room, 100), store(&*other.bus, &room, 100));
    let (here, there) = (members[0].wait_for(200).await, members[1].wait_for(200).await);
    assert_eq!(texts(&here), texts(&there));
    assert_eq!(here, there, "the same event is the same on every node");
    let history = one.bus.history(&room, Page::Newest, ALL).await.unwrap().events;
    assert_eq!(offsets(&history), offsets(&here));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_counts_on_all_nodes() {
    let (_server, one, other) = two().await;
    let room = room("r");
    let member = Recorder::new(0);
    other.bus.subscribe(&room, member.clone()).await.unwrap();
    let first = event(&room, "paid").key("k").stored(&*one.bus).await;
    let again = event(&room, "paid").key("k").send(&*other.bus).await.unwrap();
    assert_eq!((again.position, again.duplicate), (Some(first), true));
    let reused = event(&room, "other").key("k").send(&*other.bus).await;
    assert_eq!(reused, Err(PublishError::KeyReused));
    event(&room, "end").stored(&*one.bus).await;
    assert_eq!(texts(&member.wait_for(2).await), ["paid", "end"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_version_counts_on_all_nodes() {
    let (_server, one, other) = two().await;
    let room = room("r");
    let first = event(&room, "1").expected(Offset::ZERO).stored(&*one.bus).await;
    let refused = event(&room, "2").expected(Offset::ZERO).send(&*other.bus).await;
    assert_eq!(refused, Err(PublishError::VersionConflict { current: first }));
    event(&room, "2").expected(first.offset).stored(&*other.bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_resumes_on_another_node() {
    let (_server, one, other) = two().await;
    let room = room("r");
    let positions = store(&*one.bus, &room, 10).await;
    let member = Recorder::new(0);
    let head = other.bus.subscribe(&room, member.clone()).await.unwrap();
    assert_eq!(head, positions[9]);
    for (index, since) in positions.iter().enumerate() {
        let Recovery::Exact(missed) = other.bus.recover(&room, *since, ALL).await.unwrap() else {
            panic!("lost after {index}")
        };
        let later: Vec<Offset> = positions[index + 1..].iter().map(|at| at.offset).collect();
        assert_eq!(offsets(&missed), later);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_values_are_the_same_on_all_nodes() {
    let (_server, one, other) = two().await;
    let room = room("r");
    let member = Recorder::new(0);
    other.bus.subscribe(&room, member.clone()).await.unwrap();
    let value = |name, payload| event(&room, payload).name(name).retention(Retention::LastValue);
    for (name, payload) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
        value(name, payload).stored(&*one.bus).await;
    }
    member.wait_for(3).await;
    for node in [&one, &other] {
        assert_eq!(texts(&node.bus.last_values(&room).await.unwrap()), ["b1", "a2"]);
    }
    value("b", "b2").stored(&*one.bus).await;
    member.wait_for(4).await;
    assert_eq!(texts(&other.bus.last_values(&room).await.unwrap()), ["a2", "b2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_are_counted_and_ignored() {
    let (_server, one, other) = two().await;
    let room = room("r");
    let member = Recorder::new(0);
    other.bus.subscribe(&room, member.clone()).await.unwrap();
    let nats = &one.bus.shared.server.nats;
    let foreign = [
        (nats.subjects().live_of(&room, Live::Reliable), "forged"),
        (nats.subjects().live_of(&room, Live::Ephemeral), "\u{1}\u{2}"),
        (nats.subjects().live_of(&room, Live::Nudge), "soon"),
        (nats.subjects().live(&room).replace('*', "x"), ""),
    ];
    for (subject, payload) in foreign {
        nats.control().client().publish(subject, payload.into()).await.unwrap();
    }
    event(&room, "real").stored(&*one.bus).await;
    assert_eq!(texts(&member.wait_for(1).await), ["real"]);
    until("the foreign messages are counted", async || {
        other.bus.usage().foreign_messages == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_while_others_publish_misses_nothing() {
    const EVENTS: usize = 300;
    let (_server, one, other) = two().await;
    let rooms: Vec<_> = (0..20).map(|number| room(&format!("r{number}"))).collect();
    let publishing = async {
        for number in 0..EVENTS {
            event(&rooms[number % rooms.len()], &number.to_string())
                .stored(&*one.bus)
                .await;
        }
    };
    let joining = async {
        let mut members = Vec::new();
        for (id, room) in (0_u16..).zip(&rooms) {
            let member = Recorder::new(id);
            let head = other.bus.subscribe(room, member.clone()).await.unwrap();
            members.push((room, member, head));
            tokio::task::yield_now().await;
        }
        members
    };
    let ((), members) = tokio::join!(publishing, joining);
    for (room, member, head) in members {
        let history = one.bus.history(room, Page::Newest, ALL).await.unwrap().events;
        let later: Vec<String> = history
            .iter()
            .filter(|event| event.offset() > Some(head.offset))
            .map(|event| text(event))
            .collect();
        assert_eq!(texts(&member.wait_for(later.len()).await), later);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_nobody_wants_is_forgotten() {
    let (_server, one, _other) = two().await;
    let room = room("r");
    one.bus.subscribe(&room, Recorder::new(0)).await.unwrap();
    store(&*one.bus, &room, 5).await;
    assert_eq!(one.bus.usage().rooms, 1);
    one.bus.unsubscribe(&room, 0);
    let usage = one.bus.usage();
    assert_eq!((usage.rooms, usage.history_bytes), (0, 0));
}
