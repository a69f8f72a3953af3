//! Presence of many nodes over NATS, without a database: state-based replication. Each node owns the state of its own
//! connections, replicates it, and shows the merged state of all living nodes.
//!
//! The merged state is a [`MemoryPresence`], which also owns observers, grace periods and counts. Other nodes' state of a
//! user in a room is entered there as their share.
//!
//! - A node **follows** the rooms in which it has connections or observers, and a little longer. It receives nothing of
//!   rooms that it does not follow.
//! - An **update** is a node's new state of users, with a version and the version it builds on. A receiver that detects a
//!   gap asks the node for its whole part of the room. **Anti-entropy**: within a second of a change, then every 20 to 25 s,
//!   a node announces its stand (version, number, digest), so that a lost last update is detected, too.
//! - A node that begins to follow a room **asks all** its followers; replies are merged in any order.
//! - A **census** is a quorum read that makes a room completely known: every living node is asked, and replies behind all
//!   its updates. A roster waits for it, at most [`CONFIRM_WITHIN`]; it is partial when a node did not reply. Until that
//!   node has replied to a later census, its users are reported as present, not as joined. The same holds for a node that
//!   lived unheard when the room was counted. One exception: a user whose only connections are on such a node, and who
//!   enters on another one as well, is reported as joined.
//! - A **failed node** takes its connections with it: each other node detects that by itself. They are lost, not left, at
//!   the time it was last heard; with the usual grace period of 5 s they are gone 5 s after it ended.
//! - A node that **was stopped or cut off** announces and asks everything anew. State that others gave up returns with it.
//!
//! # Differences from one node
//! - [`Presence::page`] and [`Presence::occupancy`] take a census, too, or ask a node that has members in the room to take
//!   one; [`Presence::rooms_of`] asks every node. A reply missing after [`CONFIRM_WITHIN`] makes them partial.
//! - [`Presence::reach`] asks every node for the number of connections it serves. A node that does not reply in time makes
//!   the number unknown, and is not awaited again until it has replied.
//! - A node that was given up without a goodbye may only be stopped or cut off. Until its lease has ended the number is
//!   unknown, and rosters, pages and counts are partial; nothing waits for it. Its members are shown as gone meanwhile.
//! - Changes of other nodes are as late as messages between nodes.
//! - Activity is at-most-once: other nodes' activity arrives over NATS, and is lost with its message. When a node ends
//!   without a goodbye, watchers receive the leaves of the rooms that their own node follows.
//! - A user that reconnects within its grace period, but on a node that did not follow the room, gets a new time and loses
//!   its state. One that reconnects on two nodes at once has its state on both until each has set its own.
//! - Every follower of a room knows all of its members, however many. Only clients see large rooms in counts.

mod answers;
mod book;
mod driver;
mod news;
mod other;
mod query;
mod reach;
mod replica;
#[cfg(test)]
mod sim;
mod site;
#[cfg(test)]
mod tests;
mod touched;
mod update;
mod wire;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::driver::Driver;
use self::reach::Reaching;
use self::replica::Rhythm;
use self::site::Reconciler;
use self::touched::DirtyRooms;
use super::memory::{Config, MemoryPresence};
use super::{
    Activity, CONFIRM_WITHIN, Departure, Detail, Member, Observer, Occupancy, Presence, Reach, Roster, RosterPage,
    StateTooLarge, UserRooms,
};
use crate::event::Except;
use crate::identity::UserId;
use crate::json::Json;
use crate::nats::nodes::Nodes;
use crate::nats::{Nats, NatsError};
use crate::room::{Room, Tenant};
use crate::sync::lock;

/// Deadline of [`NatsPresence::leave_all`]. Without the goodbye, other nodes notice the end by silence, some seconds later.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// Timing of the replication protocol. The fields' docs have the reasons.
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

/// Presence of a deployment. The module's documentation has its contract.
#[derive(Debug)]
pub struct NatsPresence {
    memory: Arc<MemoryPresence>,
    nats: Arc<Nats>,
    nodes: Arc<Nodes>,
    shared: Arc<PresenceInner>,
    reaching: Arc<Reaching>,
    goodbyes: mpsc::Sender<oneshot::Sender<()>>,
}

/// State shared by the driver and the callers of the port.
#[derive(Debug, Default)]
struct PresenceInner {
    touched: Arc<DirtyRooms>,
    /// Wakes the driver: the dirty set is not empty.
    work: Notify,
    /// Wakes the driver: a watcher has subscribed.
    watched: Notify,
    /// Rooms that callers wait for until they are known completely.
    confirming: Mutex<Vec<Confirming>>,
    /// Wakes the driver: [`Self::confirming`] is not empty.
    asked: Notify,
    /// The followed rooms whose subscription is in effect.
    followed: Mutex<HashSet<Room>>,
}

/// A room, and the channel for whether it is known completely.
type Confirming = (Room, oneshot::Sender<bool>);

impl PresenceInner {
    fn touch(&self, room: &Room, user: Option<(&UserId, Departure)>) {
        self.touched.add(room, user);
        self.work.notify_one();
    }

    fn confirm(&self, room: &Room) -> oneshot::Receiver<bool> {
        let (told, answer) = oneshot::channel();
        self.confirming().push((room.clone(), told));
        self.asked.notify_one();
        answer
    }

    fn take_confirming(&self) -> Vec<Confirming> {
        std::mem::take(&mut *self.confirming())
    }

    fn confirming(&self) -> MutexGuard<'_, Vec<Confirming>> {
        lock(&self.confirming)
    }

    fn follows(&self, room: &Room) -> bool {
        let followed = lock(&self.followed);
        followed.contains(room)
    }

    fn set_followed(&self, room: &Room, is_followed: bool) {
        let mut followed = lock(&self.followed);
        if is_followed {
            followed.insert(room.clone());
        } else {
            followed.remove(room);
        }
    }
}

impl NatsPresence {
    /// Starts the replication with the other nodes, which runs until `stop`.
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
        let shared = Arc::new(PresenceInner::default());
        let site = Reconciler::new(
            Arc::clone(&memory),
            Arc::clone(&shared.touched),
            nodes.own().incarnation,
            rhythm,
        );
        let (goodbyes, said) = mpsc::channel(1);
        let parts = (Arc::clone(&nats), Arc::clone(&nodes), Arc::clone(&memory));
        let driver = Driver::listen(parts, Arc::clone(&shared), site, config.flush_interval).await?;
        tasks.spawn(Arc::clone(&memory).run(stop.clone()));
        tasks.spawn(driver.run(said, stop.clone()));
        let reaching = Reaching::new(Arc::clone(&nats), Arc::clone(&nodes), Arc::clone(&memory));
        let reaching = Arc::new(reaching);
        let listening = reaching.listen().await?;
        tasks.spawn(Arc::clone(&reaching).run(listening, stop));
        Ok(Arc::new(Self {
            memory,
            nats,
            nodes,
            shared,
            reaching,
            goodbyes,
        }))
    }

    /// Flushes all changes of this node to the other nodes, before it ends. Returns when NATS has them, or after 2 s
    /// without success.
    pub async fn leave_all(&self) {
        let (told, done) = oneshot::channel();
        let telling = async {
            if self.goodbyes.send(told).await.is_ok() {
                // An error means that the driver has ended, and an ending driver flushes by itself.
                done.await.ok();
            }
        };
        if timeout(GOODBYE_WITHIN, telling).await.is_err() {
            tracing::warn!("last presence changes not published");
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

    fn confirm<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            if self.nodes.is_alone() {
                return true;
            }
            let confirmed = timeout(CONFIRM_WITHIN, self.shared.confirm(room)).await;
            // A census asks living nodes. One that was given up may only be stopped, with its connections open.
            matches!(confirmed, Ok(Ok(true))) && self.nodes.hears_all()
        })
    }

    fn observe(&self, room: &Room, observer: Arc<dyn Observer>, detail: Detail) -> Roster {
        let roster = self.memory.observe(room, observer, detail);
        self.shared.touch(room, None);
        roster
    }

    fn unobserve(&self, room: &Room, observer_id: u16) {
        self.memory.unobserve(room, observer_id);
        self.shared.touch(room, None);
    }

    fn page<'a>(&'a self, room: &'a Room, after: Option<&'a UserId>, size: usize) -> BoxFuture<'a, RosterPage> {
        Box::pin(async move {
            if !self.shared.follows(room) {
                return self.ask_page(room, after, size).await.0;
            }
            let partial = !self.confirm(room).await;
            RosterPage {
                partial,
                ..self.memory.page_now(room, after, size)
            }
        })
    }

    fn rooms_of<'a>(&'a self, tenant: &'a Tenant, user: &'a UserId) -> BoxFuture<'a, UserRooms> {
        Box::pin(self.ask_places(tenant, user))
    }

    fn occupancy<'a>(&'a self, room: &'a Room) -> BoxFuture<'a, Occupancy> {
        Box::pin(async move {
            if !self.shared.follows(room) {
                let (page, since) = self.ask_page(room, None, 0).await;
                return Occupancy {
                    counts: page.counts,
                    since,
                    partial: page.partial,
                };
            }
            let partial = !self.confirm(room).await;
            Occupancy {
                partial,
                ..self.memory.occupancy_now(room)
            }
        })
    }

    fn reach(&self, room: &Room, except: &Except) -> Reach {
        self.reaching.reach(room, except)
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
