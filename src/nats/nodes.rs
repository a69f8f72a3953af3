//! The nodes of the deployment: failure detection by heartbeats. Each node sends one a second, and is given up when it
//! has been silent for [`SILENCE_MAX`] or says goodbye.
//!
//! A node receives its own heartbeats, too, on both connections: they show that it can hear at all. While it cannot, it
//! gives up no node, because it knows nothing of them. Two processes of one name are two nodes.

mod echo;
pub(crate) mod roster;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::{Client, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::echo::Echo;
use self::roster::Roster;
use super::{Nats, NatsError, Subscription, lame_duck};
use crate::proto::node_v1::{Heartbeat, HeartbeatHeard};
use crate::sync::lock;

/// The interval between heartbeats of a node. A failure is noticed within [`SILENCE_MAX`], and a hundred nodes exchange a hundred
/// small messages a second.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The silence after which a node is given up: three heartbeats and a margin.
pub const SILENCE_MAX: Duration = Duration::from_millis(3500);

/// The time without its own heartbeats after which a node takes its connection for dead (half-open). Less than
/// [`SILENCE_MAX`]: a node that cannot hear must know before it would give up others.
pub const ECHO_MAX: Duration = Duration::from_secs(3);

/// The time for other nodes to answer a node's first heartbeat. No fact says that all have answered: a node without a lease
/// is known by its answer alone. They answer at once, so this is many round trips.
const INTRODUCTION: Duration = Duration::from_millis(200);

/// The most changes kept for a slow reader, which then reads the list anew.
const CHANGES_MAX: usize = 1024;

/// One process of the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// The name given by the operator.
    pub id: Arc<str>,
    /// A random number drawn at the start.
    pub incarnation: u64,
}

/// A change of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChange {
    /// The node lives. Also after it had been given up.
    Came(Node),
    /// The node has ended, or was silent for [`SILENCE_MAX`].
    Went(Node),
}

/// The nodes of the deployment, as this one sees them.
#[derive(Debug)]
pub struct Nodes {
    nats: Arc<Nats>,
    own: Node,
    roster: Mutex<Roster>,
    draining: AtomicBool,
    /// The digest of the settings this node shares with the cluster.
    settings: AtomicU64,
    changes: broadcast::Sender<NodeChange>,
    /// Notified after each heartbeat, the node's own included.
    heard: Notify,
    hearing: watch::Sender<bool>,
}

impl Nodes {
    /// Creates a node of this name, as a new incarnation. Other nodes do not know it before [`Self::run`].
    #[must_use]
    pub fn new(nats: Arc<Nats>, id: &str) -> Arc<Self> {
        let own = Node {
            id: id.into(),
            incarnation: rand::random(),
        };
        Arc::new(Self {
            roster: Mutex::new(Roster::new(own.incarnation, Instant::now())),
            own,
            nats,
            draining: AtomicBool::new(false),
            settings: AtomicU64::new(0),
            changes: broadcast::channel(CHANGES_MAX).0,
            heard: Notify::new(),
            hearing: watch::channel(true).0,
        })
    }

    pub(super) const fn nats(&self) -> &Arc<Nats> {
        &self.nats
    }

    /// Returns this node.
    #[must_use]
    pub const fn own(&self) -> &Node {
        &self.own
    }

    /// Returns the other living nodes.
    #[must_use]
    pub fn live(&self) -> Vec<Node> {
        self.lock().live()
    }

    /// Reports whether no other node delivers anything: none lives, and none was given up before its lease has ended.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.lock().is_alone(Instant::now())
    }

    /// Returns the other living nodes, and whether they are all that may deliver. A node that was given up without a
    /// goodbye may have been suspended or cut off: it may deliver until its lease has ended.
    #[must_use]
    pub fn may_deliver(&self) -> (Vec<Node>, bool) {
        let roster = self.lock();
        (roster.live(), roster.hears_all(Instant::now()))
    }

    /// Returns the other nodes that were given up without a goodbye, or were never heard, and whose leases have not
    /// ended; see [`Self::may_deliver`].
    #[must_use]
    pub fn unheard(&self) -> Vec<Node> {
        self.lock().unheard(Instant::now()).cloned().collect()
    }

    /// Reports whether every node that may deliver lives; see [`Self::may_deliver`].
    #[must_use]
    pub fn hears_all(&self) -> bool {
        self.lock().hears_all(Instant::now())
    }

    /// Returns the other living nodes that have not released their leases, by incarnation and name.
    #[must_use]
    pub fn unreleased(&self) -> Vec<(u64, Arc<str>)> {
        self.lock().unreleased()
    }

    /// Records from the control log that this node holds a lease for so long from now on.
    pub fn lease_taken(&self, node: &Node, left: Duration) {
        self.lock().lease_taken(node, Instant::now() + left);
    }

    /// Records that a node has released its lease: it delivers nothing more.
    pub fn lease_released(&self, incarnation: u64) {
        self.lock().lease_released(incarnation);
    }

    /// Returns the time since a node was last heard; `None` for one that is unknown or forgotten.
    #[must_use]
    pub fn silent_for(&self, incarnation: u64) -> Option<Duration> {
        self.lock().silent_for(incarnation, Instant::now())
    }

    /// Reports whether a node is known from its first heartbeat on, which it sends before it serves any client.
    #[must_use]
    pub fn has_heard_begin(&self, incarnation: u64) -> bool {
        self.lock().has_heard_begin(incarnation)
    }

    /// Returns a receiver of changes of other nodes. A reader that lagged reads [`Self::live`] again.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<NodeChange> {
        self.changes.subscribe()
    }

    /// Returns a watch of whether this node hears its own heartbeats. A change back to `true` means that anything may
    /// have been missed.
    #[must_use]
    pub fn hearing(&self) -> watch::Receiver<bool> {
        self.hearing.subscribe()
    }

    /// Announces with the next heartbeats that this node is draining.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Announces with the next heartbeats this node's settings, by the digest of [`super::agreement::Agreement`].
    pub fn set_settings(&self, digest: u64) {
        self.settings.store(digest, Ordering::Relaxed);
    }

    /// Reports whether every other living node has equal settings; `false` while this node cannot hear.
    #[must_use]
    pub fn are_set_like(&self, digest: u64) -> bool {
        self.lock().are_set_like(digest, Instant::now())
    }

    /// Subscribes, and sends the first heartbeat. Living nodes respond at once.
    ///
    /// # Errors
    /// [`NatsError::Subscribe`].
    pub async fn listen(&self) -> Result<Listening, NatsError> {
        let subject = self.nats.subjects().heartbeats();
        let on_control = self.nats.control().subscribe(subject.clone());
        let on_fanout = self.nats.fanout().subscribe(subject.clone());
        let listening = Listening {
            on_control: on_control.await.map_err(NatsError::subscribing(&subject))?,
            on_fanout: on_fanout.await.map_err(NatsError::subscribing(&subject))?,
        };
        self.say(false).await;
        Ok(listening)
    }

    /// Waits until this node is introduced: its first heartbeat has come back, nodes have had time to answer it, and every
    /// node that holds a lease was heard. A node that lives sends a heartbeat within the interval, whatever it heard of ours;
    /// a holder that is still silent then has ended or is cut off, and is not waited for. Needs [`Self::run`].
    pub async fn introduced(&self) {
        let _ = timeout(HEARTBEAT_INTERVAL, self.until(Roster::has_heard_itself)).await;
        sleep(INTRODUCTION).await;
        let holders_heard = self.until(|roster| roster.hears_all(Instant::now()));
        let _ = timeout(HEARTBEAT_INTERVAL.saturating_sub(INTRODUCTION), holders_heard).await;
    }

    async fn until(&self, is_so: impl Fn(&Roster) -> bool) {
        loop {
            // Before the look: a heartbeat between the two still wakes this waiter.
            let heard = self.heard.notified();
            if is_so(&self.lock()) {
                return;
            }
            heard.await;
        }
    }

    /// Leaves servers in lame duck mode, until `stop`. Run it beside [`Self::run`], which answers its roll calls.
    pub async fn leave_lame_ducks(self: Arc<Self>, stop: CancellationToken) {
        lame_duck::run(&self, stop).await;
    }

    /// Sends a heartbeat every second, and watches the other nodes, until `stop`; then says goodbye.
    pub async fn run(self: Arc<Self>, mut listening: Listening, stop: CancellationToken) {
        let mut beat = interval(HEARTBEAT_INTERVAL);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fanout = Echo::new(self.nats.fanout());
        let mut control = Echo::new(self.nats.control());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(message) = listening.on_control.next() => {
                    self.answer_over_control(&message, listening.on_control.line()).await;
                    match self.hear(&message.payload) {
                        Heard::Own => control.heard(),
                        // The newcomer knows no node yet, and should not have to wait for the next heartbeat.
                        Heard::Newcomer => self.say(false).await,
                        Heard::Other => {}
                    }
                }
                Some(message) = listening.on_fanout.next() => {
                    self.answer_over_fanout(&message, listening.on_fanout.line()).await;
                    if self.is_own(&message.payload) {
                        fanout.heard();
                    }
                }
                _ = beat.tick() => {
                    self.say(false).await;
                    control.check().await;
                    fanout.check().await;
                    self.expire();
                }
            }
        }
        self.say(true).await;
        // Flush the last message: it must not stay in a buffer.
        let control = self.nats.control().client();
        let _ = timeout(HEARTBEAT_INTERVAL, control.flush()).await;
    }

    fn hear(&self, payload: &[u8]) -> Heard {
        let Ok(heartbeat) = Heartbeat::decode(payload) else {
            tracing::debug!("foreign heartbeat ignored");
            return Heard::Other;
        };
        let change = self.lock().hear(&heartbeat, Instant::now());
        self.heard.notify_waiters();
        self.tell_hearing();
        let heard = match change {
            _ if heartbeat.incarnation == self.own.incarnation => Heard::Own,
            Some(NodeChange::Came(_)) => Heard::Newcomer,
            _ => Heard::Other,
        };
        if let Some(change) = change {
            self.tell(change);
        }
        heard
    }

    fn is_own(&self, payload: &[u8]) -> bool {
        Heartbeat::decode(payload).is_ok_and(|heartbeat| heartbeat.incarnation == self.own.incarnation)
    }

    fn expire(&self) {
        let gone = self.lock().expire(Instant::now());
        self.tell_hearing();
        for node in gone {
            self.tell(NodeChange::Went(node));
        }
    }

    fn tell_hearing(&self) {
        let hears = self.lock().hears(Instant::now());
        let changed = self
            .hearing
            .send_if_modified(|hearing| std::mem::replace(hearing, hears) != hears);
        if changed && hears {
            tracing::info!("own heartbeats received again");
        } else if changed {
            tracing::warn!("own heartbeats lost, node isolated");
        }
    }

    fn tell(&self, change: NodeChange) {
        match &change {
            NodeChange::Came(node) => tracing::info!(roomcast.node.id = %node.id, "node joined"),
            NodeChange::Went(node) => tracing::info!(roomcast.node.id = %node.id, "node left"),
        }
        // There may be no receiver yet.
        let _ = self.changes.send(change);
    }

    async fn say(&self, leaving: bool) {
        // Numbered even if it is not sent: other nodes see from the number that a later one was not the first.
        let heartbeat = self.heartbeat(leaving);
        // Without a connection the library would only queue it for later.
        if !self.nats.control().is_connected() {
            return;
        }
        let client = self.nats.control().client();
        let publishing = client.publish(self.nats.subjects().heartbeats(), heartbeat);
        if !matches!(timeout(HEARTBEAT_INTERVAL / 2, publishing).await, Ok(Ok(()))) {
            tracing::debug!("heartbeat not sent");
        }
    }

    pub(super) fn heartbeat(&self, leaving: bool) -> Bytes {
        let heartbeat = Heartbeat {
            node_id: self.own.id.to_string(),
            incarnation: self.own.incarnation,
            sequence: self.lock().next_sequence(),
            draining: self.draining.load(Ordering::Relaxed),
            leaving,
            settings: self.settings.load(Ordering::Relaxed),
        };
        heartbeat.encode_to_vec().into()
    }

    /// Answers a heartbeat that requests it; see [`HeartbeatHeard`]. The answer uses the line that brought the
    /// heartbeat: only for that one it is known that earlier subscriptions are in effect. The caller repeats its
    /// request.
    async fn answer_over_control(&self, heartbeat: &Message, brought_by: u64) {
        if heartbeat.reply.is_some()
            && let Some(line) = self.nats.control().settled_line(brought_by)
        {
            self.answer(heartbeat, false, &line.client).await;
        }
    }

    /// Answers no heartbeat of a line that is being left: for later messages there it is unknown whether they are read
    /// there or on the new line.
    async fn answer_over_fanout(&self, heartbeat: &Message, brought_by: u64) {
        if heartbeat.reply.is_some() && self.nats.fanout().settled_line(brought_by).is_some() {
            self.answer(heartbeat, true, &self.nats.control().client()).await;
        }
    }

    async fn answer(&self, heartbeat: &Message, over_fanout: bool, client: &Client) {
        let Some(reply) = heartbeat.reply.clone() else { return };
        let heard = HeartbeatHeard {
            incarnation: self.own.incarnation,
            over_fanout,
        };
        let publishing = client.publish(reply, heard.encode_to_vec().into());
        if !matches!(timeout(HEARTBEAT_INTERVAL / 2, publishing).await, Ok(Ok(()))) {
            tracing::debug!("heartbeat not answered");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Roster> {
        lock(&self.roster)
    }
}

/// The origin of a heartbeat.
enum Heard {
    Own,
    /// A node that was not known to live.
    Newcomer,
    Other,
}

/// The subscriptions of [`Nodes::run`].
#[derive(Debug)]
pub struct Listening {
    on_control: Subscription,
    on_fanout: Subscription,
}
