//! The one task that speaks with NATS: received messages go to the [`Reconciler`], and its replies are sent.

mod hearing;
mod sending;
mod subscriptions;
mod waiting;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::subscriptions::{Source, Subscriptions};
use self::waiting::{Waiter, Waiting};
use super::answers::Answers;
use super::replica::census::CENSUS_ROOMS_MAX;
use super::site::Reconciler;
use super::wire::{self, Reader};
use super::{PresenceInner, news};
use crate::nats::nodes::{NodeChange, Nodes};
use crate::nats::{Nats, NatsError};
use crate::presence::Activity;
use crate::presence::memory::MemoryPresence;
use crate::room::Room;
use crate::units::millis;

/// Time for which a message may wait for the connection. A dropped message is detected later, as a gap.
const SEND_WITHIN: Duration = Duration::from_millis(500);

/// Interval of the checks for watchers and for missing subscriptions: neither notifies.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Coalescing time of rooms for one census. Joins wait for it.
const CENSUS_AFTER: Duration = Duration::from_millis(3);

/// Deadline of a census. Its callers wait a little longer, so that this node decides which replies were missing.
const CENSUS_WITHIN: Duration = Duration::from_millis(225);

/// Deadline of a census for another node, which is itself waiting.
const CENSUS_FOR_OTHERS_WITHIN: Duration = Duration::from_millis(150);

/// The most activities of one message: with long names some 600 KB, below NATS's 1 MiB.
const ACTIVITIES_MAX: usize = 1000;

pub(super) struct Driver {
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    memory: Arc<MemoryPresence>,
    shared: Arc<PresenceInner>,
    site: Reconciler,
    reader: Reader,
    answers: Answers,
    subscriptions: Subscriptions,
    inbox: String,
    started: Instant,
    flush_interval: Duration,
    /// The other living nodes, as last announced.
    live: HashSet<u64>,
    waiting: Waiting,
    /// Activity of this node that is not sent yet.
    news: Vec<Activity>,
}

/// Inputs of a driver, beside the messages.
struct Events {
    changes: broadcast::Receiver<NodeChange>,
    outgoing: broadcast::Receiver<Activity>,
    hearing: tokio::sync::watch::Receiver<bool>,
    standing: tokio::sync::watch::Receiver<crate::nats::Standing>,
    goodbyes: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) async fn listen(
        (nats, nodes, memory): (Arc<Nats>, Arc<Nodes>, Arc<MemoryPresence>),
        shared: Arc<PresenceInner>,
        site: Reconciler,
        flush_interval: Duration,
    ) -> Result<Self, NatsError> {
        let own = nodes.own().incarnation;
        let inbox = format!("{}.p", nats.subjects().inbox());
        let mut subscriptions = Subscriptions::new(Arc::clone(&nats));
        let subjects = nats.subjects();
        subscriptions
            .add(Source::Direct, subjects.presence_of_node(own))
            .await?;
        subscriptions.add(Source::Direct, subjects.presence_of_all()).await?;
        subscriptions.add(Source::Direct, inbox.clone()).await?;
        Ok(Self {
            answers: Answers::new(Arc::clone(&memory), own),
            nats,
            nodes,
            memory,
            shared,
            site,
            reader: Reader::default(),
            subscriptions,
            inbox,
            started: Instant::now(),
            flush_interval,
            live: HashSet::new(),
            waiting: Waiting::default(),
            news: Vec::new(),
        })
    }

    pub(super) async fn run(mut self, goodbyes: mpsc::Receiver<oneshot::Sender<()>>, stop: CancellationToken) {
        let mut events = Events {
            changes: self.nodes.changes(),
            outgoing: self.memory.outgoing(),
            hearing: self.nodes.hearing(),
            standing: self.nats.control().standing(),
            goodbyes,
        };
        self.compare_nodes().await;
        let mut connects = self.nats.control().connects();
        let (mut flush_at, mut census_at): (Option<Instant>, Option<Instant>) = (None, None);
        let mut look_at = Instant::now() + LOOK_INTERVAL;
        loop {
            let due_at = self.due_at().min(look_at).min(flush_at.unwrap_or(look_at));
            let due_at = due_at.min(census_at.unwrap_or(look_at));
            let soon = Instant::now() + self.flush_interval;
            tokio::select! {
                () = stop.cancelled() => break,
                Some((source, message)) = self.subscriptions.next() => self.hear(source, message).await,
                () = self.shared.work.notified(), if flush_at.is_none() => flush_at = Some(soon),
                () = self.shared.asked.notified(), if census_at.is_none() => {
                    census_at = Some(Instant::now() + CENSUS_AFTER);
                }
                happened = events.outgoing.recv(), if self.news.len() < ACTIVITIES_MAX => {
                    // Lagged activity is lost: at-most-once.
                    self.news.extend(happened.ok());
                    flush_at = flush_at.or(Some(soon));
                }
                change = events.changes.recv() => self.change(change).await,
                Ok(()) = events.hearing.changed() => {
                    if *events.hearing.borrow_and_update() {
                        self.recheck().await;
                    }
                }
                Ok(()) = events.standing.changed() => {
                    events.standing.mark_unchanged();
                    let now = self.nats.control().connects();
                    if std::mem::replace(&mut connects, now) != now {
                        self.recheck().await;
                    }
                }
                () = self.shared.watched.notified() => self.look().await,
                Some(told) = events.goodbyes.recv() => {
                    self.say_goodbye().await;
                    told.send(()).ok();
                }
                () = sleep_until(due_at) => {}
            }
            let now = Instant::now();
            if census_at.is_some_and(|at| at <= now) {
                census_at = None;
                self.confirm().await;
            }
            if flush_at.is_some_and(|at| at <= now) || self.news.len() >= ACTIVITIES_MAX {
                flush_at = None;
                self.flush().await;
            }
            if look_at <= now {
                look_at = now + LOOK_INTERVAL;
                self.look().await;
            }
            let outs = self.site.due(self.now_ms());
            self.send(outs, None).await;
        }
        self.say_goodbye().await;
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    fn due_at(&self) -> Instant {
        let next_ms = self.site.replica().next_ms();
        let far = self.started.elapsed() + LOOK_INTERVAL;
        // One more, because the fraction of a millisecond is cut off.
        self.started + next_ms.map_or(far, |at_ms| Duration::from_millis(at_ms + 1))
    }

    async fn change(&mut self, change: Result<NodeChange, RecvError>) {
        match change {
            Ok(NodeChange::Came(node)) => self.came(node.incarnation).await,
            Ok(NodeChange::Went(node)) => self.went(node.incarnation).await,
            Err(RecvError::Lagged(_)) => self.compare_nodes().await,
            // The node list outlives this task, so the channel never closes. The sleep keeps a defect from spinning.
            Err(RecvError::Closed) => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }

    async fn compare_nodes(&mut self) {
        let live: HashSet<u64> = self.nodes.live().iter().map(|node| node.incarnation).collect();
        for node in self.live.difference(&live).copied().collect::<Vec<_>>() {
            self.went(node).await;
        }
        for node in live {
            self.came(node).await;
        }
    }

    async fn came(&mut self, node: u64) {
        self.live.insert(node);
        let outs = self.site.came(node, self.nodes.has_heard_begin(node), self.now_ms());
        self.send(outs, None).await;
    }

    async fn went(&mut self, node: u64) {
        self.live.remove(&node);
        let ago = self.nodes.silent_for(node).unwrap_or_default();
        let outs = self.site.went(node, ago, self.now_ms());
        self.send(outs, None).await;
    }

    /// Starts a census of the rooms that callers of the port wait for.
    async fn confirm(&mut self) {
        let mut asked: BTreeMap<Room, Vec<oneshot::Sender<bool>>> = BTreeMap::new();
        for (room, told) in self.shared.take_confirming() {
            asked.entry(room).or_default().push(told);
        }
        let rooms: Vec<Room> = asked.keys().cloned().collect();
        for rooms in rooms.chunks(CENSUS_ROOMS_MAX) {
            let (census, outs) = self.site.confirm(rooms, CENSUS_WITHIN, self.now_ms());
            for room in rooms {
                let callers = asked.remove(room).into_iter().flatten();
                callers.for_each(|told| self.waiting.add(census, room.clone(), Waiter::Caller(told)));
            }
            self.send(outs, None).await;
        }
    }

    async fn confirmed(&mut self, room: Room, census: u64, is_complete: bool) {
        for waiter in self.waiting.take(census, room.clone()) {
            match waiter {
                // The caller may have given up.
                Waiter::Caller(told) => drop(told.send(is_complete)),
                Waiter::Page(reply, request) => {
                    let answer = self.answers.page(&room, &request, is_complete);
                    self.publish(reply, None, answer).await;
                }
            }
        }
    }

    async fn recheck(&mut self) {
        self.compare_nodes().await;
        self.site.recheck(self.now_ms());
    }

    async fn flush(&mut self) {
        let outs = self.site.flush(self.now_ms());
        self.send(outs, None).await;
        let news = std::mem::take(&mut self.news);
        if !news.is_empty() {
            let said = news::write(&news);
            let bytes = wire::write(self.nodes.own().incarnation, "", "", said);
            self.publish(self.nats.subjects().activity(), None, bytes).await;
        }
    }

    /// Retries missing subscriptions, and subscribes to activity while there is a watcher.
    async fn look(&mut self) {
        self.subscriptions.watch(self.memory.is_watched()).await;
        for room in self.subscriptions.retry().await {
            self.shared.set_followed(&room, true);
            self.site.ask_anew(&room, self.now_ms());
        }
    }

    async fn say_goodbye(&mut self) {
        self.flush().await;
        let client = self.nats.control().client();
        if !matches!(timeout(SEND_WITHIN, client.flush()).await, Ok(Ok(()))) {
            tracing::debug!("last presence changes possibly not sent");
        }
    }
}
