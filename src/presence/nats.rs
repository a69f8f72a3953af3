//! Presence of many nodes over NATS, without a database: each node owns what its own connections make of it, tells the
//! others, and shows what all living nodes have.
//!
//! What is shown is a [`MemoryPresence`]: observers, grace periods and counts are its. What other nodes have of a user in
//! a room is entered there as their share.
//!
//! - A node **follows** the rooms it has connections or observers in, and a little longer. Others are told nothing of
//!   rooms they do not follow.
//! - An **update** says what a node now has of users, with a version and the one it builds on. A gap is noticed and the
//!   node is asked for all of its part of the room. A second after a change, and then every 15 to 20 s, a node says where
//!   it stands (version, number, digest), so that a lost last word is found, too.
//! - Who starts to follow a room **asks all** who follow it; whatever comes is merged as it comes.
//! - A **node that has ended** takes its connections with it: each other node sees that by itself. They are lost, not
//!   left, at the time it was last heard; with the usual grace period of 5 s they are gone 5 s after it ended.
//! - A node that **was stopped or cut off** says and asks everything anew. What others gave up comes back with it.
//!
//! # What is different from one node
//! - A roster shows who this node knows of. Who is on another node comes with a change some milliseconds after the first
//!   member of a room on this node, and is late as a message between nodes is.
//! - [`Presence::page`], [`Presence::occupancy`] and [`Presence::rooms_of`] of rooms that this node does not follow ask
//!   those who do, and answer what has come after [`ANSWER_WITHIN`] if not all have spoken.
//! - [`Presence::reached`] counts what this node knows: for rooms it does not follow nobody. Connections that are left out
//!   are left out if they are this node's.
//! - Activity is told at most once: what happened on other nodes comes over NATS, and is lost when a message is. When a
//!   node ends without a word, watchers are told who left of the rooms that their own node follows.
//! - A user that comes back within its grace period, but on a node that did not follow the room, comes with a new time
//!   and without its state. One that comes back on two nodes at once has it on both until each has set its own.
//! - All who follow a room know all of its members, however many. Only clients are told of large rooms in counts.

mod answers;
mod book;
mod driver;
mod news;
mod other;
mod query;
mod replica;
#[cfg(test)]
mod sim;
mod site;
#[cfg(test)]
mod tests;
mod touched;
mod update;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::driver::Driver;
use self::replica::Rhythm;
use self::site::Site;
use self::touched::Touched;
use super::memory::{Config, MemoryPresence};
use super::{Activity, Departure, Member, Observer, Occupancy, Presence, Present, Roster, RosterPage, StateTooLarge};
use crate::event::Except;
use crate::identity::UserId;
use crate::json::Json;
use crate::nats::nodes::Nodes;
use crate::nats::{Nats, NatsError};
use crate::room::{Room, Tenant};

/// How long the answers of other nodes are waited for.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(250);

/// How long the last words may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// When nodes tell and ask each other.
const RHYTHM: Rhythm = Rhythm {
    confirm_after: Duration::from_secs(1),
    stand_interval: Duration::from_secs(20),
    ask_again_after: Duration::from_millis(500),
    silence_max: Duration::from_secs(60),
    settle_after: Duration::from_millis(200),
    linger: Duration::from_secs(6),
    unknown_max: Duration::from_secs(5),
    ended_max: Duration::from_secs(600),
    recheck_after: Duration::from_millis(300),
};

/// Presence of a deployment. See the module's documentation for what it promises.
#[derive(Debug)]
pub struct NatsPresence {
    memory: Arc<MemoryPresence>,
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    shared: Arc<Shared>,
    goodbyes: mpsc::Sender<oneshot::Sender<()>>,
}

/// What the driver and the callers of the port share.
#[derive(Debug, Default)]
struct Shared {
    touched: Arc<Touched>,
    /// Something was touched.
    work: Notify,
    /// Somebody has begun to watch.
    watched: Notify,
    /// Since when each followed room's subscription is in effect.
    followed: Mutex<HashMap<Room, Instant>>,
}

impl Shared {
    fn touch(&self, room: &Room, user: Option<(&UserId, Departure)>) {
        self.touched.add(room, user);
        self.work.notify_one();
    }

    /// Whether this node knows of everybody in a room.
    fn knows(&self, room: &Room) -> bool {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let since = followed.get(room);
        since.is_some_and(|since| since.elapsed() >= RHYTHM.settle_after)
    }

    fn set_followed(&self, room: &Room, is_followed: bool) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if is_followed {
            followed.insert(room.clone(), Instant::now());
        } else {
            followed.remove(room);
        }
    }
}

impl NatsPresence {
    /// Starts to speak with the other nodes, until `stop`.
    ///
    /// # Errors
    /// [`NatsError::Permission`] when a subscription is refused at once.
    pub async fn start(
        nats: Arc<Nats>,
        nodes: Arc<Nodes>,
        config: Config,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, NatsError> {
        let rhythm = Rhythm {
            linger: config.leave_grace + Duration::from_secs(1),
            ..RHYTHM
        };
        let memory = Arc::new(MemoryPresence::new(config));
        let shared = Arc::new(Shared::default());
        let site = Site::new(
            Arc::clone(&memory),
            Arc::clone(&shared.touched),
            nodes.own().incarnation,
            rhythm,
        );
        let (goodbyes, said) = mpsc::channel(1);
        let parts = (Arc::clone(&nats), Arc::clone(&nodes), Arc::clone(&memory));
        let driver = Driver::listen(parts, Arc::clone(&shared), site, config.flush_interval).await?;
        tasks.spawn(Arc::clone(&memory).run(stop.clone()));
        tasks.spawn(driver.run(said, stop));
        Ok(Arc::new(Self {
            memory,
            nats,
            nodes,
            shared,
            goodbyes,
        }))
    }

    /// Tells the others everything that happened here until now, before this node ends. Returns when it is with NATS, or
    /// cannot be for 2 s.
    pub async fn leave_all(&self) {
        let (told, done) = oneshot::channel();
        let telling = async {
            if self.goodbyes.send(told).await.is_ok() {
                // The driver has ended otherwise, and has told it then.
                done.await.ok();
            }
        };
        if timeout(GOODBYE_WITHIN, telling).await.is_err() {
            tracing::warn!("the last changes of presence could not be told");
        }
    }
}

impl Presence for NatsPresence {
    fn enter(&self, room: &Room, member: &Member, state: Option<Json>) -> Result<(), StateTooLarge> {
        self.memory.enter(room, member, state)?;
        self.shared.touch(room, Some((&member.user, Departure::Lost)));
        Ok(())
    }

    fn leave(&self, room: &Room, member: &Member, departure: Departure) {
        self.memory.leave(room, member, departure);
        self.shared.touch(room, Some((&member.user, departure)));
    }

    fn observe(&self, room: &Room, observer: Arc<dyn Observer>) -> Roster {
        let roster = self.memory.observe(room, observer);
        self.shared.touch(room, None);
        roster
    }

    fn unobserve(&self, room: &Room, observer_id: u16) {
        self.memory.unobserve(room, observer_id);
        self.shared.touch(room, None);
    }

    fn page<'a>(&'a self, room: &'a Room, after: Option<&'a UserId>, size: usize) -> BoxFuture<'a, RosterPage> {
        Box::pin(async move {
            if self.shared.knows(room) {
                return self.memory.page_now(room, after, size);
            }
            self.ask_page(room, after, size).await
        })
    }

    fn rooms_of<'a>(&'a self, tenant: &'a Tenant, user: &'a UserId) -> BoxFuture<'a, Vec<(Room, Present)>> {
        Box::pin(self.ask_places(tenant, user))
    }

    fn occupancy<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Occupancy> {
        Box::pin(async move {
            if self.shared.knows(room) {
                return self.memory.occupancy_now(room);
            }
            self.ask_figures(room).await.0
        })
    }

    fn reached(&self, room: &Room, except: &Except) -> u32 {
        self.memory.reached(room, except)
    }

    fn announce(&self, activity: Activity) {
        self.memory.announce(activity);
    }

    fn activity(&self) -> broadcast::Receiver<Activity> {
        let activity = self.memory.activity();
        self.shared.watched.notify_one();
        activity
    }
}
