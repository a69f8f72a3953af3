//! Lost events are never reported as recovered, whatever the reason of the loss: many rooms in few partitions, limits
//! that change with a restart, purges under running nodes.
//!
//! Every claim is compared with the publishers' own log of each room.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;

use super::servers::NatsServer;
use super::{Node, keeping, settings, until};
use crate::bus::conformance::{ALL, Recorder, event, offsets, room, store, texts};
use crate::bus::history::HistoryLimits;
use crate::bus::{Bus as _, Page, Recovery};
use crate::event::{Event, Retention};
use crate::nats;
use crate::position::{Offset, Position};
use crate::room::Room;

const ROOMS: usize = 40;

fn limit(events_max: usize) -> HistoryLimits {
    HistoryLimits {
        events_max,
        ..HistoryLimits::default()
    }
}

/// Returns settings of nodes that soon notice an operator's changes.
fn attentive(server: &NatsServer, partitions: u16) -> nats::Config {
    nats::Config {
        partitions,
        sweep_interval: Duration::from_millis(100),
        ..settings(server)
    }
}

/// A room, its head before its first event, and all events it ever had.
struct Ledger {
    room: Room,
    told: Position,
    events: Vec<Position>,
}

/// Fills rooms that publish by turns. Each room's head is read before its first event; beside each is an older event of
/// another room.
async fn filled(node: &Node, rooms: usize, events: usize) -> Vec<Ledger> {
    let mut ledgers = Vec::new();
    for number in 0..rooms {
        store(&*node.bus, &room(&format!("beside {number}")), 1).await;
        let room = room(&format!("r{number}"));
        let told = node.bus.head(&room).await.unwrap();
        let events = Vec::new();
        ledgers.push(Ledger { room, told, events });
    }
    for _ in 0..events {
        for ledger in &mut ledgers {
            ledger.events.extend(store(&*node.bus, &ledger.room, 1).await);
        }
    }
    ledgers
}

impl Ledger {
    fn after(&self, since: Offset) -> Vec<Offset> {
        let offsets = self.events.iter().map(|at| at.offset);
        offsets.filter(|offset| *offset > since).collect()
    }

    /// Asserts that every position is recovered exactly or not at all, and counts the exact ones. The position before
    /// the oldest event may be either: it depends on what other rooms have lost.
    async fn recovers(&self, node: &Node, exact: RangeInclusive<usize>) {
        let mut recovered = 0;
        for since in self.events.iter().chain([&self.told]) {
            let after = self.after(since.offset);
            if let Recovery::Exact(missed) = node.bus.recover(&self.room, *since, ALL).await.unwrap() {
                assert_eq!(offsets(&missed), after, "a hole since {since:?}");
                recovered += 1;
            }
            let page = node
                .bus
                .history(&self.room, Page::After(since.offset), ALL)
                .await
                .unwrap();
            if page.complete {
                assert_eq!(offsets(&page.events), after, "a hole after {since:?}");
                self.assert_links(&page.events);
            }
        }
        assert!(
            exact.contains(&recovered),
            "{:?}: {recovered}, not {exact:?}",
            self.room
        );
        self.assert_links(&node.bus.history(&self.room, Page::Newest, ALL).await.unwrap().events);
    }

    /// Asserts that no event claims a predecessor older than its real one.
    fn assert_links(&self, events: &[Arc<Event>]) {
        for event in events {
            let link = event.link.unwrap();
            let missing = self.after(link.prev).into_iter().find(|at| *at < link.position.offset);
            assert_eq!(missing, None, "{link:?}");
        }
    }
}

/// Keeps so many of a room's events, like `nats stream purge --subject .. --keep ..`.
async fn purge(node: &Node, room: &Room, keep: u64) {
    let shared = &node.bus.shared;
    let partition = shared.partitions.of(room);
    let stream = shared.server.context().get_stream(&partition.stream).await.unwrap();
    let purging = stream
        .purge()
        .filter(shared.server.nats.subjects().history(partition.number, room));
    match keep {
        0 => purging.await.unwrap(),
        keep => purging.keep(keep).await.unwrap(),
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_limit_recovers_nothing_that_the_lower_one_dropped() {
    let server = NatsServer::start().await;
    let settings = attentive(&server, 8);
    let ledgers = {
        let node = Node::start(&settings, keeping(limit(10))).await;
        filled(&node, ROOMS, 15).await
    };
    let node = Node::start(&settings, keeping(limit(30))).await;
    for ledger in &ledgers {
        // The lower limit has left eleven.
        ledger.recovers(&node, 11..=12).await;
    }
    // The same for rooms with members, whose rings are filled from the stream.
    for ledger in &ledgers {
        node.bus.subscribe(&ledger.room, Recorder::new(0)).await.unwrap();
        ledger.recovers(&node, 11..=12).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_event_of_another_room_proves_nothing() {
    let server = NatsServer::start().await;
    let settings = attentive(&server, 1);
    let ledgers = {
        let node = Node::start(&settings, keeping(limit(5))).await;
        filled(&node, 1, 20).await
    };
    let node = Node::start(&settings, keeping(limit(300))).await;
    ledgers[0].recovers(&node, 7..=7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_lowered_and_raised_by_hand_is_no_recovery() {
    let server = NatsServer::start().await;
    let settings = attentive(&server, 2);
    let node = Node::start(&settings, keeping(limit(30))).await;
    let ledgers = filled(&node, 10, 12).await;
    for ledger in &ledgers[..5] {
        node.bus.subscribe(&ledger.room, Recorder::new(0)).await.unwrap();
        ledger.recovers(&node, 13..=13).await;
    }
    // No node lowers a limit while another promises more: only an operator does.
    let context = node.bus.shared.server.context();
    for events_max in [5, 31] {
        for partition in node.bus.shared.partitions.iter() {
            let there = context.get_stream(&partition.stream).await.unwrap();
            let changed = jetstream::stream::Config {
                max_messages_per_subject: events_max,
                ..there.cached_info().config.clone()
            };
            context.update_stream(changed).await.unwrap();
        }
    }
    for ledger in &ledgers {
        until("the running node has compared its histories", async || {
            let page = node.bus.history(&ledger.room, Page::Newest, ALL).await.unwrap();
            page.events.len() == 5
        })
        .await;
        ledger.recovers(&node, 5..=6).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_lower_limit_does_not_cut_what_the_stream_keeps() {
    let server = NatsServer::start().await;
    let settings = attentive(&server, 2);
    let lower = Node::start(&settings, keeping(limit(5))).await;
    let higher = Node::start(&settings, keeping(limit(30))).await;
    let ledgers = filled(&higher, 5, 20).await;
    for ledger in &ledgers {
        let page = lower.bus.history(&ledger.room, Page::Newest, ALL).await.unwrap();
        assert_eq!(offsets(&page.events), ledger.after(ledger.events[14].offset));
        ledger.recovers(&lower, 6..=6).await;
    }
}

async fn what_was_purged_is_neither_recovered_nor_handed_out(keep: u64) {
    let server = NatsServer::start().await;
    let settings = attentive(&server, 2);
    let node = Node::start(&settings, keeping(HistoryLimits::default())).await;
    let ledgers = filled(&node, ROOMS, 12).await;
    for ledger in ledgers.iter().step_by(2) {
        node.bus.subscribe(&ledger.room, Recorder::new(0)).await.unwrap();
        ledger.recovers(&node, 13..=13).await;
    }
    let (purged, left) = ledgers.split_at(ROOMS / 2);
    for ledger in purged {
        purge(&node, &ledger.room, keep).await;
    }
    let later = Node::start(&settings, keeping(HistoryLimits::default())).await;
    let kept = usize::try_from(keep).unwrap();
    for node in [&node, &later] {
        for ledger in purged {
            until("what was purged is not handed out", async || {
                let page = node.bus.history(&ledger.room, Page::Newest, ALL).await.unwrap();
                let stats = node.bus.stats(&ledger.room).await.unwrap();
                assert_eq!(page.events.len(), stats.events);
                stats.events == kept
            })
            .await;
            ledger.recovers(node, kept..=kept + 1).await;
        }
        for ledger in left {
            let found = node.bus.recover(&ledger.room, ledger.events[0], ALL).await.unwrap();
            assert!(matches!(found, Recovery::Exact(missed) if missed.len() == 11));
        }
    }
    for ledger in purged {
        event(&ledger.room, "after").stored(&*later.bus).await;
        let page = node.bus.history(&ledger.room, Page::Newest, ALL).await.unwrap();
        ledger_links(ledger, &page.events);
    }
}

/// Asserts the links of events of which the newest is not in the ledger.
fn ledger_links(ledger: &Ledger, events: &[Arc<Event>]) {
    let known: Vec<_> = events
        .iter()
        .filter(|event| {
            let last = ledger.events.last().map(|at| at.offset);
            event.offset() <= last
        })
        .cloned()
        .collect();
    ledger.assert_links(&known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_which_some_was_purged_is_not_recovered() {
    what_was_purged_is_neither_recovered_nor_handed_out(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_which_all_was_purged_is_not_recovered() {
    what_was_purged_is_neither_recovered_nor_handed_out(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_room_that_is_purged_get_what_follows() {
    let server = NatsServer::start().await;
    let settings = attentive(&server, 1);
    let node = Node::start(&settings, keeping(HistoryLimits::default())).await;
    let ledgers = filled(&node, 3, 4).await;
    for ledger in &ledgers {
        // A recorder panics on a reset.
        let member = Recorder::new(0);
        node.bus.subscribe(&ledger.room, member.clone()).await.unwrap();
        store(&*node.bus, &ledger.room, 2).await;
        member.wait_for(2).await;
        purge(&node, &ledger.room, 0).await;
        store(&*node.bus, &ledger.room, 2).await;
        let seen = member.wait_for(4).await;
        assert!(seen.is_sorted_by_key(|event| event.offset()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_values_that_were_purged_are_not_handed_out() {
    let server = NatsServer::start().await;
    let settings = attentive(&server, 1);
    let node = Node::start(&settings, keeping(HistoryLimits::default())).await;
    let room = room("r");
    node.bus.subscribe(&room, Recorder::new(0)).await.unwrap();
    let value = |payload| event(&room, payload).name(payload).retention(Retention::LastValue);
    value("a").stored(&*node.bus).await;
    value("b").stored(&*node.bus).await;
    assert_eq!(texts(&node.bus.last_values(&room).await.unwrap()), ["a", "b"]);
    purge(&node, &room, 0).await;
    let shared = &node.bus.shared;
    let subjects = shared.server.nats.subjects();
    let stream = shared
        .server
        .context()
        .get_stream(subjects.stream_of('v'))
        .await
        .unwrap();
    stream.purge().filter(subjects.last_values(&room)).await.unwrap();
    until("they are gone", async || {
        node.bus.last_values(&room).await.unwrap().is_empty()
    })
    .await;
    value("c").stored(&*node.bus).await;
    until("the next one is there", async || {
        texts(&node.bus.last_values(&room).await.unwrap()) == ["c"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_before_a_purge_is_not_the_current_one() {
    let server = NatsServer::start().await;
    let node = Node::start(&attentive(&server, 1), keeping(HistoryLimits::default())).await;
    store(&*node.bus, &room("beside"), 1).await;
    let room = room("r");
    let told = node.bus.head(&room).await.unwrap();
    store(&*node.bus, &room, 3).await;
    purge(&node, &room, 0).await;
    let refused = event(&room, "too late").expected(told.offset).send(&*node.bus).await;
    let Err(crate::bus::PublishError::VersionConflict { current }) = refused else {
        panic!("{refused:?}")
    };
    event(&room, "in time")
        .expected(current.offset)
        .stored(&*node.bus)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_event_cannot_be_deleted() {
    let server = NatsServer::start().await;
    let node = Node::start(&attentive(&server, 1), keeping(HistoryLimits::default())).await;
    let at = store(&*node.bus, &room("r"), 3).await;
    let shared = &node.bus.shared;
    let stream = shared
        .server
        .context()
        .get_stream(&shared.partitions.at(0).stream)
        .await
        .unwrap();
    assert!(stream.delete_message(at[1].offset.0).await.is_err());
    let config: jetstream::stream::Config = stream.cached_info().config.clone();
    assert!(config.deny_delete);
}
