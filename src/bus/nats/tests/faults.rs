//! Faults of the server, the connection and the streams.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::servers::{NatsOptions, NatsServer};
use super::{Node, keeping, settings, until};
use crate::bus::conformance::{ALL, Recorder, event, room, store, text, texts};
use crate::bus::history::HistoryLimits;
use crate::bus::{Bus as _, Delivery, Page, PublishError, Recovery, Subscriber};
use crate::nats::{self, Live, Storage};
use crate::position::Position;
use crate::room::Room;

/// A subscriber that records its deliveries and resets.
#[derive(Default)]
pub(super) struct Log {
    seen: Mutex<Vec<String>>,
    resets: Mutex<Vec<Position>>,
}

impl Log {
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn resets(&self) -> Vec<Position> {
        self.resets.lock().unwrap().clone()
    }
}

impl Subscriber for Log {
    fn id(&self) -> u16 {
        7
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.seen.lock().unwrap().push(text(&delivery.event));
    }

    fn reset(&self, _: Room, head: Position) {
        self.resets.lock().unwrap().push(head);
    }
}

/// A slow consumer: blocks its deliveries until it is released.
#[derive(Default)]
struct Slow {
    log: Log,
    holding: Mutex<Option<Vec<Arc<Delivery>>>>,
}

impl Slow {
    fn holding() -> Arc<Self> {
        Arc::new(Self {
            holding: Mutex::new(Some(Vec::new())),
            ..Self::default()
        })
    }

    fn release(&self) {
        self.holding.lock().unwrap().take();
    }
}

impl Subscriber for Slow {
    fn id(&self) -> u16 {
        8
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        if let Some(held) = self.holding.lock().unwrap().as_mut() {
            held.push(Arc::clone(&delivery));
        }
        self.log.deliver(delivery);
    }

    fn reset(&self, room: Room, head: Position) {
        self.log.reset(room, head);
    }
}

async fn alone(change: impl FnOnce(&mut nats::Config)) -> (NatsServer, Node) {
    let server = NatsServer::start().await;
    let mut settings = settings(&server);
    change(&mut settings);
    let node = Node::start(&settings, keeping(HistoryLimits::default())).await;
    (server, node)
}

/// Ends the live messages of a room, as if the server had lost its subscription.
fn deafen(node: &Node, room: &Room) {
    let live = node.bus.shared.partitions.of(room).room(room).unwrap();
    live.lock().feed.as_ref().unwrap().abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_come_live_is_found_by_the_sweep_and_then_the_room_is_subscribed_anew() {
    let (_server, node) = alone(|settings| settings.sweep_interval = Duration::from_millis(200)).await;
    let room = room("r");
    let member = Recorder::new(0);
    node.bus.subscribe(&room, member.clone()).await.unwrap();
    store(&*node.bus, &room, 3).await;
    member.wait_for(3).await;
    deafen(&node, &room);
    for round in 1..=3 {
        event(&room, &format!("silent {round}")).stored(&*node.bus).await;
        member.wait_for(3 + round).await;
    }
    assert_eq!(
        texts(&member.seen()),
        ["0", "1", "2", "silent 1", "silent 2", "silent 3"]
    );
    let live = node.bus.shared.partitions.of(&room).room(&room).unwrap();
    until("live events come again", async || {
        live.lock().feed.as_ref().is_some_and(|feed| !feed.is_aborted())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_fetched_before_what_follows_it() {
    let (_server, node) = alone(|settings| settings.sweep_interval = Duration::from_secs(3600)).await;
    let room = room("r");
    let member = Recorder::new(0);
    node.bus.subscribe(&room, member.clone()).await.unwrap();
    deafen(&node, &room);
    store(&*node.bus, &room, 5).await;
    let live = node.bus.shared.partitions.of(&room).room(&room).unwrap();
    live.lock().feed = None;
    node.bus.shared.listen(&live).await.unwrap();
    node.bus.shared.server.barrier(live.partition).await.unwrap();
    event(&room, "after").stored(&*node.bus).await;
    assert_eq!(texts(&member.wait_for(6).await), ["0", "1", "2", "3", "4", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nudge_finds_what_did_not_come_live() {
    let (_server, node) = alone(|settings| settings.sweep_interval = Duration::from_secs(3600)).await;
    let room = room("r");
    let member = Recorder::new(0);
    node.bus.subscribe(&room, member.clone()).await.unwrap();
    deafen(&node, &room);
    let last = *store(&*node.bus, &room, 5).await.last().unwrap();
    let live = node.bus.shared.partitions.of(&room).room(&room).unwrap();
    live.lock().feed = None;
    node.bus.shared.listen(&live).await.unwrap();
    node.bus.shared.server.barrier(live.partition).await.unwrap();
    node.bus.shared.nudge(&room, last.offset.0).await;
    assert_eq!(texts(&member.wait_for(5).await), ["0", "1", "2", "3", "4"]);
}

/// The client library drops messages of a subscription whose queue is full. Only its report reveals the loss: no sweep
/// is due, and the publishing node has no reason to nudge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_library_drops_for_a_slow_reader_is_fetched() {
    const FLOOD: usize = nats::SUBSCRIPTION_MAX + 1000;
    let server = NatsServer::start().await;
    let settings = nats::Config {
        sweep_interval: Duration::from_secs(3600),
        ..settings(&server)
    };
    let one_at_a_time = super::Config {
        in_flight_events_max: 1,
        ..keeping(HistoryLimits::default())
    };
    let slow = Node::start(&settings, one_at_a_time).await;
    let other = Node::start(&settings, keeping(HistoryLimits::default())).await;
    let room = room("r");
    let member = Slow::holding();
    slow.bus.subscribe(&room, member.clone()).await.unwrap();
    event(&room, "first").stored(&*other.bus).await;
    until("the first one is held", async || member.log.seen() == ["first"]).await;
    event(&room, "second").stored(&*other.bus).await;
    let read = {
        let statistics = slow.bus.shared.server.nats.fanout().client().statistics();
        move || statistics.in_messages.load(Ordering::SeqCst)
    };
    let before = read();
    // No node writes such a message: each that is read counts as foreign.
    let nats = &other.bus.shared.server.nats;
    let (client, subject) = (nats.control().client(), nats.subjects().live_of(&room, Live::Nudge));
    for _ in 0..FLOOD {
        client.publish(subject.clone(), "flood".into()).await.unwrap();
    }
    client.flush().await.unwrap();
    store(&*other.bus, &room, 3).await;
    // While the first event is held nothing is taken out of the queue.
    until("the library has read all of it", async || {
        read() >= before + FLOOD as u64
    })
    .await;
    member.release();
    until("everything is there", async || member.log.seen().len() >= 5).await;
    assert_eq!(member.log.seen(), ["first", "second", "0", "1", "2"]);
    assert_eq!(member.log.resets(), []);
    let read = slow.bus.usage().foreign_messages;
    assert!(read < FLOOD as u64, "nothing was dropped: {read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_loses_nothing() {
    let (server, node) = alone(|_| ()).await;
    let room = room("r");
    let member = Recorder::new(0);
    let head = node.bus.subscribe(&room, member.clone()).await.unwrap();
    store(&*node.bus, &room, 5).await;
    member.wait_for(5).await;
    server.kill();
    server.restart().await;
    let last = *store(&*node.bus, &room, 5).await.last().unwrap();
    assert_eq!(last.epoch, head.epoch);
    let seen = member.wait_for(10).await;
    assert_eq!(texts(&seen), ["0", "1", "2", "3", "4", "0", "1", "2", "3", "4"]);
    let Recovery::Exact(missed) = node.bus.recover(&room, head, ALL).await.unwrap() else {
        panic!("lost")
    };
    assert_eq!(missed.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_empty_is_a_new_epoch_and_members_are_told() {
    let (server, node) = alone(|settings| settings.storage = Storage::Memory).await;
    let room = room("r");
    let member = Arc::new(Log::default());
    let head = node.bus.subscribe(&room, member.clone()).await.unwrap();
    let positions = store(&*node.bus, &room, 5).await;
    until("all came", async || member.seen().len() == 5).await;
    server.kill();
    server.restart().await;
    until("members are told", async || member.resets().len() == 1).await;
    let afresh = member.resets()[0];
    assert_ne!(afresh.epoch, head.epoch);
    let next = event(&room, "next").stored(&*node.bus).await;
    assert_eq!(next.epoch, afresh.epoch);
    until("what follows comes", async || member.seen().len() == 6).await;
    for since in [head, positions[2]] {
        assert!(matches!(node.bus.recover(&room, since, ALL).await, Ok(Recovery::Lost)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_snapshot_is_a_new_epoch_and_no_offset_is_used_twice() {
    let (server, node) = alone(|_| ()).await;
    let room = room("r");
    let member = Arc::new(Log::default());
    node.bus.subscribe(&room, member.clone()).await.unwrap();
    store(&*node.bus, &room, 5).await;
    until("all came", async || member.seen().len() == 5).await;
    server.stop().await;
    let snapshot = tempfile::tempdir().unwrap();
    copy(&server.store(), snapshot.path());
    server.restart().await;
    let lost = store(&*node.bus, &room, 5).await;
    until("all came", async || member.seen().len() == 10).await;
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy(snapshot.path(), &server.store());
    server.restart().await;
    until("members are told", async || member.resets().len() == 1).await;
    let afresh = member.resets()[0];
    assert_ne!(afresh.epoch, lost[0].epoch);
    let next = event(&room, "next").stored(&*node.bus).await;
    assert_eq!(next.epoch, afresh.epoch);
    until("what follows comes", async || member.seen().len() == 11).await;
    for since in lost {
        assert!(matches!(node.bus.recover(&room, since, ALL).await, Ok(Recovery::Lost)));
    }
}

/// Copies a folder and all below it.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_nothing_is_stored_and_that_is_said() {
    let (server, node) = alone(|settings| settings.publish_timeout = Duration::from_secs(1)).await;
    let room = room("r");
    store(&*node.bus, &room, 1).await;
    server.kill();
    let link = node.bus.shared.server.nats.control();
    until("the connection is gone", async || !link.is_connected()).await;
    let refused = event(&room, "no").send(&*node.bus).await;
    assert!(matches!(refused, Err(PublishError::NotStored(_))), "{refused:?}");
    server.restart().await;
    until("the connection is back", async || link.is_connected()).await;
    let back = event(&room, "yes").send(&*node.bus).await.unwrap();
    assert!(back.position.is_some());
    let history = node.bus.history(&room, Page::Newest, ALL).await.unwrap().events;
    assert_eq!(texts(&history), ["0", "yes"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_a_paused_server_does_not_answer_is_settled_when_it_goes_on() {
    let (server, node) = alone(|settings| {
        settings.request_timeout = Duration::from_millis(300);
        settings.publish_timeout = Duration::from_secs(20);
        settings.ping_interval = Duration::from_secs(30);
    })
    .await;
    let room = room("r");
    let member = Recorder::new(0);
    node.bus.subscribe(&room, member.clone()).await.unwrap();
    server.pause().await;
    let publishing = event(&room, "1").send(&*node.bus);
    let resuming = async {
        // Long enough for an attempt to go unanswered; the outcome is the same if it was answered.
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.resume();
    };
    let (published, ()) = tokio::join!(publishing, resuming);
    let published = published.unwrap();
    assert!(!published.duplicate);
    event(&room, "2").stored(&*node.bus).await;
    assert_eq!(texts(&member.wait_for(2).await), ["1", "2"]);
}

#[tokio::test]
async fn a_stream_of_another_shape_is_changed() {
    let server = NatsServer::start_with(NatsOptions::default()).await;
    let settings = settings(&server);
    let small = HistoryLimits {
        events_max: 5,
        ..HistoryLimits::default()
    };
    let room = room("r");
    let first = {
        let node = Node::start(&settings, keeping(small)).await;
        store(&*node.bus, &room, 8).await[7]
    };
    let node = Node::start(&settings, keeping(HistoryLimits::default())).await;
    assert_eq!(node.bus.head(&room).await.unwrap(), first);
    store(&*node.bus, &room, 20).await;
    let history = node.bus.history(&room, Page::Newest, ALL).await.unwrap().events;
    assert!(history.len() >= 25, "{}", history.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_made_anew_under_a_standing_connection_is_a_new_epoch() {
    let (_server, node) = alone(|_| ()).await;
    let room = room("r");
    let member = Arc::new(Log::default());
    let head = node.bus.subscribe(&room, member.clone()).await.unwrap();
    store(&*node.bus, &room, 5).await;
    until("all came", async || member.seen().len() == 5).await;
    let shared = &node.bus.shared;
    let stream = &shared.partitions.of(&room).stream;
    shared.server.context().delete_stream(stream).await.unwrap();
    // The first attempt finds no stream; the event is stored once there is one again.
    let next = event(&room, "next").stored(&*node.bus).await;
    assert_ne!(next.epoch, head.epoch);
    until("members are told", async || member.resets().len() == 1).await;
    event(&room, "last").stored(&*node.bus).await;
    until("what follows comes", async || {
        member.seen().last().is_some_and(|last| last == "last")
    })
    .await;
    assert_eq!(member.resets()[0].epoch, next.epoch);
}
