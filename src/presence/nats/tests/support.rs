//! Nodes on runtimes of their own, so that one can be killed or stopped as a process would be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::*;
use crate::identity::ConnectionId;
use crate::nats;
use crate::presence::{Change, Present};

/// How long a fact may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct TestNode {
    pub presence: Arc<NatsPresence>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    runtime: Option<Runtime>,
}

impl TestNode {
    /// A node that comes to this server by this address.
    pub(super) async fn start(url: &str, name: &'static str, leave_grace: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (url, to_stop, tracker) = (url.to_owned(), stop.clone(), tasks.clone());
        let starting = runtime.spawn(async move {
            let config = nats::Config {
                servers: vec![url],
                ..nats::Config::default()
            };
            let nats = Nats::connect(&config).await.unwrap();
            let nodes = Nodes::new(Arc::clone(&nats), name);
            let listening = nodes.listen().await.unwrap();
            tracker.spawn(Arc::clone(&nodes).run(listening, to_stop.clone()));
            let config = Config {
                leave_grace,
                ..Config::default()
            };
            NatsPresence::start(nats, nodes, config, &tracker, to_stop)
                .await
                .unwrap()
        });
        Self {
            presence: starting.await.unwrap(),
            stop,
            tasks,
            runtime: Some(runtime),
        }
    }

    /// Ends without a word.
    pub(super) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Stops it as SIGSTOP would, until what is returned is dropped.
    pub(super) async fn freeze(&self) -> SyncSender<()> {
        let (thaw, frozen) = sync_channel(0);
        let (stands, standing) = oneshot::channel();
        // The runtime's only thread.
        let freezing = async move {
            stands.send(()).unwrap();
            let _ = frozen.recv();
        };
        drop(self.runtime.as_ref().unwrap().spawn(freezing));
        // Until then the node goes on with whatever was queued before.
        standing.await.unwrap();
        thaw
    }

    pub(super) fn enter(&self, room: &Room, user: &str) -> Member {
        let member = Member {
            connection: ConnectionId::random(),
            user: UserId::parse(user).unwrap(),
        };
        self.presence.enter(room, &member, None).unwrap();
        member
    }

    /// Who this node's members are shown, with their connections.
    pub(super) fn shown(&self, room: &Room) -> Vec<(String, u32)> {
        let page = self.presence.memory.page_now(room, None, usize::MAX);
        let shown = |one: &Present| (one.user.as_str().to_owned(), one.connections);
        page.members.iter().map(shown).collect()
    }

    /// Waits until just these are shown; answers how long it took.
    pub(super) async fn shows(&self, room: &Room, expected: &[(&str, u32)]) -> Duration {
        let began = Instant::now();
        let is = |shown: &[(String, u32)]| {
            shown
                .iter()
                .map(|(user, count)| (user.as_str(), *count))
                .eq(expected.iter().copied())
        };
        loop {
            let shown = self.shown(room);
            if is(&shown) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{shown:?} is shown instead of {expected:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Has the control log say that another node holds a lease for so long.
    pub(super) fn knows_lease(&self, other: &Self, left: Duration) {
        self.presence.nodes.lease_taken(other.presence.nodes.own(), left);
    }

    /// Waits until it knows of so many other nodes.
    pub(super) async fn knows_nodes(&self, count: usize) {
        let began = Instant::now();
        while self.presence.nodes.live().len() != count {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.presence.nodes.live());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits for a fact.
pub(super) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A member that sees a room: what it was told from its roster on.
#[derive(Default)]
pub(super) struct Counter {
    id: u16,
    /// Of its roster.
    version: AtomicU64,
    changes: Mutex<Vec<Arc<Change>>>,
}

impl Counter {
    pub(super) fn new(id: u16) -> Arc<Self> {
        Arc::new(Self { id, ..Self::default() })
    }

    pub(super) fn begins_at(&self, version: u64) {
        self.version.store(version, Ordering::Relaxed);
    }

    /// Who was shown to come (`+`), to be there (`=`) and to go (`-`), in order.
    pub(super) fn seen(&self) -> Vec<String> {
        let (mut version, mut seen) = (self.version.load(Ordering::Relaxed), Vec::new());
        for change in &*self.changes.lock().unwrap() {
            if change.known.contains(&version) {
                version = change.version;
                seen.extend(change.joined.iter().map(|one| format!("+{}", one.user.as_str())));
                seen.extend(change.present.iter().map(|one| format!("={}", one.user.as_str())));
                seen.extend(change.left.iter().map(|user| format!("-{}", user.as_str())));
            }
        }
        seen
    }
}

impl Observer for Counter {
    fn id(&self) -> u16 {
        self.id
    }

    fn observe(&self, change: Arc<Change>) -> BoxFuture<'_, ()> {
        self.changes.lock().unwrap().push(change);
        Box::pin(std::future::ready(()))
    }
}

pub(super) fn room(name: &str) -> Room {
    Room::parse(&Tenant::default(), name).unwrap()
}
